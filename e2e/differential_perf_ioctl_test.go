package e2e

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Programs on perf events: two requests of ioctl().

// tracepoint opens a perf event of the first tracepoint that takes one: the workload
// can't read the numbers that the kernel has given to tracepoints.
func (s *script) tracepoint() int {
	for n := uint64(30); n < 3000; n++ {
		a := &unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Size: 112, Config: n}
		if fd, err := unix.PerfEventOpen(a, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC); err == nil {
			return fd
		}
	}
	return s.must(-1, "tracepoint")
}

func (s *script) setBPF(label string, fd, prog int) {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_BPF, uintptr(prog))
	s.note("%s: %v", label, errnoName(e))
}

// queryBPF asks for programs, in memory of size bytes that ends behind them.
func (s *script) queryBPF(label string, fd int, size int, idsLen uint32) {
	b := s.out(size).data
	if size >= 4 {
		abi.Put(b, 0, 4, uint64(idsLen))
	}
	b = atEnd(b)
	s.queryAt(label, fd, sys.Addr(b))
	var ids []string
	for o := 8; o+4 <= size; o += 4 {
		if v := uint32(abi.Uint(b, uint32(o), 4)); v == 0 || v == 0xa5a5a5a5 {
			ids = append(ids, fmt.Sprintf("%x", v))
		} else {
			ids = append(ids, s.id(abi.Prog, v))
		}
	}
	s.note("    %s %v", hex.EncodeToString(b[:min(size, 8)]), ids)
}

func (s *script) queryAt(label string, fd int, addr uint64) {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_QUERY_BPF, uintptr(addr))
	s.note("%s: %v", label, errnoName(e))
}

func perfEventIoctl(s *script) {
	event, prog := s.tracepoint(), s.must(s.load("one", "tracepoint", ret0, nil), "program")
	other := s.must(s.load("two", "tracepoint", ret0, nil), "program")
	onEvent := s.must(s.load("onevent", "perf_event", ret0, nil), "program")
	filter, hash, clock := s.filterProg("filter"), s.hashMap("m"), s.perf("clock", 112, f{"type": 1}, 0, -1, -1, 8)
	files := map[string]int{
		"a map": hash, "a program": filter, "a cgroup": s.cgroup(), "a directory": s.openFile("/", syscall.O_DIRECTORY),
		"a file": s.openFile("/proc/self/exe", 0), "/dev/null": s.openFile("/dev/null", 0), "/dev/full": s.openFile("/dev/full", 0),
		"nothing": 777, "-1": -1, "a path": s.openFile("/", unix.O_PATH),
	}
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		panic(err)
	}
	files["a pipe"] = pipe[0]
	if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		files["a socket"] = fd
	}
	// By the number of an event one can have a file that is none for ioctl().
	path, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", event), unix.O_PATH|unix.O_CLOEXEC, 0)
	s.note("the event's path: %v", err)
	files["an event's path"] = path

	s.queryBPF("before", event, 16, 2)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != "a program" {
			s.setBPF("of "+name, event, files[name])
		}
		if name != "a path" { // docs/limits.md
			s.setBPF("on "+name, files[name], prog)
			s.queryBPF("of "+name, files[name], 16, 2)
		}
	}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, 1<<32|uintptr(event), 7<<32|unix.PERF_EVENT_IOC_SET_BPF, 1<<40|uintptr(filter))
	s.note("with high bits: %v", errnoName(e))
	s.setBPF("a filter on a tracepoint", event, filter)
	s.setBPF("a program for events on a tracepoint", event, onEvent)
	s.setBPF("a program for tracepoints on a clock", clock, prog)

	s.setBPF("set", event, prog)
	s.setBPF("again", event, prog)
	s.setBPF("another", event, other)
	s.queryBPF("one", event, 12, 1)
	second := s.tracepoint()
	s.setBPF("a second event", second, other)
	for _, n := range []uint32{0, 1, 2, 3, 64, 65, math.MaxUint32} {
		s.queryBPF(fmt.Sprint("ids: ", n), event, 8+64*4, n)
	}
	for _, size := range []int{0, 1, 4, 7, 8, 9, 12, 15, 16, 20} {
		s.queryBPF(fmt.Sprint("bytes: ", size), event, size, 2)
	}
	readOnly, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	readOnly[0] = 1
	unix.Mprotect(readOnly, unix.PROT_READ)
	s.queryAt("read only", event, sys.Addr(readOnly))
	for _, addr := range []uint64{0, 1, 4096, math.MaxUint64, math.MaxUint64 - 7} {
		s.queryAt(fmt.Sprintf("at %#x", addr), event, addr)
		s.queryAt(fmt.Sprintf("at %#x, of a clock", addr), clock, addr)
	}
	unix.Close(second)
	s.queryBPF("after the second", event, 20, 3)

	s.setBPF("set on a clock", clock, onEvent)
	s.setBPF("set on a clock again", clock, onEvent)
	s.queryBPF("of a clock", clock, 16, 2)
	s.do("task_fd_query", abi.TaskFDQuery, f{"pid": os.Getpid(), "fd": event})
	s.do("task_fd_query of a clock", abi.TaskFDQuery, f{"pid": os.Getpid(), "fd": clock})

	// Other requests of the same letter are the kernel's own.
	for _, request := range []uint{unix.PERF_EVENT_IOC_ENABLE, unix.PERF_EVENT_IOC_DISABLE, unix.PERF_EVENT_IOC_RESET, 0x2409, 0x240a} {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(clock), uintptr(request), 0)
		s.note("request %#x: %v", request, errnoName(e))
	}
}
