package e2e

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// perf makes a perf_event_open() call with an attribute of size bytes, which is
// also what its field size says, and args pid, cpu, group_fd, flags.
func (s *script) perf(label string, size int, fields f, pid, cpu, group int, flags uint64) int {
	attr := make([]byte, 8192)
	s.put(&abi.PerfEventOpen.Layout, attr, f{"size": size})
	s.put(&abi.PerfEventOpen.Layout, attr, fields)
	before := bytes.Clone(attr)
	fd, e := sys.PerfEventOpen(attr, pid, cpu, group, flags)
	runtime.KeepAlive(s.keep)
	s.bufs = nil
	if e != 0 {
		s.note("%s: %s", label, errnoName(e))
		fd = -1
	} else {
		fl, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		n, err := syscall.Read(fd, make([]byte, 256))
		s.note("%s: %d, fd flags %d, read %d %v", label, fd, fl, n, err)
	}
	for i := range attr {
		if attr[i] != before[i] {
			s.note("    byte %d = %#x", i, attr[i])
		}
	}
	return fd
}

// uprobeName asks what the kernel calls the file of a uprobe: by the link to its event,
// and by the event.
func (s *script) uprobeName(label string, link, event int) {
	s.info(label, link, abi.Link, nil)
	for _, room := range []int{0, 1, 2, 9, 10, 11, 64, 255, 4096, 5000} {
		s.info(fmt.Sprint(label, ", room ", room), link, abi.Link, f{"perf_event.uprobe.file_name": s.out(max(room, 1)).text(), "perf_event.uprobe.name_len": room})
		s.do(fmt.Sprint(label, ", event, room ", room), abi.TaskFDQuery, f{"pid": os.Getpid(), "fd": event, "buf": s.out(max(room, 1)).text(), "buf_len": room})
	}
	s.info(label+", no buffer", link, abi.Link, f{"perf_event.uprobe.name_len": 64})
	s.info(label+", a bad one", link, abi.Link, f{"perf_event.uprobe.file_name": 4096, "perf_event.uprobe.name_len": 64})
	s.do(label+", event, no buffer", abi.TaskFDQuery, f{"pid": os.Getpid(), "fd": event, "buf_len": 64})
	s.do(label+", event, a bad one", abi.TaskFDQuery, f{"pid": os.Getpid(), "fd": event, "buf": 4096, "buf_len": 64})
	for _, size := range []int{16, 24, 32, 36, 40, 56, 64} {
		b := s.struc(&abi.LinkInfo, size, nil)
		s.do(fmt.Sprint(label, ", info of ", size), abi.ObjGetInfoByFD, f{"bpf_fd": link, "info_len": size, "info": b})
	}
}

func perfEventOpen(s *script) {
	const all, anyCPU, none, software, tracepoint, breakpoint = -1, -1, -1, 1, 2, 5
	const excludeKernel = 1 << 5
	clock := f{"type": software, "config": 0}
	for _, size := range []int{0, 1, 8, 63, 64, 65, 72, 80, 96, 104, 112, 120, 128, 135, 136, 137, 144, 1000, 4096, 4097, 1 << 30} {
		s.perf(fmt.Sprint("size ", size), size, clock, 0, anyCPU, none, 0)
	}
	for _, at := range []int{64, 100, 128, 136, 144, 199} {
		attr := make([]byte, 4096)
		s.put(&abi.PerfEventOpen.Layout, attr, f{"type": software, "size": 200})
		attr[at] = 0xff
		fd, e := sys.PerfEventOpen(attr, 0, anyCPU, none, 0)
		s.note("byte %d set: %d %v, size then %d", at, fd, e, abi.Uint(attr, 4, 4))
	}
	end := atEnd(make([]byte, 64))
	s.put(&abi.PerfEventOpen.Layout, end, f{"type": software, "size": 64})
	fd, e := sys.PerfEventOpen(end, 0, anyCPU, none, 0)
	s.note("at the end of memory: %d %v", fd, e)
	s.put(&abi.PerfEventOpen.Layout, end, f{"size": 72})
	fd, e = sys.PerfEventOpen(end, 0, anyCPU, none, 0)
	s.note("beyond the end of memory: %d %v", fd, e)

	for _, flags := range []uint64{0, 16, 1 << 40} {
		fd, e := sys.PerfEventOpen(nil, 0, anyCPU, none, flags)
		s.note("no attribute, flags %#x: %d %v", flags, fd, e)
	}

	own := os.Getpid()
	s.perf("own process", 112, clock, own, anyCPU, none, 0)
	s.perf("nobody", 112, clock, 4194303, anyCPU, none, 0)
	s.perf("negative pid", 112, clock, -5, anyCPU, none, 0)
	s.perf("a CPU", 112, f{"type": software, "config": 10, "sample_type": 1024}, all, 0, none, 8)
	s.perf("no such CPU", 112, clock, all, 1<<20, none, 0)
	s.perf("no process and no CPU", 112, clock, all, anyCPU, none, 0)
	leader := s.perf("leader", 112, clock, 0, anyCPU, none, 8)
	s.perf("in its group", 112, clock, 0, anyCPU, leader, 8)
	s.perf("in a map's group", 112, clock, 0, anyCPU, s.hashMap("m"), 0)
	s.perf("in nobody's group", 112, clock, 0, anyCPU, 77, 0)
	for _, flags := range []uint64{1, 2, 4, 8, 16, 1 << 40, 1<<64 - 1} {
		s.perf(fmt.Sprintf("flags %#x", flags), 112, clock, 0, anyCPU, none, flags)
	}
	cg := s.cgroup()
	s.perf("a cgroup", 112, clock, cg, 0, none, 4)
	s.perf("a cgroup that is stdout", 112, clock, 1, 0, none, 4)
	s.perf("a cgroup that is closed", 112, clock, 77, 0, none, 4)
	for typ := range 12 {
		s.perf(fmt.Sprint("type ", typ), 112, f{"type": typ, "config": 1, "bits": excludeKernel}, 0, anyCPU, none, 0)
	}
	s.perf("type that there isn't", 112, f{"type": 1 << 20}, 0, anyCPU, none, 0)
	s.perf("breakpoint", 112, f{"type": breakpoint, "bp_type": 1, "config1": uint64(0x1000), "config2": 4, "bits": excludeKernel}, 0, anyCPU, none, 0)
	s.perf("tracepoint that there isn't", 112, f{"type": tracepoint, "config": uint64(1 << 30)}, all, 0, none, 0)
	s.perf("a reserved field", 112, f{"type": software, "reserved_2": 1}, 0, anyCPU, none, 0)

	uprobe, ok := sys.EventType("uprobe")
	s.note("uprobes: %v", ok)
	for _, path := range []any{"/bin/true", "/no/such/file", "/bin", "", "/proc/self/exe", strings.Repeat("x", 5000), 4096, 0} {
		s.perf(fmt.Sprint("uprobe ", path), 112, f{"type": int(uprobe), "uprobe_path": path, "config2": 0x1240}, 0, anyCPU, none, 8)
		s.perf(fmt.Sprint("uretprobe ", path), 112, f{"type": int(uprobe), "config": 1, "uprobe_path": path, "config2": 0x1240}, all, 0, none, 8)
	}
	up := s.perf("uprobe for a link", 112, f{"type": int(uprobe), "uprobe_path": "/bin/true", "config2": 0x1240}, all, 0, none, 8)
	p := s.load("p", "kprobe", ret0, nil)
	link := s.do("link", abi.LinkCreate, f{"prog_fd": p, "target_fd": up, "attach_type": attachType("perf_event"), "perf_event.bpf_cookie": 7})
	s.uprobeName("link", link, up)
	for _, path := range []string{"../../../../../../../bin/true", "/bin//./true", "/" + strings.Repeat("./", 117) + "bin/true"} {
		ret := s.perf("another", 112, f{"type": int(uprobe), "config": 1, "uprobe_path": path, "config2": 0x1240}, all, 0, none, 8)
		s.uprobeName(path, s.do("link", abi.LinkCreate, f{"prog_fd": p, "target_fd": ret, "attach_type": attachType("perf_event")}), ret)
	}
	if kprobe, ok := sys.EventType("kprobe"); ok {
		for _, sym := range []any{"vfs_read", "no_such_symbol", "", 4096, 0} {
			s.perf(fmt.Sprint("kprobe ", sym), 112, f{"type": int(kprobe), "kprobe_func": sym}, all, 0, none, 8)
		}
	}
}
