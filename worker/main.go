package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/broker"
	"github.com/bpfbroker/bpfbroker/btfnames"
	"github.com/bpfbroker/bpfbroker/confine"
	"github.com/bpfbroker/bpfbroker/helper"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Options are the arguments of Main, as text.
type Options struct {
	ID, Known, Kind, Policy, Probes string
	// Fds of Config's files of these names; 0: nil.
	Audit, Rules, Holdings, Names, Tracepoints int
}

// Executed by fd, a worker would be called by the fd's number in ps, and what it
// can't read of itself in proc it can't write to. init runs on the first thread,
// whose name is the process's.
func init() {
	if len(os.Args) > 1 && os.Args[1] == Arg {
		sys.SetThreadName("bpfbroker")
	}
}

// Main is the worker process: it serves until the workload has ended. It returns
// the exit code; an error goes to whoever has started it.
func Main(o Options) int {
	err := serve(o)
	if err == nil {
		return 0
	}
	if helper.Fail(channelFD, err) != nil {
		fmt.Fprintln(os.Stderr, "bpfbroker: worker:", err)
	}
	return 1
}

func serve(o Options) error {
	if err := sys.PlacePoller(); err != nil {
		return err
	}
	kind, err := parseKind(o.Kind)
	if err != nil {
		return err
	}
	var rules *os.File
	if o.Rules != 0 {
		rules = os.NewFile(uintptr(o.Rules), "rules")
	}
	pol, err := ReadPolicy(o.Policy, rules)
	rules.Close()
	if err != nil {
		return err
	}
	known := new(workload.Known)
	if err := json.Unmarshal([]byte(o.Known), known); err != nil {
		return fmt.Errorf("what is known of the workload: %w", err)
	}
	known.Workload.ID = o.ID
	if err := o.mapNames(known); err != nil {
		return fmt.Errorf("map the kernel's names: %w", err)
	}
	probes, err := request.ParseProbes(o.Probes)
	if err != nil {
		return err
	}
	if err := sys.CloseOnExec(listenerFD, channelFD, ledgerFD); err != nil {
		return err
	}
	if err := sys.SetNotDumpable(); err != nil {
		return err
	}
	token := -1
	if kind == Token && !pol.Ceiling().Empty() {
		if token, err = helper.Token(channelFD); err != nil {
			return fmt.Errorf("make token: %w", err)
		}
	}
	if kind == Token && !pol.Ceiling().KernelMemory && !sys.Race {
		// The kernel takes it for CAP_PERFMON as well (bpf_token_capable), which such a
		// policy withholds. Without it we can't go to other namespaces of targets'.
		if err := sys.DropCapability(sys.CAP_SYS_ADMIN); err != nil {
			return err
		}
	}
	book, err := ledger.Open(ledgerFD)
	if err != nil {
		return err
	}
	var records *audit.Writer
	if o.Audit != 0 {
		if err := sys.CloseOnExec(o.Audit); err != nil {
			return err
		}
		if records, err = audit.OpenWriter(o.Audit); err != nil {
			return err
		}
	}
	var holdings *workload.Holdings
	if o.Holdings != 0 {
		if holdings, err = workload.TakeHoldings(o.Holdings); err != nil {
			return err
		}
		sys.Close(o.Holdings)
	}
	b, err := broker.New(broker.Config{Listener: listenerFD, Channel: channelFD, Token: token,
		Ledger: book, Holdings: holdings, Audit: records, Known: known, Policy: pol, Probes: probes})
	if err != nil {
		return err
	}
	if err := confined(pol.Ceiling()); err != nil {
		return err
	}
	if err := b.Prepare(); err != nil {
		return err
	}
	// The daemon makes sure first that its successor will know of this worker: two at
	// once would work in the same slots.
	if err := helper.Ready(channelFD); err != nil {
		return err
	}
	b.Start()
	hungUp, alone := make(chan error, 1), make(chan error, 1)
	go func() { hungUp <- sys.WaitHangUp(listenerFD) }()
	go func() { alone <- sys.WaitHangUp(channelFD) }()
	select {
	case err := <-hungUp:
		if err != nil {
			return fmt.Errorf("wait for the end of the workload: %w", err)
		}
		return nil
	case <-alone:
		// Neither the daemon nor who would start another is there any more.
		return errors.New("nobody is left to take over")
	case <-b.Gone():
		return errors.New("a call can't be answered, or no thread is left to serve")
	}
}

// mapNames maps the names of the kernel's types and tracepoints, as far as there are any.
func (o *Options) mapNames(k *workload.Known) error {
	if o.Names != 0 {
		index, err := mapped(o.Names)
		if err != nil {
			return err
		}
		if k.Names, err = btfnames.Open(index); err != nil {
			return err
		}
	}
	if o.Tracepoints != 0 {
		list, err := mapped(o.Tracepoints)
		if err != nil {
			return err
		}
		k.Tracepoints = list
	}
	return nil
}

// mapped maps a file and closes it.
func mapped(fd int) ([]byte, error) {
	defer sys.Close(fd)
	return sys.MapReadOnly(fd)
}

// dataLimit bounds the memory of a worker, beside its text: what requests may use
// (256 MiB), one large verifier log (1 GiB), a slab for each thread (16 MiB), the
// Go heap and stacks, and some room.
const dataLimit = 2 << 30

// confined gives up what a worker needs for its set-up alone.
func confined(c policy.Ceiling) error {
	if err := sys.LimitSelf(dataLimit); err != nil {
		return err
	}
	if unconfined() { // in builds for tests alone
		return nil
	}
	if sys.Race { // its runtime makes other system calls
		return nil
	}
	if sys.Cgo {
		return errors.New("this binary was built with cgo, for which the worker's seccomp filter isn't made: build it with CGO_ENABLED=0, as make does")
	}
	var commands []uint32
	if c.Loaders() { // which the broker makes these calls for
		commands = append(commands, uint32(abi.MapLookupElem), uint32(abi.MapUpdateElem), uint32(abi.MapDeleteElem))
	}
	for i := range abi.Table() {
		if r := &abi.Table()[i]; r.Intercepted() && r.Host == "" {
			commands = append(commands, uint32(r.Command))
		}
	}
	prog, err := confine.Program(runtime.GOARCH, confine.Params{TGID: os.Getpid(), Commands: commands})
	if err != nil {
		return err
	}
	filter := make([]sys.SockFilter, len(prog))
	for i, p := range prog {
		filter[i] = sys.SockFilter(p)
	}
	return sys.Confine(filter)
}
