package request

import (
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// env is a target and a reader of it.
type env struct {
	*testing.T
	brokertest.Target
	mem    *arena.Arena
	reader *Reader
}

// testBudget is less than a broker has, so that a reservation which is never
// granted shows.
const testBudget = 64 << 20

func newEnv(t *testing.T) *env {
	e := &env{T: t, mem: arena.New(arena.NewBudget(testBudget))}
	e.Files = map[int]abi.Object{}
	e.Links = map[int][]byte{}
	e.reader = NewReader(e.mem, nil)
	t.Cleanup(e.mem.Reset)
	return e
}

// fresh forgets the last request; what it returned is gone.
func (e *env) fresh() {
	e.mem.Reset()
	e.Taken = nil
	e.Forget()
}

// attr makes the attribute of a command out of values by field name.
func attr(t testing.TB, c abi.Command, values map[string]uint64) []byte {
	t.Helper()
	b := make([]byte, abi.AttrSize)
	put(t, &abi.RowOf(c).Layout, b, values)
	return b
}

func put(t testing.TB, l *abi.Layout, b []byte, values map[string]uint64) {
	t.Helper()
	for name, v := range values {
		f := l.Field(name)
		if f == nil {
			t.Fatalf("%s has no field %q", l.Name, name)
		}
		f.Put(b, v)
	}
}

// call reads a request whose attribute lies at a page's end.
func (e *env) call(c abi.Command, values map[string]uint64) (*Request, sys.Errno) {
	e.Helper()
	e.fresh()
	b := attr(e, c, values)
	return e.reader.Read(&e.Target, Call{Command: c, Addr: e.AtEnd(b), Size: uint32(len(b))})
}

// must is call, where it has to succeed.
func (e *env) must(c abi.Command, values map[string]uint64) *Request {
	e.Helper()
	q, errno := e.call(c, values)
	if errno != 0 {
		e.Fatalf("%s: %v", abi.RowOf(c).Kernel, errno)
	}
	return q
}

// str puts a C string at a page's end.
func (e *env) str(s string) uint64 { return e.AtEnd(append([]byte(s), 0)) }

// words puts an array of u32 at a page's end.
func (e *env) words(v ...uint32) uint64 {
	b := make([]byte, 4*len(v))
	for i, w := range v {
		abi.Put(b, uint32(4*i), 4, uint64(w))
	}
	return e.AtEnd(b)
}

// longs puts an array of u64 at a page's end.
func (e *env) longs(v ...uint64) uint64 {
	b := make([]byte, 8*len(v))
	for i, w := range v {
		abi.Put(b, uint32(8*i), 8, w)
	}
	return e.AtEnd(b)
}

// insn is one struct bpf_insn.
func insn(code, src uint8, off int16, imm int32) []byte {
	b := make([]byte, 8)
	b[0], b[1] = code, src<<4
	abi.Put(b, 2, 2, uint64(uint16(off)))
	abi.Put(b, 4, 4, uint64(uint32(imm)))
	return b
}

// wide is one instruction of 16 bytes.
func wide(src uint8, imm, imm2 int32) []byte {
	return append(insn(ldImm64, src, 0, imm), insn(0, 0, 0, imm2)...)
}

// described is what may be read for a request: its attribute, and all that its
// buffers describe. Strings are read up to the end of a page.
func described(q *Request) []brokertest.Span {
	spans := []brokertest.Span{{Addr: q.Call.Addr, Len: uint64(q.Call.Size)}}
	switch q.Syscall {
	case abi.SyscallPerfEventOpen:
		spans[0].Len = abi.PageSize // as long as it says itself
	case abi.SyscallPerfQueryBPF:
		spans[0].Len = abi.PerfQuerySize
	}
	for i := range q.Buffers {
		u := &q.Buffers[i]
		if u.Field.Buffer.Dir == abi.Out {
			continue
		}
		spans = append(spans, brokertest.Span{Addr: u.Addr, Len: max(u.Len, uint64(len(u.Data)))})
	}
	return spans
}

// checkReads fails if a byte was read more often than it is described.
func (e *env) checkReads() {
	e.Helper()
	if twice := e.TooOften(described(&e.reader.req)); len(twice) > 0 {
		e.Errorf("read more often than described: %d bytes from %#x on", len(twice), twice[0])
	}
}
