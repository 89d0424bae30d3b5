package e2e

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/worker"
)

// The differential test runs a script of bpf() calls, natively as root and
// brokered, and compares what each call did, as text: the value or errno, and
// every byte of the attribute and of its buffers that changed. Ids count up over
// the whole host, so they are shown as the first, second, … of a script.

// scripts are by name; most are one command's (differential_scripts_test.go).
var scripts = map[string]func(*script){}

func init() {
	probes["differential"] = func() {
		// One thread and no collector, so that fd numbers are the same both ways.
		runtime.LockOSThread()
		debug.SetGCPercent(-1)
		takeFDs(10)
		s := &script{ids: map[string]string{}}
		scripts[os.Args[1]](s)
		s.end()
	}
}

func TestDifferential(t *testing.T) {
	needRoot(t)
	for _, name := range slices.Sorted(maps.Keys(scripts)) {
		t.Run(name, func(t *testing.T) {
			native := output(t, natively(differential(name)))
			for _, kind := range kinds(t) {
				if name == "host_admin" && kind == string(worker.Token) {
					continue
				}
				got := output(t, brokered(differential(name), "--net=private", "--worker="+kind))
				compare(t, kind, native, got)
			}
		})
	}
}

// differential is the command that runs a script. It isn't preempted: natively, a
// signal makes a long load end with EAGAIN.
func differential(name string) *exec.Cmd {
	c := probe("differential", name)
	c.Env = append(c.Env, "GODEBUG=asyncpreemptoff=1")
	return c
}

// TestDifferentialPrivatePID repeats what depends on process ids in a pid
// namespace of the workload's own.
func TestDifferentialPrivatePID(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"task_fd_query", "link_create", "iter_create", "obj_get_info_by_fd", "perf_event_open", "perf_event_set_bpf"} {
		t.Run(name, func(t *testing.T) {
			native := output(t, natively(differential(name), "--pid", "--fork", "--mount-proc"))
			got := output(t, brokered(differential(name), "--net=private", "--pid=private"))
			compare(t, "", native, got)
		})
	}
}

// TestDifferentialCovers makes sure that no command goes without a script.
func TestDifferentialCovers(t *testing.T) {
	for _, row := range abi.Rows() {
		if scripts[row.Name] == nil {
			t.Errorf("%s has no script in differential_scripts_test.go", row.Kernel)
		}
	}
}

// compare says what differs; how is how it was brokered.
func compare(t *testing.T, how, native, brokered string) {
	t.Helper()
	if native == brokered {
		if strings.Count(native, "\n") < 3 {
			t.Errorf("the script did next to nothing:\n%s", native)
		}
		return
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"natively": native, "brokered": brokered} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	diff := exec.Command("diff", "-U3", "natively", "brokered")
	diff.Dir = dir
	out, _ := diff.Output() // 1: they differ
	t.Errorf("natively -, brokered + %s\n%s", how, out)
}

// natively gives a command namespaces like a workload's, but root's rights.
func natively(c *exec.Cmd, flags ...string) *exec.Cmd {
	const prepare = `ip link set lo up
mount -t bpf -o mode=0755 bpffs /sys/fs/bpf
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec "$@"`
	args := append([]string{"unshare", "--mount", "--net", "--ipc", "--cgroup"}, flags...)
	args = append(args, "sh", "-c", prepare, "-", c.Path)
	c.Args = append(args, c.Args[1:]...)
	c.Path, _ = exec.LookPath("unshare")
	return c
}

// script is a run of calls and what they did.
type script struct {
	log  bytes.Buffer
	ids  map[string]string // kind and id → how it is shown
	bufs []*buffer         // of the call at hand
	keep [][]byte

	atEnd []func()
}

type buffer struct {
	name     string
	data     []byte
	before   []byte
	show     func([]byte) string
	ofLayout *abi.Layout
	hidden   bool
}

func (s *script) note(format string, args ...any) { fmt.Fprintf(&s.log, format+"\n", args...) }

func (s *script) end() {
	for _, f := range s.atEnd {
		f()
	}
	fmt.Print(kernelAddress.ReplaceAllString(s.log.String(), "(address)"))
}

// kernelAddress is what a log shows of a map.
var kernelAddress = regexp.MustCompile("0x?f{3,4}[0-9a-f]{12}")

// must stops the script where it can't go on: natively that is a broken test.
func (s *script) must(fd int, what string) int {
	if fd < 0 {
		s.end()
		fmt.Fprintf(os.Stderr, "no %s\n", what)
		os.Exit(3)
	}
	return fd
}

// f are an attribute's fields by name. A value is an int, a uint64, a string (of
// a name field, or NUL-terminated memory), a []byte (memory), or a *buffer.
type f map[string]any

// in makes memory that a call reads and perhaps writes: what changed is shown.
func (s *script) buf(data []byte) *buffer {
	b := &buffer{data: append(make([]byte, 0, len(data)+1), data...)}
	s.keep = append(s.keep, b.data)
	return b
}

// out makes memory for a call to write to, filled with a pattern.
func (s *script) out(n int) *buffer { return s.buf(bytes.Repeat([]byte{0xa5}, n)) }

// text makes out show as a string up to its NUL.
func (b *buffer) text() *buffer {
	b.show = func(p []byte) string {
		if i := bytes.IndexByte(p, 0); i >= 0 {
			return fmt.Sprintf("%q+NUL, then %s", p[:i], hex.EncodeToString(bytes.TrimRight(p[i+1:], "\xa5")))
		}
		return fmt.Sprintf("%q, no NUL", p)
	}
	return b
}

// atEnd is a copy of data behind which memory ends.
func atEnd(data []byte) []byte {
	m, e := sys.MapGuarded(len(data))
	if e != 0 {
		panic(e)
	}
	copy(m.Bytes, data)
	return m.Bytes
}

// idList makes out show as ids of a kind.
func (s *script) idList(kind abi.Object, n int) *buffer {
	b := s.out(4 * n)
	b.show = func(p []byte) string {
		var out []string
		for o := 0; o+4 <= len(p); o += 4 {
			if v := uint32(abi.Uint(p, uint32(o), 4)); v == 0xa5a5a5a5 {
				out = append(out, "-")
			} else {
				out = append(out, s.id(kind, v))
			}
		}
		return strings.Join(out, " ")
	}
	return b
}

// struc makes an information structure with the given fields set, of size bytes.
func (s *script) struc(l *abi.Layout, size int, fields f) *buffer {
	b := s.buf(make([]byte, size))
	b.ofLayout = l
	s.put(l, b.data, fields)
	return b
}

// put writes fields by the layout.
func (s *script) put(l *abi.Layout, to []byte, fields f) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := l.Field(name)
		if field == nil {
			panic("no field " + name)
		}
		switch v := fields[name].(type) {
		case int:
			field.Put(to, uint64(v))
		case uint64:
			field.Put(to, v)
		case string:
			if field.Class != abi.Pointer {
				copy(to[field.Offset:field.Offset+field.Size], v)
				break
			}
			p := append([]byte(v), 0)
			s.keep = append(s.keep, p)
			field.Put(to, sys.Addr(p))
		case []byte:
			s.keep = append(s.keep, v)
			field.Put(to, sys.Addr(v))
		case *buffer:
			if v.name == "" {
				v.name = name
			}
			s.bufs = append(s.bufs, v)
			field.Put(to, sys.Addr(v.data))
		}
	}
}

// do makes a call with the size of the command's attribute.
func (s *script) do(label string, c abi.Command, fields f) int {
	return s.sized(label, c, int(abi.RowOf(c).LastEnd), fields)
}

// sized makes a call with an attribute of any size; beyond the union it is zero.
func (s *script) sized(label string, c abi.Command, size int, fields f) int {
	attr := make([]byte, max(size, int(abi.AttrSize), 1))
	s.put(&abi.RowOf(c).Layout, attr, fields)
	return s.call(label, c, &abi.RowOf(c).Layout, attr, size)
}

func (s *script) call(label string, c abi.Command, l *abi.Layout, attr []byte, size int) int {
	before := bytes.Clone(attr)
	for _, b := range s.bufs {
		b.before = bytes.Clone(b.data)
	}
	v, e := sys.BPF(uint32(c), attr, uint32(size))
	runtime.KeepAlive(s.keep)
	if e != 0 {
		v = -1
		s.note("%s: %s", label, errnoName(e))
	} else {
		s.note("%s: %d", label, v)
	}
	if l != nil {
		s.changes(l, before, attr)
	}
	for _, b := range s.bufs {
		switch {
		case b.ofLayout != nil:
			s.changes(b.ofLayout, b.before, b.data)
		case bytes.Equal(b.before, b.data), b.hidden:
		case b.show != nil:
			s.note("    %s: %s", b.name, b.show(b.data))
		default:
			s.note("    %s: %s", b.name, hex.EncodeToString(b.data))
		}
	}
	s.bufs = nil
	return v
}

// volatile are fields whose value no two runs share.
var volatile = map[string]bool{
	"load_time": true, "netns_dev": true, "netns_ino": true, "cgroup.cgroup_id": true, "netns.netns_ino": true,
	"run_time_ns": true, "duration": true, "probe_addr": true, "iter.cgroup.cgroup_id": true, "iter.task.tid": true,
}

// changes shows the fields that a call changed.
func (s *script) changes(l *abi.Layout, before, after []byte) {
	known := make([]bool, len(after))
	for i := range l.Fields {
		field := &l.Fields[i]
		lo, hi := int(field.Offset), int(field.Offset+field.Size)
		if hi > len(after) || !field.Live(after) {
			continue
		}
		for k := lo; k < hi; k++ {
			known[k] = true
		}
		if bytes.Equal(before[lo:hi], after[lo:hi]) {
			continue
		}
		v := field.Uint(after)
		switch {
		case field.Size > 8 || field.Class == abi.Name || field.Class == abi.Bytes:
			s.note("    %s = %q", field.Name, after[lo:hi])
		case field.Class == abi.ID:
			s.note("    %s = %s", field.Name, s.id(field.Object, uint32(v)))
		case volatile[field.Name]:
			s.note("    %s = (something)", field.Name)
		case (field.Class == abi.PID || field.Name == "iter.task.pid") && v == uint64(os.Getpid()):
			s.note("    %s = own pid", field.Name)
		default:
			s.note("    %s = %d", field.Name, v)
		}
	}
	for i := range after {
		if !known[i] && before[i] != after[i] {
			s.note("    byte %d = %#x", i, after[i])
		}
	}
}

// id shows an id by the order in which the script met it.
func (s *script) id(kind abi.Object, id uint32) string {
	if id == 0 {
		return "0"
	}
	key := fmt.Sprint(kind, id)
	if s.ids[key] == "" {
		s.ids[key] = fmt.Sprintf("%v#%d", kind, len(s.ids)+1)
	}
	return s.ids[key]
}

func errnoName(e syscall.Errno) string {
	for name, n := range map[string]syscall.Errno{
		"EPERM": syscall.EPERM, "ENOENT": syscall.ENOENT, "EINVAL": syscall.EINVAL, "EFAULT": syscall.EFAULT, "EBADF": syscall.EBADF,
		"E2BIG": syscall.E2BIG, "ENOSPC": syscall.ENOSPC, "EEXIST": syscall.EEXIST, "EACCES": syscall.EACCES, "ENODEV": syscall.ENODEV,
		"EOPNOTSUPP": syscall.EOPNOTSUPP, "ENOTSUPP": 524, "ESRCH": syscall.ESRCH, "EBUSY": syscall.EBUSY, "ENOMEM": syscall.ENOMEM,
		"ENOTDIR": syscall.ENOTDIR, "ENAMETOOLONG": syscall.ENAMETOOLONG, "EMFILE": syscall.EMFILE, "ERANGE": syscall.ERANGE, "ENOSYS": syscall.ENOSYS, "ENOTTY": syscall.ENOTTY,
	} {
		if n == e {
			return name
		}
	}
	return fmt.Sprintf("errno %d", int(e))
}

// What scripts build calls from.

// insn is a struct bpf_insn.
func insn(code, dst, src uint8, off int16, imm int32) []byte {
	var b [8]byte
	b[0], b[1] = code, dst|src<<4
	abi.Put(b[:], 2, 2, uint64(uint16(off)))
	abi.Put(b[:], 4, 4, uint64(uint32(imm)))
	return b[:]
}

func prog(insns ...[]byte) []byte { return bytes.Join(insns, nil) }

var (
	movR0  = func(imm int32) []byte { return insn(0xb7, 0, 0, 0, imm) } // r0 = imm
	exit   = insn(0x95, 0, 0, 0, 0)
	ret0   = prog(movR0(0), exit)
	ret1   = prog(movR0(1), exit)
	badR0  = prog(exit)                          // r0 !read_ok
	deepR0 = prog(insn(0x61, 0, 1, -4, 0), exit) // r0 = *(u32 *)(r1 - 4): invalid access
	ldMap  = func(src uint8, imm, next int32) []byte {
		return prog(insn(0x18, 1, src, 0, imm), insn(0, 0, 0, 0, next))
	}
	useMap = func(src uint8, imm, next int32) []byte { return prog(ldMap(src, imm, next), movR0(0), exit) }
)

func value(v *abi.Values, name string) int {
	n, ok := v.Value(name)
	if !ok {
		panic("no value " + name)
	}
	return int(n)
}

func mapType(name string) int    { return value(abi.MapTypes, name) }
func progType(name string) int   { return value(abi.ProgTypes, name) }
func attachType(name string) int { return value(abi.AttachTypes, name) }

// hashMap creates a map that other calls of a script need.
func (s *script) hashMap(name string) int {
	return s.must(s.do("create map "+name, abi.MapCreate, f{"map_type": mapType("hash"), "key_size": 4, "value_size": 8, "max_entries": 8, "map_name": name}), "map")
}

func (s *script) arrayMap(name string) int {
	return s.must(s.do("create map "+name, abi.MapCreate, f{"map_type": mapType("array"), "key_size": 4, "value_size": 8, "max_entries": 1, "map_name": name}), "map")
}

func (s *script) load(name, typ string, insns []byte, more f) int {
	fields := f{"prog_type": progType(typ), "insns": insns, "insn_cnt": len(insns) / 8, "license": "GPL", "prog_name": name}
	maps.Copy(fields, more)
	return s.do("load "+name, abi.ProgLoad, fields)
}

func (s *script) filterProg(name string) int {
	return s.must(s.load(name, "socket_filter", ret0, nil), "program")
}

func (s *script) openFile(path string, flags int) int {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
	if err != nil {
		s.note("open %s: %v", path, err)
		return -1
	}
	return fd
}

// cgroup is a new cgroup below the script's own.
func (s *script) cgroup() int {
	path := filepath.Join("/sys/fs/cgroup", fmt.Sprintf("differential-%d-%d", os.Getpid(), len(s.atEnd)))
	if err := os.Mkdir(path, 0o755); err != nil {
		s.note("mkdir cgroup: %v", err)
	}
	fd := s.openFile(path, syscall.O_RDONLY|syscall.O_DIRECTORY)
	s.atEnd = append(s.atEnd, func() { syscall.Rmdir(path) })
	return s.must(fd, "cgroup")
}

// info asks for all that an object's fd tells.
func (s *script) info(label string, fd int, kind abi.Object, fields f) {
	l := abi.InfoLayout(kind)
	b := s.struc(l, int(l.Size), fields)
	s.do(label, abi.ObjGetInfoByFD, f{"bpf_fd": fd, "info_len": int(l.Size), "info": b})
}
