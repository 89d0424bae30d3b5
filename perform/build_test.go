package perform

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// fakePlace is a place of which nothing is real: ids are one more than ours, and
// every path leads to fd 99.
type fakePlace struct{ Place }

func (fakePlace) Enter(Needs) sys.Errno                  { return 0 }
func (fakePlace) Leave()                                 {}
func (fakePlace) PIDFrom(pid uint32) (uint32, sys.Errno) { return pid - 1, 0 }
func (fakePlace) PIDIn(pid uint32) (uint32, sys.Errno)   { return pid + 1, 0 }
func (fakePlace) UIDIn(uid uint32) (uint32, sys.Errno)   { return uid + 1, 0 }
func (fakePlace) NetNS() (int, sys.Errno)                { return 98, 0 }
func (fakePlace) TID() uint32                            { return 77 }
func (fakePlace) OpenPath(int, []byte) (int, sys.Errno)  { return 99, 0 }

// built reads a call from a made-up target and builds what the kernel would be
// given. It returns nil where there is nothing to perform.
func built(t testing.TB, call request.Call, attr, mem []byte) (*Performer, *request.Request, *Result) {
	t.Helper()
	attr = bytes.Clone(attr)
	target, at := brokertest.FuzzTarget(call.Row(), attr, mem)
	call.Addr = at
	a := arena.New(arena.NewBudget(64 << 20))
	t.Cleanup(a.Reset)
	q, e := request.NewReader(a, request.Probes{6: abi.Kprobe, 7: abi.Uprobe}).Read(target, call)
	if e != 0 {
		return nil, nil, nil
	}
	p := NewForWorker(a, nil, nil)
	r := &Result{}
	if e := p.build(q, r, fakePlace{}); e != 0 {
		t.Fatalf("build: %v", e)
	}
	if len(r.Out) != len(q.Buffers) {
		t.Fatalf("%d buffers, of which %d are built", len(q.Buffers), len(r.Out))
	}
	return p, q, r
}

// checkBuilt fails if anything that the kernel would take for an address isn't
// NULL, one of our copies, or one that faults: no number of the application's.
func checkBuilt(t testing.TB, q *request.Request, r *Result) {
	t.Helper()
	ours := map[uint64]bool{0: true, sys.FaultAddr: true}
	for i, b := range q.Buffers {
		ours[sys.Addr(b.Data)] = true
		ours[sys.Addr(r.Out[i])] = true
	}
	check := func(l *abi.Layout, built, selector []byte) {
		for i := range l.Fields {
			f := &l.Fields[i]
			if f.Class != abi.Pointer || int(f.Offset+f.Size) > len(built) {
				continue
			}
			if f.Live(selector) {
				if !ours[f.Uint(built)] {
					t.Errorf("%s.%s: the kernel is given %#x", l.Name, f.Name, f.Uint(built))
				}
				continue
			}
			// Not live: but for what live fields have there, zero.
			for o := f.Offset; o < f.Offset+f.Size; o++ {
				other := slices.ContainsFunc(l.Fields, func(g abi.Field) bool {
					return o-g.Offset < g.Size && g.Live(selector) && (g.Class != abi.Pointer || ours[g.Uint(built)])
				})
				if built[o] != 0 && !other {
					t.Errorf("%s.%s, which the kernel doesn't look at: byte %d is %#x", l.Name, f.Name, o, built[o])
				}
			}
		}
	}
	check(&q.Row.Layout, r.Attr, q.Attr)
	for _, b := range r.Attr[q.Row.Size:] {
		if b != 0 {
			t.Errorf("%s: something behind the last field", q.Row.Kernel)
			break
		}
	}
	for i := range q.Buffers {
		rule, out := q.Buffers[i].Field.Buffer, r.Out[i]
		if out == nil {
			continue
		}
		switch {
		case rule.Elem == abi.ElemStrings:
			for o := 0; o+8 <= len(out); o += 8 {
				if v := abi.Uint(out, uint32(o), 8); !ours[v] || v == 0 {
					t.Errorf("%s: the kernel is given %#x", q.Buffers[i].Field.Name, v)
				}
			}
		case rule.Elem == abi.ElemStruct && rule.Struct != nil:
			check(rule.Struct, out, out)
		case rule.Elem == abi.ElemStruct:
			check(q.Info, out, q.Selector)
		}
	}
}

func TestBuild(t *testing.T) {
	n := 0
	brokertest.Seeds(func(command, size uint32, attr, mem []byte) {
		if _, q, r := built(t, fuzzCall(command, size), attr, mem); q != nil {
			checkBuilt(t, q, r)
			n++
		}
	})
	if n < 300 {
		t.Errorf("only %d of the seeds can be performed", n)
	}
}

func FuzzBuild(f *testing.F) {
	brokertest.Seeds(func(command, size uint32, attr, mem []byte) { f.Add(command, size, attr, mem) })
	f.Fuzz(func(t *testing.T, command, size uint32, attr, mem []byte) {
		if len(attr) > 2*abi.PageSize || len(mem) > 1<<16 {
			return
		}
		if _, q, r := built(t, fuzzCall(command, size), attr, mem); q != nil {
			checkBuilt(t, q, r)
		}
	})
}

func fuzzCall(command, size uint32) request.Call {
	c := request.Call{Size: size}
	c.Syscall, c.Command = brokertest.CallOf(command)
	return c
}

// Symbols that weren't copied are no addresses: neither the application's own
// numbers, which would be looked up in our memory, nor zero.
func TestSymbolsBehindTheLast(t *testing.T) {
	row := abi.RowOf(abi.LinkCreate)
	attr := make([]byte, row.LastEnd)
	row.Field("attach_type").Put(attr, uint64(slices.Index(abi.AttachTypes.Names, "BPF_TRACE_KPROBE_MULTI")))
	row.Field("kprobe_multi.cnt").Put(attr, 3)
	mem := make([]byte, 64)
	abi.Put(mem, 0, 8, abi.PageSize+32) // "read"
	abi.Put(mem, 8, 8, 7)               // nowhere: the kernel stops here
	abi.Put(mem, 16, 8, abi.PageSize+32)
	copy(mem[32:], "read")
	target, _ := brokertest.FuzzTarget(nil, nil, mem)
	row.Field("kprobe_multi.syms").Put(attr, abi.PageSize)
	a := arena.New(arena.NewBudget(64 << 20))
	defer a.Reset()
	q, e := request.NewReader(a, nil).Read(target, request.Call{Command: abi.LinkCreate, Addr: target.AtEnd(attr), Size: row.LastEnd})
	if e != 0 {
		t.Fatal(e)
	}
	r := &Result{}
	if e := NewForWorker(a, nil, nil).build(q, r, fakePlace{}); e != 0 {
		t.Fatal(e)
	}
	checkBuilt(t, q, r)
	syms := r.Out[0]
	if got := abi.Uint(syms, 0, 8); got != sys.Addr(q.Buffers[1].Data) || string(q.Buffers[1].Data) != "read\x00" {
		t.Errorf("the first symbol: got %#x", got)
	}
	for _, o := range []uint32{8, 16} {
		if got := abi.Uint(syms, o, 8); got != sys.FaultAddr {
			t.Errorf("the symbol at %d: got %#x, wanted an address that faults", o, got)
		}
	}
}

// What a thread has in its memory from requests before isn't in a buffer that
// the kernel may leave as it is.
func TestBuffersAreClean(t *testing.T) {
	a := arena.New(arena.NewBudget(64 << 20))
	defer a.Reset()
	for range 2 { // all of the slab
		p := a.Alloc(60 << 10)
		for i := range p {
			p[i] = 's'
		}
	}
	a.Reset()
	info := make([]byte, abi.ProgInfo.Size)
	abi.ProgInfo.Field("map_ids").Put(info, 8)
	abi.ProgInfo.Field("nr_map_ids").Put(info, 100)
	target := &brokertest.Target{Files: map[int]abi.Object{3: abi.Prog}}
	row := abi.RowOf(abi.ObjGetInfoByFD)
	attr := make([]byte, row.LastEnd)
	row.Field("bpf_fd").Put(attr, 3)
	row.Field("info").Put(attr, target.AtEnd(info))
	row.Field("info_len").Put(attr, uint64(len(info)))
	q, e := request.NewReader(a, nil).Read(target, request.Call{Command: abi.ObjGetInfoByFD, Addr: target.AtEnd(attr), Size: row.LastEnd})
	if e != 0 {
		t.Fatal(e)
	}
	r := &Result{}
	if e := NewForWorker(a, nil, nil).build(q, r, fakePlace{}); e != 0 {
		t.Fatal(e)
	}
	if out := r.Out[1]; len(out) != 400 || !bytes.Equal(out, make([]byte, 400)) {
		t.Errorf("map_ids: %d bytes, %q", len(out), out)
	}
}
