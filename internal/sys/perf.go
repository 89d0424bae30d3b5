package sys

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The numbers of the intercepted system calls.
const (
	NrBPF           = unix.SYS_BPF
	NrPerfEventOpen = unix.SYS_PERF_EVENT_OPEN
	NrIoctl         = unix.SYS_IOCTL
)

// PerfEventOpen makes the perf_event_open() system call (perf_event_open(2)) with
// the attribute in attr, whose field size says how much of it counts. On E2BIG the
// kernel writes there what it would take.
func PerfEventOpen(attr []byte, pid, cpu, group int, flags uint64) (int, Errno) {
	r, _, e := unix.Syscall6(unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(unsafe.SliceData(attr))), uintptr(pid), uintptr(cpu), uintptr(group), uintptr(flags), 0)
	runtime.KeepAlive(attr)
	return int(r), e
}

// PerfSetBPF attaches the program at prog to the perf event at fd
// (PERF_EVENT_IOC_SET_BPF).
func PerfSetBPF(fd, prog int) Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_BPF, uintptr(prog))
	return e
}

// PerfQueryBPF asks for the programs of the tracepoint of the perf event at fd
// (PERF_EVENT_IOC_QUERY_BPF). query is the address of a struct perf_event_query_bpf.
func PerfQueryBPF(fd int, query uint64) Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_QUERY_BPF, uintptr(query))
	return e
}

// EventType is the number that the running kernel has given to the events of a
// PMU; false: there is no such PMU.
func EventType(pmu string) (uint32, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/sys/bus/event_source/devices/%s/type", pmu))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return uint32(n), err == nil
}
