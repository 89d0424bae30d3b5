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

// perfEventOpen makes a perf_event_open() call.
func perfEventOpen(q *request.Request, r *Result) (int, sys.Errno) {
	arg := func(name string) int { return int(int32(abi.PerfEventOpen.Field(name).Uint(r.Attr))) }
	flags := abi.PerfEventOpen.Field("flags").Uint(r.Attr)
	r.CloseOnExec = flags&abi.PerfFlagFDCloexec != 0
	size := abi.PerfEventOpen.Field("size")
	size.Put(r.Attr, uint64(q.Size))
	fd, e := sys.PerfEventOpen(r.Attr[:abi.PerfEventAttrSize], arg("pid"), arg("cpu"), arg("group_fd"), flags|abi.PerfFlagFDCloexec)
	if uint32(size.Uint(r.Attr)) == q.Size {
		size.Put(r.Attr, size.Uint(q.Attr)) // the kernel wrote none
	}
	return fd, e
}
