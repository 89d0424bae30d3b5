package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// NoSuchPID is a process id that no process has: above PID_MAX_LIMIT.
const NoSuchPID = 1<<31 - 1

// idsFromTarget makes of the process ids in the attribute, which are the
// target's, ours. For one that is nobody's the kernel has its own error.
func idsFromTarget(q *request.Request, r *Result, at Place) {
	for i := range q.Row.Fields {
		f := &q.Row.Fields[i]
		if f.Class != abi.PID || !f.Live(q.Attr) {
			continue
		}
		pid, e := uint32(f.Uint(q.Attr)), sys.Errno(0)
		switch {
		case pid == 0 && q.Syscall == abi.SyscallPerfEventOpen:
			pid = at.TID() // the caller
		case int32(pid) <= 0: // no process, or any
		default:
			pid, e = at.PIDFrom(pid)
		}
		if e != 0 {
			pid = NoSuchPID
		}
		f.Put(r.Attr, uint64(pid))
	}
	for i := range q.Buffers {
		if q.Buffers[i].Field.Buffer.Struct == &abi.IterLinkInfo && r.Out[i] != nil {
			iteratorPID(q, r.Out[i], at)
		}
	}
}

// iteratorPID puts the target's number of a task in the place of a pidfd: the
// kernel would take the number that it has in our pid namespace, and look it up
// in that of the iterator's creator (kernel/bpf/task_iter.c, bpf_iter_attach_task).
//
// With tid and pid zero it can only be a task iterator's: an order of zero isn't
// valid for a cgroup's, and a map's ends before.
func iteratorPID(q *request.Request, info []byte, at Place) {
	tid, pid, pidfd := abi.IterLinkInfo.Field("task.tid"), abi.IterLinkInfo.Field("task.pid"), abi.IterLinkInfo.Field("task.pid_fd")
	if len(info) < int(pidfd.Offset+pidfd.Size) || tid.Uint(info) != 0 || pid.Uint(info) != 0 {
		return
	}
	f := q.File(int(int32(pidfd.Uint(info))))
	if f == nil || f.Kind != abi.Pidfd {
		return
	}
	n, e := sys.PIDOf(f.N)
	if e == 0 {
		n, e = at.PIDIn(n)
	}
	if e != 0 {
		n = NoSuchPID
	}
	pid.Put(info, uint64(n))
	pidfd.Put(info, 0)
}

// idsInTarget makes of the ids that the kernel has written to an information
// structure, which are ours, the target's.
func idsInTarget(q *request.Request, r *Result, at Place) {
	if q.Info == nil || r.Errno != 0 {
		return
	}
	for i := range q.Buffers {
		b, out := &q.Buffers[i], r.Out[i]
		if b.Parent != request.NoParent || out == nil {
			continue
		}
		for j := range q.Info.Fields {
			f := &q.Info.Fields[j]
			if int(f.Offset+f.Size) > len(out) || !f.Live(q.Selector) {
				continue
			}
			id := uint32(f.Uint(out))
			var e sys.Errno
			switch {
			case f.Class == abi.UID:
				id, e = at.UIDIn(id)
			case f.Class == abi.PID && id != 0:
				id, e = at.PIDIn(id)
			default:
				continue
			}
			if e != 0 {
				id = 0 // it isn't in the target's namespace
			}
			f.Put(out, uint64(id))
		}
	}
}
