package launch

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// forwarded are the signals that we pass on: all that can be caught, but those
// that are about ourselves (faults, SIGCHLD, SIGPIPE) and SIGURG, which Go's
// scheduler uses.
var forwarded = func() []syscall.Signal {
	sigs := []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTERM, syscall.SIGCONT, syscall.SIGTSTP,
		syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH, syscall.SIGIO, syscall.SIGPWR,
	}
	for rt := syscall.Signal(35); rt <= 64; rt++ {
		sigs = append(sigs, rt)
	}
	return sigs
}()

// alreadyThere says whether CMD has received the signal just as we have: the
// terminal sends to the whole foreground process group.
func alreadyThere(s sys.SigInfo) bool {
	if !s.FromKernel() {
		return false
	}
	switch s.Signal {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH:
		return true
	case syscall.SIGHUP, syscall.SIGCONT:
		// A hang-up is told to the session's leader alone.
		sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
		return int(sid) != os.Getpid()
	}
	return false // such as the SIGALRM of an alarm(2) from before exec
}

// stopped says whether a child that was reported to be stopped still is.
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true // /proc may be anything in a workload
	}
	// "PID (name, which may contain anything) STATE …", see proc_pid_stat(5).
	_, state, _ := strings.Cut(string(b[max(0, bytes.LastIndexByte(b, ')')):]), " ")
	return strings.HasPrefix(state, "T")
}

// forwarder passes the signals that this process receives on to CMD, also
// those that we were started with ignored: CMD was, too, and may have changed it.
// A signal for the whole process group from another process (kill %1, the SIGCONT
// of fg) reaches CMD twice, directly and through us: the two can't be told apart.
// Different signals that come within microseconds may change their order.
type forwarder struct {
	infos *sys.SigInfos
	send  func(syscall.Signal)

	mu       sync.Mutex
	started  bool // the stage is in our process group: it gets what the terminal sends
	released bool
	held     []syscall.Signal // received before CMD was there
}

func forwardTo(w *Workload) (*forwarder, error) {
	infos, err := sys.CatchSigInfo(forwarded...)
	if err != nil {
		return nil, err
	}
	f := &forwarder{infos: infos, send: func(sig syscall.Signal) {
		_ = w.Signal(sig) // CMD has ended: Wait says so
	}}
	go f.run()
	return f, nil
}

func (f *forwarder) run() {
	for {
		s, err := f.infos.Next()
		if err != nil {
			return
		}
		f.mu.Lock()
		switch {
		case f.started && alreadyThere(s):
		case f.released:
			f.send(s.Signal)
		default:
			f.held = append(f.held, s.Signal)
		}
		f.mu.Unlock()
	}
}

// stageStarted says that signals of the terminal aren't ours to pass on any more.
func (f *forwarder) stageStarted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = true
}

// release passes on what was held, and from now on all at once.
func (f *forwarder) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sig := range f.held {
		f.send(sig)
	}
	f.held, f.released = nil, true
}

func (f *forwarder) stop() { f.infos.Close() }
