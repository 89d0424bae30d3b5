package launch

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// ExitStatus is how CMD ended: by a signal if Signal isn't 0, else with Code.
type ExitStatus struct {
	Code   int
	Signal syscall.Signal
}

// String is "exit status 3" or "signal: killed".
func (s ExitStatus) String() string {
	if s.Signal != 0 {
		return "signal: " + s.Signal.String()
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// Exit ends the calling process as CMD ended: with its code, or by its signal
// (without a core dump), so that a shell sees no difference. Where the signal
// doesn't kill, the code is 128 and the signal's number.
func (s ExitStatus) Exit() {
	if s.Signal != 0 {
		sys.DieLike(s.Signal)
		os.Exit(128 + int(s.Signal))
	}
	os.Exit(s.Code)
}

// watch waits for the stage, or what it has become. With a private pid namespace
// that is the init, which reports on CMD through the status pipe: as the first
// process of a namespace it can neither stop nor kill itself by a signal.
func (w *Workload) watch(status *os.File) {
	reported := make(chan syscall.WaitStatus, 1)
	go func() {
		defer status.Close()
		defer close(reported)
		for {
			var b [4]byte
			if _, err := io.ReadFull(status, b[:]); err != nil {
				return
			}
			ws := syscall.WaitStatus(binary.LittleEndian.Uint32(b[:]))
			if ws.Stopped() {
				suspend(ws.StopSignal())
				continue
			}
			reported <- ws
			return
		}
	}()
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(w.pid, &ws, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil: // someone else waited for our child
			ws = 0xff00
			fallthrough
		case !ws.Stopped():
			if r, ok := <-reported; ok {
				ws = r
			}
			w.status = ws
			close(w.ended)
			return
		case stopped(w.pid): // if `run` stopped after CMD went on, nobody would continue it
			suspend(ws.StopSignal())
		}
	}
}

// suspend stops us because CMD stopped, so that the shell takes its job for
// stopped. CMD stopped by SIGSTOP is somebody's job only where there is a
// terminal; without one, nobody would continue us.
func suspend(sig syscall.Signal) {
	if sig != syscall.SIGSTOP || sys.HasTerminal() {
		sys.StopLike(sig)
	}
}

func (w *Workload) exitStatus() ExitStatus {
	if w.status.Signaled() {
		return ExitStatus{Signal: w.status.Signal()}
	}
	return ExitStatus{Code: w.status.ExitStatus()}
}
