package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// trapsOthers says whether an event is to send SIGTRAP to another than the caller: the
// kernel would ask our rights over that process.
func trapsOthers(q *request.Request) bool {
	if q.Syscall != abi.SyscallPerfEventOpen || abi.PerfEventOpen.Field("bits").Uint(q.Attr)&abi.PerfBitSigtrap == 0 {
		return false
	}
	pid := abi.PerfEventOpen.Field("pid")
	return !pid.Live(q.Attr) || pid.Uint(q.Attr) != 0
}

// perfEventOpen makes a perf_event_open() call. In a scope, an event of all tasks becomes
// one of those in the workload's cgroup: the kernel itself sees to it that it counts and
// records no other's. Those that tell of no task stay as they are.
func (p *Performer) perfEventOpen(q *request.Request, r *Result) (int, sys.Errno) {
	arg := func(name string) int { return int(int32(abi.PerfEventOpen.Field(name).Uint(r.Attr))) }
	flags := abi.PerfEventOpen.Field("flags").Uint(r.Attr)
	r.CloseOnExec = flags&abi.PerfFlagFDCloexec != 0
	pid := arg("pid")
	if p.Scoped {
		switch {
		case flags&abi.PerfFlagPIDCgroup != 0 || p.Cgroup < 0:
			return 0, sys.EPERM
		case pid == -1 && tells(q):
			pid, flags = p.Cgroup, flags|abi.PerfFlagPIDCgroup
		}
	}
	size := abi.PerfEventOpen.Field("size")
	size.Put(r.Attr, uint64(q.Size))
	fd, e := sys.PerfEventOpen(r.Attr[:abi.PerfEventAttrSize], pid, arg("cpu"), arg("group_fd"), flags|abi.PerfFlagFDCloexec)
	if uint32(size.Uint(r.Attr)) == q.Size {
		size.Put(r.Attr, size.Uint(q.Attr)) // the kernel wrote none
	}
	return fd, e
}

// tells says whether an event tells of the task at which it happens: all but clocks, and
// events that only programs write to (PERF_COUNT_SW_BPF_OUTPUT), which call programs or
// record when they happen, and nothing else (include/uapi/linux/perf_event.h).
func tells(q *request.Request) bool {
	const software, cpuClock, taskClock, output = 1, 0, 1, 10
	// PERF_SAMPLE_TIME, READ, ID, CPU, PERIOD, STREAM_ID, RAW, IDENTIFIER.
	const harmless = 1<<2 | 1<<4 | 1<<6 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<16
	// mmap, comm, task, mmap_data, mmap2, comm_exec, context_switch, namespaces, ksymbol,
	// bpf_event, cgroup, text_poke: records beside samples, of what tasks do.
	const records = 1<<8 | 1<<9 | 1<<13 | 1<<17 | 1<<23 | 1<<24 | 1<<26 | 1<<28 | 1<<29 | 1<<30 | 1<<32 | 1<<33
	config := q.Field("config")
	return q.Field("type") != software || config != cpuClock && config != taskClock && config != output ||
		q.Field("sample_type")&^harmless != 0 || q.Field("bits")&records != 0
}

// perfEvent is the fd of an ioctl()'s perf event. Another file than that doesn't take
// the request; and behind a number at which the target has none may be one of ours.
func perfEvent(q *request.Request) (int, sys.Errno) {
	fd := int(int32(q.Field("fd")))
	if f := q.File(fd); f != nil {
		if f.Err != 0 {
			return fd, f.Err
		}
		if f.Kind != abi.PerfEvent {
			return fd, sys.ENOTTY
		}
	}
	return fd, 0
}

// perfSetBPF makes the ioctl() that attaches a program to a perf event.
func perfSetBPF(q *request.Request) (int, sys.Errno) {
	fd, e := perfEvent(q)
	if e != 0 {
		return 0, e
	}
	return 0, sys.PerfSetBPF(fd, int(int32(q.Field("prog_fd"))))
}

// perfQueryBPF makes the ioctl() that asks for programs: in one piece, what the
// request has in two.
func (p *Performer) perfQueryBPF(q *request.Request, r *Result) (int, sys.Errno) {
	fd, e := perfEvent(q)
	if e != 0 {
		return 0, e
	}
	if q.Size == 0 {
		return 0, sys.PerfQueryBPF(fd, sys.FaultAddr)
	}
	var ids []byte
	if len(r.Out) > 0 {
		ids = r.Out[0]
	}
	query := p.mem.Alloc(abi.PerfQuerySize + len(ids))
	if query == nil {
		return 0, sys.ENOMEM
	}
	copy(query, r.Attr[:abi.PerfQuerySize])
	copy(query[abi.PerfQuerySize:], ids)
	if e = sys.PerfQueryBPF(fd, sys.Addr(query)); e == 0 || e == sys.ENOSPC {
		e = p.hideTraced(fd, query)
	}
	copy(r.Attr, query[:abi.PerfQuerySize])
	copy(ids, query[abi.PerfQuerySize:])
	return 0, e
}

// programOf asks the daemon which program the perf event of a PERF_EVENT_IOC_SET_BPF
// has: its id, 0 for none, unnamed for one of which it doesn't say.
func (p *Performer) programOf(q *request.Request, at Place) uint64 {
	if p.host == nil {
		return unknown
	}
	row := abi.RowOf(abi.TaskFDQuery)
	query := request.Request{
		Call: request.Call{Command: abi.TaskFDQuery, Size: row.LastEnd}, Row: row, Size: row.LastEnd,
		Attr: make([]byte, abi.AttrSize),
	}
	pid, e := at.PIDIn(at.TID())
	if e != 0 {
		return unknown
	}
	row.Field("pid").Put(query.Attr, uint64(pid))
	row.Field("fd").Put(query.Attr, q.Field("fd"))
	r, ok := p.ask(&query, at)
	switch {
	case !ok:
		return unknown
	case r.Errno == sys.ENOENT:
		return 0
	case r.Errno == sys.EOPNOTSUPP: // it is of type BPF_PROG_TYPE_PERF_EVENT
		return unnamed
	case r.Errno != 0:
		return unknown
	}
	return row.Field("prog_id").Uint(r.Attr)
}

// unnamed is a program whose id isn't known.
const unnamed = 1 << 32
