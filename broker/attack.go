//go:build attack

package broker

import (
	"encoding/binary"
	"os"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
)

// This build is for tests of what a workload can do that has taken its worker over:
// by a command that bpf() doesn't have, it makes the worker's thread make system
// calls of the workload's choice (e2e, TestTakenOver).

// attackCommand is "attc".
const attackCommand = 0x61747463

// attackAttr is the command's attribute.
type attackAttr struct {
	Steps, Count uint64 // sys.Step
	Memory, Size uint64 // what their arguments point to; written back
	// What the code finds in the worker's memory: the numbers of its fds, and its
	// process id.
	Listener, Channel, Token, PID int32
}

const (
	maxAttackSteps  = 1 << 16
	maxAttackMemory = 1 << 21
)

// attack serves attackCommand; false: it is another one.
func (t *thread) attack(n *notify.Notification) bool {
	if t.kill(n) {
		return true
	}
	if n.Data.Nr != sys.NrBPF || uint32(n.Data.Args[0]) != attackCommand {
		return false
	}
	e := sys.Errno(sys.EOWNERDEAD)
	if t.slot.Blame == 0 {
		e = t.takenOver(n)
	}
	t.listener.Answer(n, 0, e)
	return true
}

func (t *thread) takenOver(n *notify.Notification) sys.Errno {
	defer t.target.Done()
	var a attackAttr
	head := make([]byte, binary.Size(a))
	if got, e := t.target.Read(n.Data.Args[1], head); e != 0 || got < len(head) {
		return sys.EFAULT
	}
	if _, err := binary.Decode(head, binary.NativeEndian, &a); err != nil || a.Count > maxAttackSteps || a.Size > maxAttackMemory {
		return sys.EINVAL
	}
	steps, memory := make([]sys.Step, a.Count), make([]byte, a.Size)
	list := make([]byte, binary.Size(steps))
	for addr, p := range map[uint64][]byte{a.Steps: list, a.Memory: memory} {
		if got, e := t.target.Read(addr, p); e != 0 || got < len(p) {
			return sys.EFAULT
		}
	}
	if _, err := binary.Decode(list, binary.NativeEndian, steps); err != nil {
		return sys.EINVAL
	}
	// On a thread like this one, which ends afterwards: nobody is served by a thread
	// that is elsewhere, or somebody else.
	failed := make(chan error)
	go func() {
		other, err := t.newThread()
		if err == nil {
			a.Listener, a.Channel, a.Token, a.PID = int32(other.listener.FD), int32(other.channelFD), int32(other.token), int32(os.Getpid())
			sys.RunSteps(steps, memory)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.cfg.Ledger.Fault(err)
		return sys.EAGAIN
	}
	if _, err := binary.Encode(head, binary.NativeEndian, &a); err != nil {
		return sys.EINVAL
	}
	if _, err := binary.Encode(list, binary.NativeEndian, steps); err != nil {
		return sys.EINVAL
	}
	for addr, p := range map[uint64][]byte{n.Data.Args[1]: head, a.Steps: list, a.Memory: memory} {
		if len(p) == 0 {
			continue
		}
		if got, e := t.target.Write(addr, p); e != 0 || got < len(p) {
			return sys.EFAULT
		}
	}
	return 0
}
