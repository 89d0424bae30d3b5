package e2e

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/generate"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The probe that makes generated requests. It makes the world, then each request in
// turn, after its steps, and takes back what the request and its steps did. What it says
// of each is text that two processes share if the calls did the same.

// deed is what a request did.
type deed struct {
	OK      bool   // the call succeeded
	Foreign bool   // it named an object that isn't the process's
	Text    string // all that it did
}

// firstFD is the number of the first new fd.
const firstFD = 60

func init() { probes["generated"] = generated }

func generated() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	// Go's poller takes two fds when it is first needed: now. Then all below firstFD are
	// taken, so that new ones have the same numbers in each process.
	r, w, err := os.Pipe()
	if err != nil {
		fail("%v", err)
	}
	defer r.Close()
	defer w.Close()
	takeFDs(firstFD)
	p := &player{values: map[string]uint64{}, own: map[string]uint32{}}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "\n" {
			break
		}
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		p.values[name], _ = strconv.ParseUint(number, 10, 64)
	}
	requests, err := generate.Read(in)
	if err != nil {
		fail("%v", err)
	}
	p.arena()
	p.world()
	out := json.NewEncoder(os.Stdout)
	for _, r := range requests {
		out.Encode(p.play(r))
		debug.FreeOSMemory()
	}
}

// player makes requests.
type player struct {
	values  map[string]uint64 // of the kernel
	own     map[string]uint32 // kind and id of an object of ours → its fd
	foreign bool
	cgroup  string
	done    map[string]bool // steps
}

// arena maps the memory of requests.
func (p *player) arena() {
	const fixed = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE
	addr, _, e := unix.Syscall6(unix.SYS_MMAP, generate.Base, generate.Size, unix.PROT_NONE, fixed, ^uintptr(0), 0)
	if e != 0 || addr != generate.Base {
		fail("map the arena: %v", e)
	}
	for _, a := range generate.Areas {
		protect(a, true)
	}
}

func protect(a generate.Area, writable bool) {
	prot := uintptr(unix.PROT_READ)
	if writable {
		prot |= unix.PROT_WRITE
	}
	if _, _, e := unix.Syscall(unix.SYS_MPROTECT, uintptr(generate.Base+a.Start), uintptr(a.Size), prot); e != 0 {
		fail("mprotect: %v", e)
	}
}

// memory is an area as Go sees it.
func memory(a generate.Area) []byte {
	var base uintptr = generate.Base
	return unsafe.Slice((*byte)(unsafe.Add(*(*unsafe.Pointer)(unsafe.Pointer(&base)), a.Start)), a.Size)
}

// fill puts an image into the arena.
func fill(m generate.Image) {
	for _, a := range generate.Areas {
		if !a.Writable {
			protect(a, true)
		}
		copy(memory(a), m[a.Start:a.Start+a.Size])
		if !a.Writable {
			protect(a, false)
		}
	}
}

// snapshot copies the arena.
func snapshot() generate.Image {
	m := make(generate.Image, generate.Size)
	for _, a := range generate.Areas {
		copy(m[a.Start:], memory(a))
	}
	return m
}

// world makes what is there for all requests.
func (p *player) world() {
	os.Chdir(generate.BpffsPath)
	p.cgroup = fmt.Sprintf("/sys/fs/cgroup/generated-%d", os.Getpid())
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		fail("pidfd: %v", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fail("socket: %v", err)
	}
	open := func(path string, flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			fail("open %s: %v", path, err)
		}
		return fd
	}
	for name, fd := range map[string]int{"pidfd": pidfd, "socket": socket, "bpffs": open(generate.BpffsPath, unix.O_RDONLY), "netns": open("/proc/self/ns/net", unix.O_RDONLY),
		"root": open("/", unix.O_RDONLY), "file": open("/etc/passwd", unix.O_RDONLY), "path": open(generate.BpffsPath, unix.O_PATH), "null": open("/dev/null", unix.O_RDWR)} {
		moveTo(fd, generate.Files[name])
	}
	for _, o := range generate.World() {
		if e := p.make(&o); e != 0 {
			fail("make %s: %v", o.Name, e)
		}
	}
}

// moveTo moves an fd to a number.
func moveTo(fd, number int) {
	if err := unix.Dup3(fd, number, unix.O_CLOEXEC); err != nil {
		fail("dup3: %v", err)
	}
	unix.Close(fd)
}

func (p *player) make(o *generate.Object) sys.Errno {
	if o.Call == "" {
		path := p.cgroup
		if o.Name == "cgroup2" {
			path += "/below"
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			fail("%v", err)
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			fail("open %s: %v", path, err)
		}
		moveTo(fd, o.FD)
		return 0
	}
	r := generate.Build(o)
	fill(r.Image())
	p.refs(r)
	v, e := call(r)
	if e == 0 && o.FD != 0 {
		moveTo(v, o.FD)
		p.know(o.FD)
	}
	return e
}

// know notes the id of an object of ours.
func (p *player) know(fd int) {
	if id := idOf(fd); id != 0 {
		p.own[fmt.Sprint(kindOf(int32(fd)), id)] = uint32(fd)
	}
}

// kindOf says what is at a number.
func kindOf(fd int32) abi.Object {
	to, _ := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	return map[string]abi.Object{"anon_inode:bpf-map": abi.Map, "anon_inode:bpf-prog": abi.Prog, "anon_inode:bpf_link": abi.Link, "anon_inode:bpf-link": abi.Link,
		"anon_inode:btf": abi.BTF, "anon_inode:bpf-token": abi.Token, "anon_inode:[perf_event]": abi.PerfEvent}[to]
}

// ask asks for an object's info, in Go's memory.
func askInfo(fd int, info uint64, n uint32) sys.Errno {
	attr := make([]byte, sys.AttrRoom)
	abi.Put(attr, 0, 4, uint64(fd))
	abi.Put(attr, 4, 4, uint64(n))
	abi.Put(attr, 8, 8, info)
	_, e := sys.BPF(uint32(abi.ObjGetInfoByFD), attr, 16)
	return e
}

func idOf(fd int) uint32 {
	l := abi.InfoLayout(kindOf(int32(fd)))
	if l == nil || l.Field("id") == nil {
		return 0
	}
	b := make([]byte, l.Size)
	if e := askInfo(fd, sys.Addr(b), l.Size); e != 0 {
		return 0
	}
	runtime.KeepAlive(b)
	return uint32(l.Field("id").Uint(b))
}

// refs writes what only this process knows.
func (p *player) refs(r *generate.Request) {
	m := snapshot()
	for _, ref := range r.Refs {
		v := p.values[ref.Name]
		if fd, ok := strings.CutPrefix(ref.Name, "id "); ok {
			n, _ := strconv.Atoi(fd)
			v = uint64(idOf(n))
		} else if ref.Name == "pid" {
			v = uint64(os.Getpid())
		}
		v += uint64(int64(ref.Add))
		if ref.At&^15 == generate.AtArg {
			r.Args[ref.At&^generate.AtArg] = v
			continue
		}
		b := make([]byte, ref.Size)
		abi.Put(b, 0, ref.Size, v)
		m.Write(ref.At, b)
	}
	fill(m)
}

// call makes the call.
func call(r *generate.Request) (int, sys.Errno) {
	var v uintptr
	var e sys.Errno
	a := r.Args
	row := r.Row()
	switch row.Syscall {
	case abi.SyscallBPF:
		v, _, e = unix.Syscall(unix.SYS_BPF, uintptr(row.Command), uintptr(a[0]), uintptr(a[1]))
	case abi.SyscallPerfEventOpen:
		v, _, e = unix.Syscall6(unix.SYS_PERF_EVENT_OPEN, uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), 0)
	case abi.SyscallPerfSetBPF:
		v, _, e = unix.Syscall(unix.SYS_IOCTL, uintptr(a[0]), abi.PerfIOCSetBPF, uintptr(a[1]))
	case abi.SyscallPerfQueryBPF:
		v, _, e = unix.Syscall(unix.SYS_IOCTL, uintptr(a[0]), abi.PerfIOCQueryBPF, uintptr(a[1]))
	}
	return int(v), e
}

// play makes one request and says what it did.
func (p *player) play(r *generate.Request) (o deed) {
	p.done = map[string]bool{}
	p.foreign = false
	var says strings.Builder
	for _, name := range r.Steps {
		if e := p.step(name); e != 0 {
			fmt.Fprintf(&says, "step %s: %s\n", name, errnoName(e))
		}
	}
	fill(r.Image())
	p.refs(r)
	before := snapshot()
	v, e := call(r)
	after := snapshot()

	fd := -1
	switch {
	case e != 0:
		fmt.Fprintf(&says, "returns %s\n", errnoName(e))
	case r.Row().Returns.FD != 0:
		fd = v
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Fprintf(&says, "returns fd %d, flags %d %v\n", fd, flags, err)
	default:
		fmt.Fprintf(&says, "returns %d\n", v)
	}
	names := generate.Names{ID: p.name, PID: uint32(os.Getpid())}
	generate.Mask(before, after, r.Marks(before, after, kindOf), names)
	changes(&says, before, after)
	if fd >= 0 {
		p.object(&says, fd, r.Row(), names)
	}
	p.state(&says, r, before, names)
	o = deed{OK: e == 0, Foreign: p.foreign, Text: says.String()}
	if fd >= 0 {
		unix.Close(fd)
	}
	p.undo(r)
	return o
}

func (p *player) step(name string) sys.Errno {
	if p.done[name] {
		return 0
	}
	p.done[name] = true
	o := generate.StepOf(name)
	for _, need := range o.Needs {
		if e := p.step(need); e != 0 {
			return e
		}
	}
	return p.make(o)
}

// name is an id as all processes have it.
func (p *player) name(kind abi.Object, id uint32) uint32 {
	if fd, ok := p.own[fmt.Sprint(kind, id)]; ok {
		return 0x1d000000 | fd
	}
	if kind == abi.BTF && id == 1 {
		return id // vmlinux
	}
	p.foreign = true
	return generate.Foreign
}

// changes shows what differs.
func changes(says *strings.Builder, before, after generate.Image) {
	for i := 0; i < len(before); i++ {
		if before[i] == after[i] {
			continue
		}
		from, same := i, 0
		for ; i < len(before) && same < 8; i++ {
			if before[i] == after[i] {
				same++
			} else {
				same = 0
			}
		}
		fmt.Fprintf(says, "%s: %s\n", generate.Where(generate.Base+uint64(from)), hex.EncodeToString(after[from:i-same]))
	}
}

// object shows what is at a new fd.
func (p *player) object(says *strings.Builder, fd int, row *abi.Row, names generate.Names) {
	to, _ := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	fmt.Fprintf(says, "object %s\n", to)
	kind := kindOf(int32(fd))
	l := abi.InfoLayout(kind)
	if l == nil || kind == abi.Token {
		return
	}
	if row.Makes() {
		if id := idOf(fd); id != 0 {
			key := fmt.Sprint(kind, id)
			p.own[key] = uint32(fd)
			defer delete(p.own, key)
		}
	}
	m := make(generate.Image, generate.Size)
	fill(m)
	at := generate.Base + generate.Areas[0].Start
	if e := askInfo(fd, at, l.Size); e != 0 {
		fmt.Fprintf(says, "info: %s\n", errnoName(e))
	}
	after := snapshot()
	generate.Mask(m, after, generate.InfoMarks(kind, at, after), names)
	changes(says, m, after)
}

// state shows what is attached where a call attached or detached something.
func (p *player) state(says *strings.Builder, r *generate.Request, before generate.Image, names generate.Names) {
	row := r.Row()
	if !row.Effect || row.Syscall != abi.SyscallBPF {
		return
	}
	switch row.Command {
	case abi.LinkUpdate, abi.LinkDetach:
		p.object(says, 182, row, names)
	case abi.ProgAttach, abi.ProgDetach:
		at, size := r.Attr()
		if size < 12 || at < generate.Base || at > generate.Base+generate.Size-12 {
			return
		}
		given := before[at-generate.Base:]
		attr, ids := make([]byte, sys.AttrRoom), make([]byte, 64)
		copy(attr[0:4], given[0:4])
		copy(attr[4:8], given[8:12])
		abi.Put(attr, 16, 8, sys.Addr(ids))
		abi.Put(attr, 24, 4, 16)
		_, e := sys.BPF(uint32(abi.ProgQuery), attr, 64)
		fmt.Fprintf(says, "then attached: %s", errnoName(e))
		for i := uint32(0); e == 0 && i < min(16, uint32(abi.Uint(attr, 24, 4))); i++ {
			fmt.Fprintf(says, " %#x", p.name(abi.Prog, uint32(abi.Uint(ids, 4*i, 4))))
		}
		says.WriteByte('\n')
		runtime.KeepAlive(ids)
	}
}

// undo takes back what a request and its steps did.
func (p *player) undo(r *generate.Request) {
	attached := r.Call == "prog_attach"
	for name := range p.done {
		attached = attached || strings.HasPrefix(name, "attach")
		if fd := generate.StepOf(name).FD; fd != 0 {
			if id := idOf(fd); id != 0 {
				delete(p.own, fmt.Sprint(kindOf(int32(fd)), id))
			}
			unix.Close(fd)
		}
	}
	if attached {
		for _, d := range generate.Detach() {
			call(p.ready(&d))
		}
	}
	if p.done["cgroup"] {
		os.Remove(p.cgroup + "/below")
		if err := os.Remove(p.cgroup); err != nil {
			fail("%v", err)
		}
	}
	pins, _ := filepath.Glob(generate.BpffsPath + "/*")
	for _, pin := range pins {
		if strings.HasSuffix(pin, ".debug") {
			continue
		}
		os.Remove(pin)
	}
}

func (p *player) ready(o *generate.Object) *generate.Request {
	r := generate.Build(o)
	fill(r.Image())
	p.refs(r)
	return r
}
