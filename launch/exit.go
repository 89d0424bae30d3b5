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
// that is the init, which reports on CMD through its socket: as the first process
// of a namespace it can neither stop nor kill itself by a signal.
func (w *Workload) watch() {
	reported := make(chan syscall.WaitStatus, 1)
	go func() {
		defer close(reported)
		for {
			var b [4]byte
			if _, err := io.ReadFull(w.init, b[:]); err != nil {
				return
			}
			ws := syscall.WaitStatus(binary.LittleEndian.Uint32(b[:]))
			if ws.Stopped() {
				w.suspend(ws.StopSignal())
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
			} else if w.private && ws.ExitStatus() == 2 {
				// An init without a word: a signal came before it caught them, which
				// the Go runtime can't die of in its place, and so exits.
				if sig := w.signals.deadly(); sig != 0 {
					ws = syscall.WaitStatus(sig)
				}
			}
			w.status = ws
			close(w.ended)
			return
		case stopped(w.pid): // if `run` stopped after CMD went on, nobody would continue it
			w.suspend(ws.StopSignal())
		}
	}
}

// suspend stops us because CMD stopped, so that the shell takes its job for
// stopped, and returns when we are continued. CMD stopped by SIGSTOP is somebody's
// job only where there is a terminal; without one, nobody would continue us.
func (w *Workload) suspend(sig syscall.Signal) {
	// The SIGCONT that we are continued by is passed on only afterwards.
	w.signals.mu.Lock()
	defer w.signals.mu.Unlock()
	tty, err := sys.Terminal()
	if err != nil {
		if sig != syscall.SIGSTOP {
			sys.StopLike(sig)
		}
		return
	}
	defer sys.Close(tty)
	before, own, err := sys.Foreground(tty)
	sys.StopLike(sig)
	if err != nil || before == own {
		return
	}
	// CMD, such as a shell, had put a process group of its own in the foreground.
	// Whoever continues us knows our group only, and CMD relies on its own.
	if now, _, err := sys.Foreground(tty); err == nil && now == own {
		_ = sys.SetForeground(tty, before) // it is gone: so is what would read
	}
}

func (w *Workload) exitStatus() ExitStatus {
	if w.status.Signaled() {
		return ExitStatus{Signal: w.status.Signal()}
	}
	return ExitStatus{Code: w.status.ExitStatus()}
}
