package reply

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/request"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// fakeKernel makes what a kernel that may write anything anywhere has made of a
// request: the attribute and the buffers, filled with noise, again and again.
func fakeKernel(q *request.Request, noise []byte, e sys.Errno) *perform.Result {
	next := 0
	fill := func(b []byte) {
		for i := range b {
			if len(noise) > 0 {
				b[i] = noise[next%len(noise)]
				next++
			}
		}
	}
	r := &perform.Result{FD: -1, Errno: e, Attr: make([]byte, 1024)}
	copy(r.Attr, q.Attr)
	fill(r.Attr[:q.Row.Size])
	for i := range q.Buffers {
		b := &q.Buffers[i]
		n := min(b.Len, b.Field.Buffer.Len.Max, 1<<16)
		if b.Field.Buffer.Dir == abi.InOut && b.Parent == request.NoParent {
			n = uint64(len(b.Data))
		}
		if b.Fault || b.Field.Buffer.Dir == abi.In || n == 0 {
			r.Out = append(r.Out, nil)
			continue
		}
		out := make([]byte, n)
		fill(out)
		r.Out = append(r.Out, out)
	}
	return r
}

// allowed are the places that may be written for a request: its output fields,
// and the buffers that it describes as outputs.
func allowed(q *request.Request) []brokertest.Span {
	var out []brokertest.Span
	for i := range q.Row.Fields {
		if f := &q.Row.Fields[i]; f.Dir != abi.In {
			out = append(out, brokertest.Span{Addr: q.Addr + uint64(f.Offset), Len: uint64(f.Size)})
		}
	}
	for i := range q.Buffers {
		if b := &q.Buffers[i]; b.Field.Buffer.Dir != abi.In {
			out = append(out, brokertest.Span{Addr: b.Addr, Len: b.Len})
		}
	}
	return out
}

func within(s brokertest.Span, all []brokertest.Span) bool {
	return slices.ContainsFunc(all, func(a brokertest.Span) bool { return s.Addr-a.Addr <= a.Len && s.Len <= a.Len-(s.Addr-a.Addr) })
}

func checkOutputs(t testing.TB, call request.Call, attr, mem, noise []byte, e sys.Errno) {
	t.Helper()
	attr = bytes.Clone(attr)
	target, at := brokertest.FuzzTarget(call.Row(), attr, mem)
	call.Addr = at
	a := arena.New(arena.NewBudget(64 << 20))
	defer a.Reset()
	q, errno := request.NewReader(a, nil).Read(target, call)
	if errno != 0 {
		return
	}
	r := fakeKernel(q, noise, e)
	Outputs(target, q, r)
	for _, w := range target.Written {
		if !within(w, allowed(q)) {
			t.Errorf("%s: %d bytes were written at %#x, which nothing describes as an output", q.Row.Kernel, w.Len, w.Addr)
		}
	}
}

// Whatever a kernel writes to our copy, in the target nothing is written but what
// the table describes as written.
func FuzzReply(f *testing.F) {
	brokertest.Seeds(func(command, size uint32, attr, mem []byte) {
		f.Add(command, size, attr, mem, []byte{1, 2, 3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint16(0))
		f.Add(command, size, attr, mem, []byte{4, 0, 0, 0}, uint16(28))
	})
	f.Fuzz(func(t *testing.T, command, size uint32, attr, mem, noise []byte, errno uint16) {
		if len(attr) > 2*abi.PageSize || len(mem) > 1<<16 {
			return
		}
		call := request.Call{Size: size}
		call.Syscall, call.Command = brokertest.CallOf(command)
		checkOutputs(t, call, attr, mem, noise, sys.Errno(errno))
	})
}

// infoRequest reads a BPF_OBJ_GET_INFO_BY_FD of fd 3, which is of this kind, and
// returns also the address of the structure.
func infoRequest(t *testing.T, kind abi.Object, info []byte) (*brokertest.Target, *request.Request, uint64) {
	t.Helper()
	target := &brokertest.Target{Files: map[int]abi.Object{3: kind}, Links: map[int][]byte{3: info}}
	row := abi.RowOf(abi.ObjGetInfoByFD)
	attr := make([]byte, row.LastEnd)
	at := target.AtEnd(info)
	row.Field("bpf_fd").Put(attr, 3)
	row.Field("info").Put(attr, at)
	row.Field("info_len").Put(attr, uint64(len(info)))
	a := arena.New(arena.NewBudget(64 << 20))
	t.Cleanup(a.Reset)
	q, e := request.NewReader(a, nil).Read(target, request.Call{Command: abi.ObjGetInfoByFD, Addr: target.AtEnd(attr), Size: row.LastEnd})
	if e != 0 {
		t.Fatal(e)
	}
	return target, q, at
}

// The kernel refused before it wrote the structure: nobody knows what it wrote of
// the arrays before, and what else is in our copies is nobody's business.
func TestInfoRefused(t *testing.T) {
	info := make([]byte, abi.ProgInfo.Size)
	const ids = 0x10000
	abi.ProgInfo.Field("map_ids").Put(info, ids)
	abi.ProgInfo.Field("nr_map_ids").Put(info, 4)
	m, q, _ := infoRequest(t, abi.Prog, info)
	m.Put(ids, make([]byte, 16))
	r := &perform.Result{FD: -1, Errno: sys.EINVAL, Attr: bytes.Clone(q.Attr), Out: [][]byte{make([]byte, len(info)), []byte("0123456789abcdef")}}
	if e := Outputs(m, q, r); e != 0 || len(m.Written) != 0 {
		t.Errorf("got %v, written %v, wanted nothing", e, m.Written)
	}
}

// The structure's pointers are the application's again, but for those that the
// kernel cleared; arrays are written as far as the count says, and as there is room.
func TestInfo(t *testing.T) {
	info := make([]byte, abi.ProgInfo.Size)
	const ids, ksyms, tags = 0x10000, 0x20000, 0x30000
	p := &abi.ProgInfo
	for name, v := range map[string]uint64{"map_ids": ids, "nr_map_ids": 4, "jited_ksyms": ksyms, "nr_jited_ksyms": 2, "prog_tags": tags, "nr_prog_tags": 1} {
		p.Field(name).Put(info, v)
	}
	m, q, at := infoRequest(t, abi.Prog, info)
	m.Put(ids, bytes.Repeat([]byte("."), 16))
	m.Put(ksyms, bytes.Repeat([]byte("."), 16))
	m.Put(tags, bytes.Repeat([]byte("."), 16))

	out := bytes.Clone(info) // as the kernel leaves it: our addresses in it
	for name, v := range map[string]uint64{"id": 42, "map_ids": 0x1111, "nr_map_ids": 2, "jited_ksyms": 0, "nr_jited_ksyms": 2, "prog_tags": 0x2222, "nr_prog_tags": 7} {
		p.Field(name).Put(out, v)
	}
	r := &perform.Result{FD: -1, Attr: bytes.Clone(q.Attr), Out: [][]byte{out}}
	for _, b := range q.Buffers[1:] {
		r.Out = append(r.Out, []byte("0123456789abcdef")[:b.Len])
	}
	if e := Outputs(m, q, r); e != 0 {
		t.Fatal(e)
	}
	if got := string(m.Get(ids, 16)); got != "01234567........" {
		t.Errorf("map_ids: got %q, wanted two ids", got)
	}
	if got := string(m.Get(ksyms, 16)); got != "................" {
		t.Errorf("jited_ksyms: got %q, though the kernel refused", got)
	}
	if got := string(m.Get(tags, 16)); got != "01234567........" {
		t.Errorf("prog_tags: got %q, wanted the one that there is room for", got)
	}
	got := m.Get(at, uint64(len(info)))
	for name, want := range map[string]uint64{"id": 42, "map_ids": ids, "nr_map_ids": 2, "jited_ksyms": 0, "prog_tags": tags, "nr_prog_tags": 7} {
		if v := p.Field(name).Uint(got); v != want {
			t.Errorf("%s: got %#x, wanted %#x", name, v, want)
		}
	}
}

// What wasn't made has no outputs.
func TestNotMade(t *testing.T) {
	m, q, _ := infoRequest(t, abi.Prog, make([]byte, abi.ProgInfo.Size))
	if e := Outputs(m, q, &perform.Result{FD: -1, Errno: sys.ENOMEM}); e != 0 || len(m.Written) != 0 {
		t.Errorf("got %v, written %v", e, m.Written)
	}
}

// Memory that can't be written makes EFAULT of a success, also for the last byte.
func TestUnwritable(t *testing.T) {
	m, q, at := infoRequest(t, abi.Map, make([]byte, abi.MapInfo.Size))
	r := fakeKernel(q, []byte{1}, 0)
	q.Row.Field("info_len").Put(r.Attr, uint64(abi.MapInfo.Size))
	if e := Outputs(m, q, r); e != 0 {
		t.Errorf("writable: %v", e)
	}
	m.Protect(at)
	if e := Outputs(m, q, r); e != sys.EFAULT {
		t.Errorf("read-only: got %v, wanted EFAULT", e)
	}
}
