package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What a policy shares of the host's objects a workload finds in its bpffs and by id, and
// can do with it what the policy says.

// sharing is what the host has to share.
type sharing struct {
	dir           string // a bpffs
	read, write   int    // maps, pinned there as "read" and "write"
	hidden        uint32 // id of a map that isn't shared
	program, byID uint32 // ids of a program and a map that are
	link, linkID  uint32 // ids of links that are: pinned as "link", and by id; their program isn't
}

func newSharing(t *testing.T) (s sharing) {
	t.Helper()
	s.dir = t.TempDir()
	if err := unix.Mount("bpf", s.dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.dir, 0); err != nil {
			t.Error(err)
		}
	})
	must := func(fd int, e sys.Errno) int {
		t.Helper()
		if e != 0 {
			t.Fatal(e)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	id := func(fd int) uint32 {
		b, e := info(fd)
		if e != 0 {
			t.Fatal(e)
		}
		return binary.NativeEndian.Uint32(b[4:])
	}
	array := func() int {
		const mmapable = 1 << 10
		return must(bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1).u32(16, mmapable), 20))
	}
	pin := func(name string, fd int) int {
		path := append([]byte(filepath.Join(s.dir, name)), 0)
		if _, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(fd)), 16, path); e != 0 {
			t.Fatal(e)
		}
		return fd
	}
	s.read, s.write = pin("read", array()), pin("write", array())
	s.hidden, s.byID = id(array()), id(array())
	const ofMaps = 12
	pin("outer", must(bpf(cmdMapCreate, new(attr).u32(0, ofMaps).u32(4, 4).u32(8, 4).u32(12, 1).u32(20, uint32(s.read)), 48)))
	s.program = id(pin("program", must(load(progTypeSocket, "shared", returns(1), 0, nil))))
	traces := must(load(uint32(progType("raw_tracepoint")), "traces", returns(0), 0, nil))
	link := func() int {
		point := []byte("sys_enter\x00")
		return must(bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(point)).u32(8, uint32(traces)), 16, point))
	}
	s.link, s.linkID = id(pin("link", link())), id(link())
	return s
}

// policy is one that shares all that.
func (s *sharing) policy(t *testing.T) string {
	return policyFile(t, fmt.Sprintf(`apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: sharing}
spec:
  share:
  - %[1]s/read
  - {path: %[1]s/write, access: read-write}
  - %[1]s/program
  - {path: %[1]s/outer, access: read-write}
  - {kind: map, id: %[2]d}
  - %[1]s/link
  - {kind: link, id: %[3]d}
  rules:
  - name: look
    commands: [obj_get, obj_get_info_by_fd, map_get_fd_by_id, prog_get_fd_by_id, link_get_fd_by_id]
    when: object.own || object.shared
    verdict: allow
  - name: lists
    commands: [map_get_next_id, prog_get_next_id]
    verdict: allow
  - name: arrays
    commands: [map_create]
    when: map.type == "array"
    verdict: allow
  - name: make
    commands: [prog_load, obj_pin, link_create]
    verdict: allow
  - name: end
    commands: [link_detach, link_update]
    when: object.own
    verdict: allow
`, s.dir, s.byID, s.linkID))
}

func TestShare(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		s := newSharing(t)
		c := brokeredBy(s.policy(t), probe("share"), "--worker="+kind, "--quiet")
		c.Env = append(c.Env, fmt.Sprintf("SHARE=%d %d %d %d %d %v", s.hidden, s.program, s.byID, s.link, s.linkID, kind == "token"))
		p := start(t, c)
		for i := range 3 {
			p.expect("ready")
			p.say("try")
			for {
				line := p.hear()
				if line == "done" {
					break
				}
				t.Errorf("%s: %s", kind, line)
			}
			// What it may write it has written, what not, not.
			for fd, want := range map[int]uint64{s.read: 0, s.write: uint64(i) + 1} {
				value, key := make([]byte, 8), make([]byte, 4)
				if _, e := bpf(cmdMapLookup, new(attr).u32(0, uint32(fd)).u64(8, sys.Addr(key)).u64(16, sys.Addr(value)), 32, key, value); e != 0 {
					t.Fatal(e)
				}
				if got := binary.NativeEndian.Uint64(value); got != want {
					t.Errorf("%s: the map has %d, not %d", kind, got, want)
				}
			}
			if err := unix.Kill(p.process([]string{"worker", "daemon", "worker"}[i]), unix.SIGKILL); err != nil {
				t.Error(err)
			}
			p.say("again")
		}
		p.expect("ready")
		p.say("enough")
		p.end(false)
	}
}

// TestShareNothing: what isn't there is said before the command begins.
func TestShareNothing(t *testing.T) {
	needRoot(t)
	s := newSharing(t)
	file := s.policy(t)
	if err := os.Remove(filepath.Join(s.dir, "program")); err != nil {
		t.Fatal(err)
	}
	c := brokeredBy(file, installed(t, "echo", "it runs"))
	out, err := c.CombinedOutput()
	if err == nil || strings.Contains(string(out), "it runs") ||
		!strings.Contains(string(out), fmt.Sprintf(`policy "sharing" shares %s/program: open what is pinned at`, s.dir)) || !strings.Contains(string(out), "pin it first, or take it out of the policy") {
		t.Errorf("%v: %s", err, out)
	}
}

func init() {
	probes["share"] = func() {
		var hidden, program, byID, link, linkID uint32
		var token bool
		if _, err := fmt.Sscan(os.Getenv("SHARE"), &hidden, &program, &byID, &link, &linkID, &token); err != nil {
			fail("%v", err)
		}
		s := &script{ids: map[string]string{}}
		elements := s.kernelType("bpf_iter_bpf_map_elem", (*btf.Func)(nil))
		iterates := func(fd int) (int, sys.Errno) { // a program of an iterator's writes, too
			p := s.must(s.load("iter", "tracing", ret0, f{"expected_attach_type": attachType("trace_iter"), "attach_btf_id": elements}), "iterator")
			defer unix.Close(p)
			over := binary.NativeEndian.AppendUint32(nil, uint32(fd))
			return bpf(cmdLinkCreate, new(attr).u32(0, uint32(p)).u32(8, uint32(attachType("trace_iter"))).u64(16, sys.Addr(over)).u32(24, uint32(len(over))), 32, over)
		}
		const rdonly = 8
		get := func(name string, flags uint32) (int, sys.Errno) {
			path := append([]byte("/sys/fs/bpf/"+name), 0)
			return bpf(cmdObjGet, new(attr).u64(0, sys.Addr(path)).u32(12, flags), 16, path)
		}
		tried := func(what string, fd int, got, want sys.Errno) int {
			if got != want {
				fmt.Printf("%s: %v, wanted %v\n", what, got, want)
			}
			if got != 0 {
				return -1
			}
			return fd
		}
		update := func(fd int, n uint64) sys.Errno {
			key, value := make([]byte, 4), binary.NativeEndian.AppendUint64(nil, n)
			_, e := bpf(cmdMapUpdate, new(attr).u32(0, uint32(fd)).u64(8, sys.Addr(key)).u64(16, sys.Addr(value)), 32, key, value)
			return e
		}
		lookup := func(fd int) sys.Errno {
			key, value := make([]byte, 4), make([]byte, 8)
			_, e := bpf(cmdMapLookup, new(attr).u32(0, uint32(fd)).u64(8, sys.Addr(key)).u64(16, sys.Addr(value)), 32, key, value)
			return e
		}
		writes := func(fd int) (int, sys.Errno) { // a program that could
			return load(progTypeSocket, "w", prog(insn(0x18, 1, 1, 0, int32(fd)), insn(0, 0, 0, 0, 0), movR0(0), exit), 0, nil)
		}
		for n := uint64(1); ask("ready") == "try"; n++ {
			fd, e := get("read", 0)
			tried("read, to write", fd, e, sys.EACCES)
			fd, e = get("read", rdonly)
			if fd = tried("read", fd, e, 0); fd >= 0 {
				tried("look up", 0, lookup(fd), 0)
				tried("update what is to be read", 0, update(fd, 77), sys.EPERM)
				_, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err == nil {
					fmt.Println("it can be mapped to write")
				}
				p, e := writes(fd)
				tried("a program", p, e, sys.EACCES)
				_, e = bpf(22, new(attr).u32(0, uint32(fd)), 4) // BPF_MAP_FREEZE
				tried("freeze", 0, e, sys.EPERM)
				// Pinned elsewhere it is the same map.
				path := fmt.Appendf(nil, "/sys/fs/bpf/other%d\x00", n)
				_, e = bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(fd)), 16, path)
				tried("pin", 0, e, 0)
				f, e := get(fmt.Sprint("other", n), 0)
				tried("what was pinned, to write", f, e, sys.EACCES)
				b, e := info(fd)
				if e != 0 {
					fail("info: %v", e)
				}
				id := binary.NativeEndian.Uint32(b[4:])
				f, e = bpf(cmdMapByID, new(attr).u32(0, id), 12)
				tried("by its id, to write", f, e, sys.EACCES)
				f, e = bpf(cmdMapByID, new(attr).u32(0, id).u32(8, rdonly), 12)
				tried("by its id", f, e, 0)
			}
			// By way of a map of maps, which may be written, nor.
			fd, e = get("read", rdonly)
			read := tried("read", fd, e, 0)
			fd, e = get("outer", 0)
			if outer := tried("outer", fd, e, 0); outer >= 0 {
				key, value := make([]byte, 4), binary.NativeEndian.AppendUint32(nil, uint32(read))
				_, e := bpf(cmdMapUpdate, new(attr).u32(0, uint32(outer)).u64(8, sys.Addr(key)).u64(16, sys.Addr(value)), 32, key, value)
				tried("put it into a map of maps, which the kernel allows", 0, e, 0)
				p, e := writes(outer)
				tried("a program with the map of maps", p, e, sys.EACCES)
				fds := binary.NativeEndian.AppendUint32(nil, uint32(read))
				p, e = bpf(cmdProgLoad, new(attr).u32(0, progTypeSocket).u32(4, uint32(len(ret0)/8)).u64(8, sys.Addr(ret0)).u64(16, sys.Addr(gpl)).u64(120, sys.Addr(fds)).u32(148, 1), 152, ret0, fds)
				tried("a program by fd_array", p, e, sys.EACCES)
			}
			fd, e = get("write", 0)
			if fd = tried("write", fd, e, 0); fd >= 0 {
				tried("update", 0, update(fd, n), 0)
				p, e := writes(fd)
				tried("a program that may", p, e, 0)
			}
			// An iterator's program may write to the elements that it is shown. (The worker with
			// capabilities has none here by which it could be in the caller's cgroup namespace.)
			if fd, e = get("read", rdonly); e == 0 {
				l, e := iterates(fd)
				tried("an iterator over what is to be read", l, e, sys.EACCES)
			}
			if fd, e = get("write", 0); e == 0 {
				want := sys.EPERM
				if token {
					want = 0
				}
				l, e := iterates(fd)
				tried("an iterator", l, e, want)
			}
			// Links, of a program that isn't shared and isn't shown.
			for how, open := range map[string]func() (int, sys.Errno){
				"a link":              func() (int, sys.Errno) { return get("link", 0) },
				"a pinned link by id": func() (int, sys.Errno) { return bpf(uint32(abi.LinkGetFDByID), new(attr).u32(0, link), 12) },
				"a link by its id":    func() (int, sys.Errno) { return bpf(uint32(abi.LinkGetFDByID), new(attr).u32(0, linkID), 12) },
			} {
				fd, e := open()
				if fd = tried(how, fd, e, 0); fd < 0 {
					continue
				}
				b, e := info(fd)
				tried(how+"'s info", 0, e, 0)
				if id := binary.NativeEndian.Uint32(b[4:]); id != link && id != linkID || binary.NativeEndian.Uint32(b[8:]) != 0 {
					fmt.Printf("%s: info % x\n", how, b[:12])
				}
				_, e = bpf(uint32(abi.LinkDetach), new(attr).u32(0, uint32(fd)), 4)
				tried("detach "+how, 0, e, sys.EPERM)
				unix.Close(fd)
			}
			fd, e = get("program", 0)
			tried("program", fd, e, 0)
			fd, e = bpf(cmdProgByID, new(attr).u32(0, program), 12)
			tried("the program by its id", fd, e, 0)
			fd, e = bpf(cmdMapByID, new(attr).u32(0, byID), 12)
			tried("a map by its id, to write", fd, e, sys.EACCES)
			fd, e = bpf(cmdMapByID, new(attr).u32(0, byID).u32(8, rdonly), 12)
			tried("a map by its id", fd, e, 0)
			fd, e = bpf(cmdMapByID, new(attr).u32(0, hidden), 12)
			tried("a map that isn't shared", fd, e, sys.EPERM)
			// The lists have what is shared, and not the other.
			seen := map[uint32]bool{}
			for a := new(attr); ; {
				if _, e := bpf(cmdMapNextID, a, 12); e != 0 {
					break
				}
				next := binary.NativeEndian.Uint32(a[4:])
				seen[next] = true
				a.u32(0, next)
			}
			if !seen[byID] || seen[hidden] {
				fmt.Println("the list of maps:", seen)
			}
			ask("done")
		}
	}
}
