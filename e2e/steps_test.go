package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// TestKilledAtEachStep kills the worker at each step of each kind of call, once: the
// call must do what it does natively, exactly once, and leave nothing. (TestChaos
// kills at random.)
func TestKilledAtEachStep(t *testing.T) {
	needRoot(t)
	binary := attackBuild(t, false)
	for _, kind := range kinds(t) {
		c := brokered(probe("steps"), "--net=private", "--worker="+kind)
		c.Path, c.Args[0] = binary, binary
		s := start(t, c)
		s.expect("ok")
		s.end(false) // run tells of each worker
		if s.err != nil {
			t.Errorf("%s: %v\n%s", kind, s.err, s.stderr.String())
		}
	}
}

// cmdKill is broker's killCommand; steps are as many as it has.
const (
	cmdKill = 0x6b696c6c
	steps   = 8
)

func init() {
	probes["steps"] = okay(func() error {
		runtime.LockOSThread()
		// doom returns the worker's process id.
		doom := func(step int) int {
			pid, _, e := unix.Syscall(unix.SYS_BPF, cmdKill, uintptr(step), 0)
			if e != 0 {
				panic(fmt.Sprintf("the broker isn't of the build that can be killed: %v", e))
			}
			return int(pid)
		}
		cgroup := "/sys/fs/cgroup/steps"
		if err := os.Mkdir(cgroup, 0o755); err != nil {
			return err
		}
		defer os.Remove(cgroup)
		dir, err := unix.Open(cgroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		const (
			sockCreate  = 2  // BPF_CGROUP_INET_SOCK_CREATE
			cgroupSock  = 9  // BPF_PROG_TYPE_CGROUP_SOCK
			xdpType     = 6  // BPF_PROG_TYPE_XDP
			xdpAttach   = 37 // BPF_XDP
			multi       = 2  // BPF_F_ALLOW_MULTI
			replace     = 4  // BPF_F_REPLACE
			progAttach  = 8
			progDetach  = 9
			progQuery   = 16
			linkUpdate  = 29
			linkDetach  = 34
			perfEventOf = 1 // PERF_TYPE_SOFTWARE
		)
		must := func(what string, fd int, e sys.Errno) int {
			if e != 0 {
				panic(fmt.Sprintf("%s: %v", what, e))
			}
			return fd
		}
		loaded := func(typ uint32, n int32) int {
			fd, e := loadFor(typ, map[uint32]uint32{cgroupSock: sockCreate, xdpType: xdpAttach}[typ], "steps", returns(n))
			return must("prog_load", fd, e)
		}
		one, two, sock := loaded(xdpType, 1), loaded(xdpType, 2), loaded(cgroupSock, 1)
		idOf := func(fd int) uint32 {
			b, e := info(fd)
			must("info", 0, e)
			return le32(b[4:])
		}
		linkProg := func(fd int) uint32 {
			b, e := info(fd)
			must("info of link", 0, e)
			return le32(b[8:])
		}
		attached := func() (n int) {
			ids := make([]byte, 64)
			a := new(attr).u32(0, uint32(dir)).u32(4, sockCreate).u64(16, sys.Addr(ids)).u32(24, 16)
			_, e := bpf(progQuery, a, 72, ids)
			must("prog_query", 0, e)
			return int(le32(a[24:]))
		}
		link := func() (int, sys.Errno) {
			return bpf(cmdLinkCreate, new(attr).u32(0, uint32(one)).u32(4, 1).u32(8, xdpAttach).u32(12, 2), 64) // on lo, generic
		}
		made, e := variety(3).create("steps")
		must("map_create", made, e)
		path := []byte("/sys/fs/bpf/steps\x00")
		pin := func() sys.Errno {
			_, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(made)), 16, path)
			return e
		}
		get := func() (int, sys.Errno) { return bpf(cmdObjGet, new(attr).u64(0, sys.Addr(path)), 16, path) }
		sockAttr := func(flags uint32) *attr {
			return new(attr).u32(0, uint32(dir)).u32(4, uint32(sock)).u32(8, sockCreate).u32(12, flags)
		}
		attach := func() sys.Errno { _, e := bpf(progAttach, sockAttr(multi), 16); return e }
		detach := func() sys.Errno { _, e := bpf(progDetach, sockAttr(0), 16); return e }
		want := func(what string, got, want any) error {
			if got != want {
				return fmt.Errorf("%s: got %v, wanted %v", what, got, want)
			}
			return nil
		}

		onEvent := loaded(7, 0) // BPF_PROG_TYPE_PERF_EVENT
		software := func() int {
			fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: perfEventOf, Size: 112}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if err != nil {
				panic(err)
			}
			return fd
		}
		setBPF := func(event, prog int) error {
			if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(event), unix.PERF_EVENT_IOC_SET_BPF, uintptr(prog)|unseen); e != 0 {
				return e
			}
			return nil
		}

		// Each prepares, is doomed, makes its call, looks, and undoes what it did.
		calls := map[string]func(doom func()) error{
			"map_create": func(doom func()) error {
				doom()
				fd, e := variety(5).create("steps")
				if e != 0 {
					return e
				}
				defer unix.Close(fd)
				return variety(5).check(fd)
			},
			"prog_load": func(doom func()) error {
				log := make([]byte, 4096)
				doom()
				fd, e := load(progTypeSocket, "steps", returns(7), 1, log)
				if e != 0 || log[0] == 0 {
					return fmt.Errorf("%v, log %q", e, log[:20])
				}
				return unix.Close(fd)
			},
			"prog_load that fails": func(doom func()) error {
				doom()
				_, e := load(progTypeSocket, "steps", prog(insn(0x61, 0, 9, 0, 0), exit), 0, nil)
				return want("errno", e, sys.EACCES)
			},
			"obj_pin": func(doom func()) error {
				doom()
				if err := want("obj_pin", pin(), sys.Errno(0)); err != nil {
					return err
				}
				fd, e := get()
				must("obj_get", fd, e)
				defer unix.Close(fd)
				if err := want("id", idOf(fd), idOf(made)); err != nil {
					return err
				}
				return unix.Unlink("/sys/fs/bpf/steps")
			},
			"obj_pin again": func(doom func()) error {
				must("obj_pin", 0, pin())
				doom()
				if err := want("obj_pin", pin(), sys.EEXIST); err != nil {
					return err
				}
				return unix.Unlink("/sys/fs/bpf/steps")
			},
			"obj_get": func(doom func()) error {
				must("obj_pin", 0, pin())
				doom()
				fd, e := get()
				if e != 0 {
					return e
				}
				defer unix.Close(fd)
				if err := want("id", idOf(fd), idOf(made)); err != nil {
					return err
				}
				return unix.Unlink("/sys/fs/bpf/steps")
			},
			"map_get_fd_by_id": func(doom func()) error {
				id := idOf(made)
				doom()
				fd, e := bpf(cmdMapByID, new(attr).u32(0, id), 12)
				if e != 0 {
					return e
				}
				defer unix.Close(fd)
				if fd == made {
					return fmt.Errorf("it gave the fd that was there")
				}
				return want("id", idOf(fd), id)
			},
			"link_create": func(doom func()) error {
				doom()
				fd, e := link()
				if e != 0 {
					return e
				}
				if err := want("its program", linkProg(fd), idOf(one)); err != nil {
					return err
				}
				if _, e := link(); e != sys.EBUSY {
					return fmt.Errorf("another one: %v", e)
				}
				return unix.Close(fd)
			},
			"link_create that fails": func(doom func()) error {
				first, e := link()
				must("link_create", first, e)
				defer unix.Close(first)
				doom()
				_, e = link()
				return want("errno", e, sys.EBUSY)
			},
			"link_update": func(doom func()) error {
				fd, e := link()
				must("link_create", fd, e)
				defer unix.Close(fd)
				doom()
				if _, e := bpf(linkUpdate, new(attr).u32(0, uint32(fd)).u32(4, uint32(two)).u32(8, replace).u32(12, uint32(one)), 16); e != 0 {
					return e
				}
				return want("its program", linkProg(fd), idOf(two))
			},
			"link_update of another": func(doom func()) error {
				fd, e := link()
				must("link_create", fd, e)
				defer unix.Close(fd)
				doom()
				if _, e := bpf(linkUpdate, new(attr).u32(0, uint32(fd)).u32(4, uint32(one)).u32(8, replace).u32(12, uint32(two)), 16); e != sys.EPERM {
					return fmt.Errorf("errno %v", e)
				}
				return want("its program", linkProg(fd), idOf(one))
			},
			"link_detach": func(doom func()) error {
				fd, e := link()
				must("link_create", fd, e)
				defer unix.Close(fd)
				doom()
				if _, e := bpf(linkDetach, new(attr).u32(0, uint32(fd)), 4); e != 0 {
					return e
				}
				next, e := link()
				must("link_create after it", next, e)
				return unix.Close(next)
			},
			"prog_attach": func(doom func()) error {
				doom()
				if err := want("prog_attach", attach(), sys.Errno(0)); err != nil {
					return err
				}
				if err := want("attached", attached(), 1); err != nil {
					return err
				}
				must("prog_detach", 0, detach())
				return nil
			},
			"prog_attach again": func(doom func()) error {
				must("prog_attach", 0, attach())
				doom()
				if err := want("prog_attach", attach(), sys.EINVAL); err != nil {
					return err
				}
				must("prog_detach", 0, detach())
				return want("attached", attached(), 0)
			},
			"prog_detach": func(doom func()) error {
				must("prog_attach", 0, attach())
				doom()
				if err := want("prog_detach", detach(), sys.Errno(0)); err != nil {
					return err
				}
				return want("attached", attached(), 0)
			},
			"prog_detach of nothing": func(doom func()) error {
				doom()
				return want("prog_detach", detach(), sys.ENOENT)
			},
			"prog_query": func(doom func()) error {
				must("prog_attach", 0, attach())
				doom()
				if err := want("attached", attached(), 1); err != nil {
					return err
				}
				must("prog_detach", 0, detach())
				return nil
			},
			"prog_attach, flow dissector": func(doom func()) error {
				p, e := load(22, "steps", returns(0), 0, nil) // BPF_PROG_TYPE_FLOW_DISSECTOR
				must("prog_load", p, e)
				defer unix.Close(p)
				const flowDissector = 17
				doom()
				if _, e := bpf(progAttach, new(attr).u32(4, uint32(p)).u32(8, flowDissector), 16); e != 0 {
					return e
				}
				_, e = bpf(progDetach, new(attr).u32(4, uint32(p)).u32(8, flowDissector), 16)
				return want("prog_detach", e, sys.Errno(0))
			},
			"prog_detach, flow dissector": func(doom func()) error {
				p, e := load(22, "steps", returns(0), 0, nil)
				must("prog_load", p, e)
				defer unix.Close(p)
				const flowDissector = 17
				_, e = bpf(progAttach, new(attr).u32(4, uint32(p)).u32(8, flowDissector), 16)
				must("prog_attach", 0, e)
				doom()
				if _, e := bpf(progDetach, new(attr).u32(4, uint32(p)).u32(8, flowDissector), 16); e != 0 {
					return e
				}
				_, e = bpf(progDetach, new(attr).u32(4, uint32(p)).u32(8, flowDissector), 16)
				return want("again", e, sys.ENOENT)
			},
			"prog_attach in place of another": func(doom func()) error {
				other := loaded(cgroupSock, 1)
				defer unix.Close(other)
				a := sockAttr(multi).u32(4, uint32(other))
				_, e := bpf(progAttach, a, 16)
				must("prog_attach", 0, e)
				doom()
				if _, e := bpf(progAttach, sockAttr(multi|replace).u32(16, uint32(other)), 20); e != 0 {
					return e
				}
				if err := want("attached", attached(), 1); err != nil {
					return err
				}
				must("prog_detach", 0, detach())
				return nil
			},
			"obj_pin below a file": func(doom func()) error {
				must("obj_pin", 0, pin())
				below := []byte("/sys/fs/bpf/steps/x\x00")
				doom()
				_, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(below)).u32(8, uint32(made)), 16, below)
				if err := want("obj_pin", e, unix.ENOTDIR); err != nil {
					return err
				}
				return unix.Unlink("/sys/fs/bpf/steps")
			},
			"enable_stats": func(doom func()) error {
				doom()
				fd, e := bpf(32, new(attr), 4)
				if e != 0 {
					return e
				}
				return unix.Close(fd)
			},
			"perf_event_open": func(doom func()) error {
				doom()
				return unix.Close(software())
			},
			"perf_event_set_bpf": func(doom func()) error {
				event := software()
				defer unix.Close(event)
				doom()
				return setBPF(event, onEvent)
			},
			"perf_event_set_bpf, where it is": func(doom func()) error {
				event := software()
				defer unix.Close(event)
				if err := setBPF(event, onEvent); err != nil {
					return err
				}
				doom()
				return want("set twice", setBPF(event, onEvent), unix.EEXIST)
			},
			"prog_test_run of a loader": func(doom func()) error {
				blob, err := newBlob(firstBlob())
				if err != nil {
					return err
				}
				defer unix.Close(blob)
				p, e := loadLoader(firstLoader(blob))
				must("prog_load", p, e)
				defer unix.Close(p)
				ctx := make([]byte, firstCtx)
				doom()
				if err := testRunOf(p, ctx); err != nil {
					return err
				}
				m, loaded := int(int32(le32(ctx))), int(int32(le32(ctx[8:])))
				if _, e := info(m); e != 0 || le32(ctx[4:]) != 0 {
					return fmt.Errorf("the map is fd %d, %v, and the element %d", m, e, int32(le32(ctx[4:])))
				}
				unix.Close(m)
				if _, e := info(loaded); e != 0 {
					return fmt.Errorf("the program is fd %d, %v", loaded, e)
				}
				return unix.Close(loaded)
			},
			"raw_tracepoint_open": func(doom func()) error {
				p, e := load(17, "steps", returns(0), 0, nil) // BPF_PROG_TYPE_RAW_TRACEPOINT
				must("prog_load", p, e)
				defer unix.Close(p)
				name := []byte("sys_enter\x00")
				doom()
				fd, e := bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(name)).u32(8, uint32(p)), 16, name)
				if e != 0 {
					return e
				}
				return unix.Close(fd)
			},
		}
		killed := 0
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			for step := range 2 * steps {
				before, worker, twice := filesOpen(), 0, ""
				err := calls[name](func() {
					worker = doom(step % steps)
					if step >= steps {
						unseen, twice = 1<<32, ", and the next one at step 0"
					}
				})
				unseen = 0
				now := doom(steps) // nobody
				if err != nil {
					return fmt.Errorf("%s, killed at step %d%s: %w", name, step%steps, twice, err)
				}
				if n := filesOpen(); n != before {
					return fmt.Errorf("%s, killed at step %d%s: %d open files, before it were %d", name, step%steps, twice, n, before)
				}
				if now != worker {
					killed++
				} else if s := step % steps; s == 0 { // which every call comes to
					return fmt.Errorf("%s: nobody was killed at step %d", name, s)
				}
			}
		}
		if killed < len(calls)*8 {
			return fmt.Errorf("only %d were killed", killed)
		}
		return nil
	})
}

func filesOpen() int {
	n, _ := filepath.Glob("/proc/thread-self/fd/*")
	return len(n)
}

// loadFor is load for an expected attach type.
func loadFor(progType, attachType uint32, name string, insns []byte) (int, sys.Errno) {
	a := new(attr).u32(0, progType).u32(4, uint32(len(insns)/8)).u64(8, sys.Addr(insns)).u64(16, sys.Addr(gpl)).name(48, name).u32(68, attachType)
	return bpf(cmdProgLoad, a, 144, insns)
}
