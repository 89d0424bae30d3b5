package inspect

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/request"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// The numbers that the running kernel gave two PMUs, in these tests.
const kprobePMU, uprobePMU = 8, 9

// env is a target whose requests are read.
type env struct {
	testing.TB
	brokertest.Target
	place  brokertest.Place
	reader *request.Reader
}

func newEnv(t testing.TB) *env {
	e := &env{TB: t}
	e.Files = map[int]abi.Object{}
	mem := arena.New(arena.NewBudget(256 << 20))
	t.Cleanup(mem.Reset)
	e.reader = request.NewReader(mem, request.Probes{kprobePMU: abi.Kprobe, uprobePMU: abi.Uprobe})
	return e
}

// values are an attribute's fields by name.
type values map[string]uint64

func (e *env) attr(row *abi.Row, v values) []byte {
	e.Helper()
	b := make([]byte, abi.AttrSize)
	for name, n := range v {
		f := row.Field(name)
		if f == nil {
			e.Fatalf("%s has no field %q", row.Name, name)
		}
		f.Put(b, n)
	}
	return b
}

// bpf reads a call of bpf().
func (e *env) bpf(c abi.Command, v values) *request.Request {
	e.Helper()
	b := e.attr(abi.RowOf(c), v)
	return e.read(request.Call{Command: c, Addr: e.AtEnd(b), Size: uint32(len(b))})
}

func (e *env) read(c request.Call) *request.Request {
	e.Helper()
	q, errno := e.reader.Read(&e.Target, c)
	if errno != 0 {
		e.Fatalf("read: %v", errno)
	}
	return q
}

// perf reads a call of perf_event_open().
func (e *env) perf(v values) *request.Request {
	e.Helper()
	row := abi.RowOfSyscall(abi.SyscallPerfEventOpen)
	v["size"] = abi.PerfEventAttrSize
	b := e.attr(row, v)
	c := request.Call{Syscall: abi.SyscallPerfEventOpen, Command: abi.NoCommand, Addr: e.AtEnd(b[:abi.PerfEventAttrSize])}
	for i, name := range row.Args {
		if name != "" {
			c.Args[i] = v[name]
		}
	}
	return e.read(c)
}

// setBPF reads an ioctl that attaches a program.
func (e *env) setBPF(event, prog uint64) *request.Request {
	c := request.Call{Syscall: abi.SyscallPerfSetBPF, Command: abi.NoCommand}
	c.Args[0], c.Args[2] = event, prog
	return e.read(c)
}

func (e *env) str(s string) uint64 { return e.AtEnd(append([]byte(s), 0)) }

// object puts an object at an fd, of which the kernel says this.
func (e *env) object(n int, kind abi.Object, v values) {
	e.Helper()
	l := abi.InfoLayout(kind)
	b := make([]byte, l.Size)
	for name, x := range v {
		l.Field(name).Put(b, x)
	}
	if e.place.Infos == nil {
		e.place.Infos = map[int][]byte{}
	}
	e.Files[n], e.place.Infos[n] = kind, b
}

func value(v *abi.Values, name string) uint64 {
	n, ok := v.Value(name)
	if !ok {
		panic(name)
	}
	return n
}

func attachType(name string) uint64 { return value(abi.AttachTypes, name) }

// show lists the facts that aren't zero, and what isn't known, but for the command.
func show(f *facts.Facts) string {
	var out []string
	for i := range facts.Table {
		fact := &facts.Table[i]
		v := reflect.ValueOf(fact.At(f)).Elem()
		if fact.Name != "command" && !v.IsZero() {
			out = append(out, fmt.Sprintf("%s=%v", fact.Name, v.Interface()))
		}
	}
	for _, u := range f.Unknown {
		out = append(out, fmt.Sprintf("%s? %s", u.Fact, u.Why))
	}
	return strings.Join(out, "\n")
}

// insn is one struct bpf_insn.
func insn(code, src uint8, off int16, imm int32) []byte {
	b := make([]byte, insnSize)
	b[0], b[1] = code, src<<4
	abi.Put(b, 2, 2, uint64(uint16(off)))
	abi.Put(b, 4, 4, uint64(uint32(imm)))
	return b
}

// wide is one instruction of 16 bytes.
func wide(src uint8, imm, half int32) []byte {
	return append(insn(0x18, src, 0, imm), insn(0, 0, 0, half)...)
}
