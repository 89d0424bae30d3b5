package launch

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

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

// toGroup says whether CMD gets the signal just as we do: the terminal sends to
// the whole foreground process group.
func toGroup(s sys.SigInfo) bool {
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

// missed says whether CMD needs a signal that was sent to its process group all
// the same: it may not have been a member yet, and nothing tells the order. If it
// has a handler, it was there, and would run it twice. If not, the signal ends
// it, or does nothing, however often it comes; but a stop may be over by now.
func missed(pid int, sig syscall.Signal) bool {
	if stops(sig) {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false // it has ended, or the workload has mounted over /proc
	}
	var blocked, caught sys.SignalSet // blocked ones may be waited for by sigwait(3)
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "SigBlk: %x", &blocked)
		_, _ = fmt.Sscanf(line, "SigCgt: %x", &caught)
	}
	return !blocked.Has(sig) && !caught.Has(sig)
}

// stops says whether the signal's default action is to stop.
func stops(sig syscall.Signal) bool {
	return sig == syscall.SIGTSTP || sig == syscall.SIGTTIN || sig == syscall.SIGTTOU
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
	send  func(sys.SigInfo)

	mu       sync.Mutex
	released bool
	held     []sys.SigInfo  // received before CMD was there
	fatal    syscall.Signal // the first signal received that ends a program by default
}

func forwardTo(w *Workload) (*forwarder, error) {
	infos, err := sys.CatchSigInfo(forwarded...)
	if err != nil {
		return nil, err
	}
	// Where it fails CMD has ended: Wait says so.
	f := &forwarder{infos: infos, send: func(s sys.SigInfo) {
		switch {
		case w.private:
			_ = w.tellInit(s.Signal, toGroup(s))
		case !toGroup(s) || missed(w.pid, s.Signal):
			_ = w.Signal(s.Signal)
		}
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
		if f.fatal == 0 && !stops(s.Signal) && s.Signal != syscall.SIGCONT && s.Signal != syscall.SIGWINCH {
			f.fatal = s.Signal
		}
		if f.released {
			f.send(s)
		} else {
			f.held = append(f.held, s)
		}
		f.mu.Unlock()
	}
}

// release passes on what was held, and from now on all at once.
func (f *forwarder) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.held {
		f.send(s)
	}
	f.held, f.released = nil, true
}

func (f *forwarder) stop() { f.infos.Close() }

// deadly returns the first signal that came and ends a program by default; 0:
// there was none. It is for where the stage has just ended because of the
// terminal's: our copy may be on its way still, so it waits a little.
func (f *forwarder) deadly() syscall.Signal {
	for end := time.Now().Add(delay); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		sig := f.fatal
		f.mu.Unlock()
		if sig != 0 || time.Now().After(end) {
			return sig
		}
	}
}

// delay is how long a signal may be on its way to a handler on a busy machine.
const delay = 200 * time.Millisecond

// giveBack sends the caller, where Start failed, the signal that CMD can't have.
// What that does is the caller's affair again after stop.
func (f *forwarder) giveBack() {
	f.mu.Lock()
	sig := f.fatal
	f.mu.Unlock()
	if sig != 0 {
		_ = syscall.Kill(os.Getpid(), sig)
		time.Sleep(delay) // to die of it without a word
	}
}
