package e2e

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// More of enum bpf_cmd, bpf_prog_type and bpf_attach_type.
const (
	cmdProgAttach = 8
	cmdProgDetach = 9
	cmdProgQuery  = 16
	cmdBTFByID    = 19
	cmdBTFNextID  = 23
	cmdLinkUpdate = 29
	cmdLinkDetach = 34
	cmdPerfEvent  = 1000 // perf_event_open(), which is no command

	progTypeSchedCLS = 3
	progTypeXDP      = 6
	progTypeSock     = 9
	progTypeRawTP    = 17

	attachSockCreate = 2
	attachXDP        = 37
	attachTCXIngress = 46
	attachTCXEgress  = 47

	linkTypeRawTP = 1
	linkTypeXDP   = 6

	lo = 1
)

// byDaemon says whether the daemon performs a command for a token worker.
func byDaemon(command uint32) bool {
	switch command {
	case cmdProgQuery, cmdMapNextID, cmdMapByID, cmdBTFByID, cmdBTFNextID, cmdPerfEvent:
		return true
	}
	return false
}

// chaosSteps is what the threads do, each the same again and again.
var chaosSteps = [chaosThreads]struct {
	name string
	step func(*chaosThread)
}{
	{"maps", (*chaosThread).maps},
	{"loads", (*chaosThread).loads},
	{"links", (*chaosThread).links},
	{"attachments", (*chaosThread).attachments},
	{"pins", (*chaosThread).pins},
	{"traces", (*chaosThread).traces},
	{"ids", (*chaosThread).ids}, // of two threads, which open the same objects
	{"ids", (*chaosThread).ids},
	{"signals", (*chaosThread).signals},
}

const (
	// chaosSlow is how many rounds a program has that the verifier follows for some ms.
	chaosSlow    = 200
	chaosLogSize = 1 << 20
	// guard is what buffers hold where nothing may be written.
	guard = 0xee
)

func chaosLog() []byte { return bytes.Repeat([]byte{guard}, chaosLogSize) }

// chaosProbe is the application.
type chaosProbe struct {
	board  *chaosBoard
	marker string
	cgroup int
	log    []byte       // of the slow program
	gate   sync.RWMutex // held for writing: the threads pause
	// owner says which thread, plus 1, has an fd; -1: none, it was there before.
	owner [1 << 12]atomic.Int32
}

// chaosThread is one of its threads.
type chaosThread struct {
	*chaosProbe
	mark string // its objects' name
	name string
	do   func(*chaosThread) // a step
	n, i int                // which thread; which step
	tags map[int32]string   // of the programs that it has loaded
}

func init() {
	probes["chaos"] = func() {
		board, _, err := sys.MapShared[chaosBoard](3)
		if err != nil {
			fail("%v", err)
		}
		p := &chaosProbe{board: board, marker: os.Args[1], log: chaosLog()}
		const dir = "/sys/fs/cgroup/chaos"
		if err := os.Mkdir(dir, 0o755); err != nil {
			fail("%v", err)
		}
		if p.cgroup, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			fail("%v", err)
		}
		signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
		fd, e := load(progTypeSocket, p.marker, slow(chaosSlow), 2, p.log)
		if e != 0 {
			fail("slow program: %v", e)
		}
		unix.Close(fd)
		names, _ := os.ReadDir("/proc/self/fd")
		for _, f := range names {
			n, _ := strconv.Atoi(f.Name())
			if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil {
				p.owner[n].Store(-1)
			}
		}
		p.gate.Lock()
		for n, s := range chaosSteps {
			// Some steps before anything is killed, for what they compare with.
			th := &chaosThread{chaosProbe: p, mark: fmt.Sprintf("%s.%d", p.marker, n), name: s.name, do: s.step, n: n, tags: map[int32]string{}}
			for range 4 {
				th.step()
			}
			go th.run()
		}
		line := ask(fmt.Sprintf("ready %d %x", os.Getpid(), sha256.Sum256(p.log)))
		for {
			switch line {
			case "go":
				p.gate.Unlock()
				line = read()
			case "pause":
				p.gate.Lock()
				line = ask("paused")
			case "attached":
				line = ask(cmp.Or(p.attached(), "nothing"))
			case "end":
				os.Exit(0)
			default:
				fail("told to %q", line)
			}
		}
	}
}

// read waits for the test to say something.
func read() string {
	answer, err := stdin.ReadString('\n')
	if err != nil {
		os.Exit(0) // the test is over
	}
	return strings.TrimSuffix(answer, "\n")
}

func (c *chaosThread) run() {
	runtime.LockOSThread()
	if c.name == "signals" {
		pid, tid := unix.Getpid(), unix.Gettid()
		go func() {
			for {
				if err := unix.Tgkill(pid, tid, unix.SIGUSR1); err != nil && !errors.Is(err, unix.EAGAIN) {
					fail("%v", err)
				}
				time.Sleep(300 * time.Microsecond)
			}
		}()
	}
	for {
		c.gate.RLock()
		c.step()
		c.gate.RUnlock()
		if c.board.calm.Load() {
			time.Sleep(c.rest())
		}
	}
}

// rest is how long a thread pauses after each step while all is calm: one that makes
// maps and one whose calls the daemon performs are to notice when they are served
// again.
func (c *chaosThread) rest() time.Duration {
	if c.n == 0 || c.name == "ids" && chaosSteps[c.n-1].name != "ids" {
		return 500 * time.Microsecond
	}
	return time.Second
}

func (c *chaosThread) step() {
	c.do(c)
	c.i++
	c.board.threads[c.n].steps.Add(1)
}

func (c *chaosThread) fail(format string, args ...any) {
	fail("%s, step %d of thread %d, at %d µs: %s", c.name, c.i, c.n, sys.Monotonic()/1000, fmt.Sprintf(format, args...))
}

// timed makes a call, and keeps the board.
func (c *chaosThread) timed(command uint32, call func() (int, sys.Errno)) (int, sys.Errno) {
	b, th := c.board, &c.board.threads[c.n]
	began := sys.Monotonic()
	th.command.Store(command)
	th.began.Store(began)
	v, e := call()
	done := sys.Monotonic()
	th.began.Store(0)
	th.done.Store(done)
	th.calls.Add(1)
	if mark := b.mark.Load(); mark != 0 && began > mark {
		b.first[0].CompareAndSwap(0, done)
		if byDaemon(command) {
			b.first[1].CompareAndSwap(0, done)
		}
	}
	return v, e
}

func (c *chaosThread) bpf(command uint32, a *attr, size uint32, keep ...[]byte) (int, sys.Errno) {
	return c.timed(command, func() (int, sys.Errno) { return bpf(command, a, size, keep...) })
}

// fd takes a new fd, which must be nobody's.
func (c *chaosThread) fd(what string) func(int, sys.Errno) int {
	return func(fd int, e sys.Errno) int {
		if e != 0 {
			c.fail("%s: %v", what, e)
		}
		if fd < 0 || fd >= len(c.owner) {
			c.fail("%s: got fd %d", what, fd)
		}
		if !c.owner[fd].CompareAndSwap(0, int32(c.n+1)) {
			c.fail("%s: got fd %d, which thread %d has already", what, fd, c.owner[fd].Load()-1)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			c.fail("%s: fd %d: flags %#x, %v", what, fd, flags, err)
		}
		return fd
	}
}

func (c *chaosThread) close(fds ...int) {
	for _, fd := range fds {
		c.owner[fd].Store(0)
		if err := unix.Close(fd); err != nil {
			c.fail("close %d: %v", fd, err)
		}
	}
}

// zero wants a call to succeed that makes no fd, and other one that fails so.
func (c *chaosThread) zero(what string) func(int, sys.Errno) { return c.gives(what, 0) }

func (c *chaosThread) gives(what string, want sys.Errno) func(int, sys.Errno) {
	return func(v int, e sys.Errno) {
		if e != want || e == 0 && v != 0 {
			c.fail("%s: got %d, %v; wanted %v", what, v, e, want)
		}
	}
}

// newMap makes a map that nobody else has the like of at this moment.
func (c *chaosThread) newMap() (hashMap, int) {
	h := variety(c.n*11 + c.i)
	return h, c.fd("map_create")(c.timed(cmdMapCreate, func() (int, sys.Errno) { return h.create(c.mark) }))
}

// load loads a program that returns n.
func (c *chaosThread) load(progType uint32, n int32) int {
	return c.fd("prog_load")(c.timed(cmdProgLoad, func() (int, sys.Errno) { return load(progType, c.mark, returns(n), 0, nil) }))
}

// info asks for size bytes of what the kernel tells of an fd.
func (c *chaosThread) info(fd, size int) chaosInfo {
	b := make([]byte, size)
	c.zero("info")(c.bpf(cmdObjInfo, new(attr).u32(0, uint32(fd)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b))
	return b
}

type chaosInfo []byte

func (b chaosInfo) u32(offset int) uint32 { return binary.NativeEndian.Uint32(b[offset:]) }

// The ids are at the same offset for all but BTF.
func (c *chaosThread) id(fd int) uint32 { return c.info(fd, 8).u32(4) }

func (c *chaosThread) maps() {
	h, fd := c.newMap()
	if err := h.check(fd); err != nil {
		c.fail("%+v: %v", h, err)
	}
	c.close(fd)
}

func (c *chaosThread) loads() {
	n := int32(c.n*10 + c.i%3)
	fd := c.load(progTypeSocket, n)
	b := c.info(fd, 80)
	name, tag := string(b[progNameOffset:progNameOffset+len(c.mark)]), string(b[8:16])
	if b.u32(0) != progTypeSocket || name != c.mark {
		c.fail("a program of type %d, name %q", b.u32(0), name)
	}
	if want := c.tags[n]; want == "" {
		c.tags[n] = tag
	} else if tag != want {
		c.fail("a program with tag %x, not %x", tag, want)
	}
	c.close(fd)
	if c.i%4 != 3 {
		return
	}
	log := chaosLog()
	fd = c.fd("slow prog_load")(c.timed(cmdProgLoad, func() (int, sys.Errno) {
		return load(progTypeSocket, c.mark, slow(chaosSlow), 2, log)
	}))
	if !bytes.Equal(log, c.log) {
		c.fail("a log of %d bytes, not of %d, or with another text:\n%.400s", bytes.IndexByte(log, guard), bytes.IndexByte(c.log, guard), log)
	}
	c.close(fd)
}

func (c *chaosThread) links() {
	create := func(prog int) (int, sys.Errno) {
		const skbMode = 2 // XDP_FLAGS_SKB_MODE
		return c.bpf(cmdLinkCreate, new(attr).u32(0, uint32(prog)).u32(4, lo).u32(8, attachXDP).u32(12, skbMode), 16)
	}
	update := func(link, prog, old int) (int, sys.Errno) {
		a := new(attr).u32(0, uint32(link)).u32(4, uint32(prog))
		if old >= 0 {
			const replace = 4 // BPF_F_REPLACE
			a.u32(8, replace).u32(12, uint32(old))
		}
		return c.bpf(cmdLinkUpdate, a, 16)
	}
	const pass = 2 // XDP_PASS
	var progs [3]int
	var ids [3]uint32
	for i := range progs {
		progs[i] = c.load(progTypeXDP, pass)
		ids[i] = c.id(progs[i])
	}
	link := c.fd("link_create")(create(progs[0]))
	isOf := func(what string, want uint32, ifindex uint32) {
		if b := c.info(link, 20); b.u32(0) != linkTypeXDP || b.u32(8) != want || b.u32(16) != ifindex {
			c.fail("%s: a link of type %d, program %d, interface %d; wanted program %d, interface %d", what, b.u32(0), b.u32(8), b.u32(16), want, ifindex)
		}
	}
	isOf("new link", ids[0], lo)
	c.gives("second link_create", sys.EBUSY)(create(progs[1]))
	c.zero("link_update")(update(link, progs[1], -1))
	isOf("link_update", ids[1], lo)
	c.gives("link_update, the old one is another", sys.EPERM)(update(link, progs[2], progs[0]))
	isOf("no link_update", ids[1], lo)
	c.zero("link_update, the old one given")(update(link, progs[2], progs[1]))
	isOf("second link_update", ids[2], lo)
	c.zero("link_detach")(c.bpf(cmdLinkDetach, new(attr).u32(0, uint32(link)), 4))
	isOf("link_detach", ids[2], 0)
	c.gives("link_update after link_detach", unix.ENOLINK)(update(link, progs[0], -1))
	second := c.fd("link_create after link_detach")(create(progs[1]))
	c.close(link)
	c.gives("another link_create", sys.EBUSY)(create(progs[0]))
	c.close(second)
	// By the close it is detached, too.
	third := c.fd("link_create after close")(create(progs[0]))
	c.close(third)
	c.close(progs[:]...)
}

// query counts what is attached to a cgroup (to lo if it is 0), and lists as many ids
// as there is room for.
func (c *chaosThread) query(cgroup, attachType, room int) (n uint32, ids []uint32, e sys.Errno) {
	b := bytes.Repeat([]byte{guard}, 32)
	a := new(attr).u32(0, uint32(cmp.Or(cgroup, lo))).u32(4, uint32(attachType)).u64(16, sys.Addr(b)).u32(24, uint32(room))
	_, e = c.bpf(cmdProgQuery, a, 64, b)
	for i := range 8 {
		if id := chaosInfo(b).u32(4 * i); id != guard*0x01010101 {
			ids = append(ids, id)
		}
	}
	return binary.NativeEndian.Uint32(a[24:]), ids, e
}

func (c *chaosThread) attachments() {
	const multi = 2 // BPF_F_ALLOW_MULTI
	attach := func(cmd uint32, prog int) (int, sys.Errno) {
		a := new(attr).u32(0, uint32(c.cgroup)).u32(4, uint32(prog)).u32(8, attachSockCreate)
		if cmd == cmdProgAttach {
			a.u32(12, multi)
		}
		return c.bpf(cmd, a, 20)
	}
	shows := func(what string, room int, want sys.Errno, count int, ids ...uint32) {
		if n, got, e := c.query(c.cgroup, attachSockCreate, room); e != want || int(n) != count || !slices.Equal(got, ids) {
			c.fail("prog_query, %s: %d programs, %v, %v; wanted %d, %v, %v", what, n, got, e, count, ids, want)
		}
	}
	p, q := c.load(progTypeSock, 1), c.load(progTypeSock, 1)
	pid, qid := c.id(p), c.id(q)
	shows("nothing attached", 8, 0, 0)
	c.zero("prog_attach")(attach(cmdProgAttach, p))
	shows("one attached", 8, 0, 1, pid)
	c.gives("prog_attach again", sys.EINVAL)(attach(cmdProgAttach, p))
	c.zero("prog_attach of another")(attach(cmdProgAttach, q))
	shows("two attached", 8, 0, 2, pid, qid)
	shows("two attached, room for one", 1, sys.ENOSPC, 2, pid)
	c.zero("prog_detach of another")(attach(cmdProgDetach, q))
	shows("one left", 8, 0, 1, pid)
	c.zero("prog_detach")(attach(cmdProgDetach, p))
	shows("none left", 8, 0, 0)
	c.gives("prog_detach again", sys.ENOENT)(attach(cmdProgDetach, p))
	c.close(p, q)

	tcx := func(cmd uint32, prog int) (int, sys.Errno) {
		return c.bpf(cmd, new(attr).u32(0, lo).u32(4, uint32(prog)).u32(8, attachTCXIngress), 32)
	}
	p = c.load(progTypeSchedCLS, -1) // TCX_NEXT
	c.zero("tcx")(tcx(cmdProgAttach, p))
	c.gives("tcx again", sys.EEXIST)(tcx(cmdProgAttach, p))
	if n, ids, e := c.query(0, attachTCXIngress, 8); e != 0 || n != 1 || len(ids) != 1 || ids[0] != c.id(p) {
		c.fail("tcx: %d programs, %v, %v", n, ids, e)
	}
	c.zero("tcx off")(tcx(cmdProgDetach, p))
	c.gives("tcx off again", sys.ENOENT)(tcx(cmdProgDetach, p))
	c.close(p)
}

// attached says what the threads, which pause, have left.
func (p *chaosProbe) attached() string {
	c := &chaosThread{chaosProbe: p}
	for _, where := range []struct {
		what               string
		cgroup, attachType int
	}{{"the cgroup", p.cgroup, attachSockCreate}, {"lo, tcx ingress", 0, attachTCXIngress}, {"lo, tcx egress", 0, attachTCXEgress}} {
		if n, ids, e := c.query(where.cgroup, where.attachType, 8); e != 0 || n != 0 {
			return fmt.Sprintf("%s: %d programs, %v, %v", where.what, n, ids, e)
		}
	}
	mode, err := xdpMode(lo)
	if err != nil || mode != 0 {
		return fmt.Sprintf("lo, XDP: mode %d, %v", mode, err)
	}
	return ""
}

// xdpMode asks for an interface's mode of XDP: 0 for none (rtnetlink(7), IFLA_XDP).
func xdpMode(ifindex int32) (byte, error) {
	const (
		iflaXDP         = 43
		iflaXDPAttached = 2
	)
	rib, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return 0, err
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || int32(binary.NativeEndian.Uint32(m.Data[4:])) != ifindex {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED != iflaXDP {
				continue
			}
			for b := a.Value; len(b) >= 5; {
				n, kind := binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])
				if kind == iflaXDPAttached {
					return b[4], nil
				}
				b = b[min(len(b), int(n+3)&^3):]
			}
			return 0, nil
		}
	}
	return 0, fmt.Errorf("no interface %d, or none that could have XDP", ifindex)
}

func (c *chaosThread) pins() {
	path := fmt.Sprintf("/sys/fs/bpf/%s-%d", c.marker, c.n)
	pin := func(path string, fd int) (int, sys.Errno) {
		b := append([]byte(path), 0)
		return c.bpf(cmdObjPin, new(attr).u64(0, sys.Addr(b)).u32(8, uint32(fd)), 16, b)
	}
	get := func() (int, sys.Errno) {
		b := append([]byte(path), 0)
		return c.bpf(cmdObjGet, new(attr).u64(0, sys.Addr(b)), 16, b)
	}
	h, m := c.newMap()
	c.zero("obj_pin")(pin(path, m))
	c.gives("obj_pin again", sys.EEXIST)(pin(path, m))
	p := c.load(progTypeSocket, 0)
	c.gives("obj_pin of another", sys.EEXIST)(pin(path, p))
	c.gives("obj_pin below a pin", unix.ENOTDIR)(pin(path+"/x", m))
	got := c.fd("obj_get")(get())
	if a, b := c.id(got), c.id(m); a != b {
		c.fail("obj_get: map %d, not %d", a, b)
	}
	if err := h.check(got); err != nil {
		c.fail("obj_get of %+v: %v", h, err)
	}
	if err := unix.Unlink(path); err != nil {
		c.fail("unlink: %v", err)
	}
	c.gives("obj_get after unlink", sys.ENOENT)(get())
	c.close(m, p, got)
}

func (c *chaosThread) traces() {
	event := func() int {
		a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unix.PERF_ATTR_SIZE_VER5), Config: unix.PERF_COUNT_SW_CPU_CLOCK}
		fd := c.fd("perf_event_open")(c.timed(cmdPerfEvent, func() (int, sys.Errno) {
			fd, err := unix.PerfEventOpen(&a, os.Getpid(), -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			e, _ := err.(sys.Errno)
			return fd, e
		}))
		if n, err := unix.Read(fd, make([]byte, 64)); n != 8 || err != nil {
			c.fail("read of a perf event: %d, %v", n, err)
		}
		return fd
	}
	one, two := event(), event()
	if a, b := sys.PerfEventID(one), sys.PerfEventID(two); a == 0 || b == 0 || a == b {
		c.fail("perf events %d and %d", a, b)
	}
	c.close(one, two)
	p := c.load(progTypeRawTP, 0)
	name := []byte("sys_enter\x00")
	l := c.fd("raw_tracepoint_open")(c.bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(name)).u32(8, uint32(p)), 16, name))
	if b := c.info(l, 16); b.u32(0) != linkTypeRawTP || b.u32(8) != c.id(p) {
		c.fail("raw tracepoint: a link of type %d, program %d, not %d", b.u32(0), b.u32(8), c.id(p))
	}
	c.close(l, p)
}

func (c *chaosThread) ids() {
	h, m := c.newMap()
	id := c.id(m)
	byID := func() int {
		fd := c.fd("map_get_fd_by_id")(c.bpf(cmdMapByID, new(attr).u32(0, id), 12))
		if got := c.id(fd); got != id {
			c.fail("map_get_fd_by_id: map %d, not %d", got, id)
		}
		return fd
	}
	again := byID()
	if err := h.check(again); err != nil {
		c.fail("map by id, %+v: %v", h, err)
	}
	if c.i%8 == 3 { // more of one map than the ledger has room for
		var many []int
		for range 10 {
			many = append(many, byID())
		}
		c.close(many...)
	}
	for at := uint32(0); at != id; {
		a := new(attr).u32(0, at)
		if _, e := c.bpf(cmdMapNextID, a, 8); e != 0 {
			c.fail("map_get_next_id after %d: %v; the own map %d didn't come", at, e, id)
		}
		next := binary.NativeEndian.Uint32(a[4:])
		if next <= at {
			c.fail("map_get_next_id after %d: %d", at, next)
		}
		at = next
	}
	a := new(attr)
	c.zero("btf_get_next_id")(c.bpf(cmdBTFNextID, a, 8))
	btf := c.fd("btf_get_fd_by_id")(c.bpf(cmdBTFByID, new(attr).u32(0, binary.NativeEndian.Uint32(a[4:])), 4))
	// struct bpf_btf_info, with room for a name.
	name, b := bytes.Repeat([]byte{guard}, 64), make([]byte, 32)
	binary.NativeEndian.PutUint64(b[16:], sys.Addr(name))
	binary.NativeEndian.PutUint32(b[24:], uint32(len(name)))
	c.zero("info of btf")(c.bpf(cmdObjInfo, new(attr).u32(0, uint32(btf)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b, name))
	if !bytes.HasPrefix(name, []byte("vmlinux\x00\xee")) {
		c.fail("the first BTF is %q", name)
	}
	// A program of two maps, and room for one: the kernel writes to the number of
	// maps how many there are, which isn't how many there is room for.
	_, m2 := c.newMap()
	p := c.fd("prog_load")(c.timed(cmdProgLoad, func() (int, sys.Errno) {
		return load(progTypeSocket, c.mark, prog(ldMap(1, int32(m), 0), ldMap(1, int32(m2), 0), movR0(0), exit), 0, nil)
	}))
	list, b := bytes.Repeat([]byte{guard}, 16), make([]byte, 80)
	binary.NativeEndian.PutUint32(b[52:], 1) // nr_map_ids
	binary.NativeEndian.PutUint64(b[56:], sys.Addr(list))
	c.zero("info of program")(c.bpf(cmdObjInfo, new(attr).u32(0, uint32(p)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b, list))
	if n := chaosInfo(b).u32(52); n != 2 || chaosInfo(list).u32(0) != id || !bytes.Equal(list[4:], bytes.Repeat([]byte{guard}, 12)) {
		c.fail("info of a program of two maps, the first is %d, with room for one: %d maps, %x", id, n, list)
	}
	c.close(m, again, btf, m2, p)
}

// signals does what others do, on a thread that takes signals.
func (c *chaosThread) signals() {
	c.maps()
	c.loads()
}
