//go:build attack

package broker

import (
	"os"
	"sync/atomic"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
)

// In this build a workload may also have its worker killed at a given step of its
// next call, by a command that bpf() doesn't have: "kill", with the step in place of
// the attribute's address, and returns the worker's process id. A step that there
// isn't dooms nobody. If the call itself has bits in the upper half of its third
// argument, which the kernel doesn't look at, the worker that takes over is killed,
// too, when it has read the request.
const killCommand = 0x6b696c6c

// doomed is the thread whose next call the worker doesn't survive, and the step;
// 0: none.
var doomed atomic.Uint64

// kill serves killCommand; false: it is another one.
func (t *thread) kill(n *notify.Notification) bool {
	if n.Data.Nr != sys.NrBPF || uint32(n.Data.Args[0]) != killCommand {
		return false
	}
	doomed.Store(uint64(n.TID)<<8 | n.Data.Args[1]&0xff)
	t.listener.Answer(n, os.Getpid(), 0)
	return true
}

func (t *thread) reached(step int) {
	if again := t.slot.Notif.Data.Args[2]>>32 != 0; again && step == stepRead && t.slot.Blame == 1 {
		sys.KillSelf()
	}
	if doomed.Load() == uint64(t.slot.Notif.PID)<<8|uint64(step) {
		sys.KillSelf()
	}
}

// log is the slot, and a place to be killed right before and after the call.
func (t *thread) log() perform.Log { return killLog{t} }

type killLog struct{ t *thread }

func (l killLog) Calling() {
	l.t.slot.Calling()
	l.t.reached(stepCalling)
}

func (l killLog) Performing(before uint64) {
	l.t.slot.Performing(before)
	l.t.reached(stepCalling)
}

func (l killLog) Performed(value int, e sys.Errno) {
	l.t.reached(stepEffect)
	l.t.slot.Performed(value, e)
}
