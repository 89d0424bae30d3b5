package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// perfEventOpen makes a perf_event_open() call.
func perfEventOpen(q *request.Request, r *Result) (int, sys.Errno) {
	arg := func(name string) int { return int(int32(abi.PerfEventOpen.Field(name).Uint(r.Attr))) }
	flags := abi.PerfEventOpen.Field("flags").Uint(r.Attr)
	// The kernel would ask our rights over the process that is to be sent SIGTRAP.
	pid := abi.PerfEventOpen.Field("pid")
	if abi.PerfEventOpen.Field("bits").Uint(q.Attr)&abi.PerfBitSigtrap != 0 && (!pid.Live(q.Attr) || pid.Uint(q.Attr) != 0) {
		return 0, sys.EACCES
	}
	r.CloseOnExec = flags&abi.PerfFlagFDCloexec != 0
	size := abi.PerfEventOpen.Field("size")
	size.Put(r.Attr, uint64(q.Size))
	fd, e := sys.PerfEventOpen(r.Attr[:abi.PerfEventAttrSize], arg("pid"), arg("cpu"), arg("group_fd"), flags|abi.PerfFlagFDCloexec)
	if uint32(size.Uint(r.Attr)) == q.Size {
		size.Put(r.Attr, size.Uint(q.Attr)) // the kernel wrote none
	}
	return fd, e
}
