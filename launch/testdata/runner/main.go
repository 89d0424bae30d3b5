// Runner is `bpfbroker run` without a broker: what the tests of package launch
// start. Its filter notifies nobody.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/launch"
)

func main() {
	launch.Main()
	private := map[string]launch.Mode{"host": launch.Host, "private": launch.Private}
	id := flag.String("id", fmt.Sprintf("test-%d", os.Getpid()), "")
	net := flag.String("net", "host", "")
	pid := flag.String("pid", "host", "")
	dir := flag.String("dir", "", "")
	userMap := flag.String("user-map", "", "")
	tracing := flag.String("tracing", "none", "")
	flag.Parse()
	var ids []launch.IDMap
	if *userMap != "" {
		var err error
		if ids, err = launch.ParseIDMap(*userMap); err != nil {
			fail(err)
		}
	}
	const allow = 0x7fff0000
	w, err := launch.Start(launch.Config{
		ID: *id, Args: flag.Args(), Dir: *dir, UserMap: ids,
		Net: private[*net], PID: private[*pid],
		Tracing: *tracing != "none", Symbols: *tracing == "symbols",
		Filter: []sys.SockFilter{{Code: 6, K: allow}},
	})
	if err != nil {
		fail(err)
	}
	if err := w.Release(); err != nil {
		w.Close()
		fail(err)
	}
	status, err := w.Wait()
	if err := errors.Join(err, w.Close()); err != nil {
		fail(err)
	}
	status.Exit()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "runner:", err)
	if e := (*launch.ExecError)(nil); errors.As(err, &e) {
		os.Exit(e.ExitCode())
	}
	os.Exit(125)
}
