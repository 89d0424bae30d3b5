package request

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// fuzzKinds are what fds 0 to 31 are, in turn.
var fuzzKinds = []abi.Object{0, abi.Prog, abi.Map, abi.BTF, abi.Link, abi.Token, abi.Cgroup | abi.Directory | abi.Bpffs, abi.Pidfd, abi.PerfEvent}

// fuzzTarget is a target whose memory is the attribute, with its end at a page's,
// and mem, from the second page on: nearly every number of 16 bits is an address.
func fuzzTarget(attr, mem []byte) (t *brokertest.Target, at uint64) {
	t = &brokertest.Target{Files: map[int]abi.Object{}, Links: map[int][]byte{}}
	for n := range 32 {
		t.Files[n] = fuzzKinds[n%len(fuzzKinds)]
		t.Links[n] = mem[min(len(mem), 8*n):]
	}
	t.Put(abi.PageSize, mem)
	return t, t.AtEnd(attr)
}

// fuzzAddresses makes addresses of most of the numbers where the row has
// pointers, so that the fuzzer needn't find out where there is memory.
func fuzzAddresses(row *abi.Row, attr, mem []byte) {
	if row == nil || len(mem) == 0 {
		return
	}
	for i := range row.Fields {
		f := &row.Fields[i]
		if f.Class == abi.Pointer && int(f.Offset+f.Size) <= len(attr) && f.Live(slices.Concat(attr, make([]byte, abi.AttrSize))) {
			if v := f.Uint(attr); v%4 != 3 {
				f.Put(attr, abi.PageSize+v%uint64(len(mem)+16))
			}
		}
	}
}

func fuzzRead(t testing.TB, call Call, attr, mem []byte) {
	attr = bytes.Clone(attr)
	fuzzAddresses(abi.RowOf(call.Command), attr, mem)
	target, at := fuzzTarget(attr, mem)
	call.Addr = at
	m := arena.New(arena.NewBudget(testBudget))
	defer m.Reset()
	r := NewReader(m, nil)
	q, e := r.Read(target, call)
	if (q == nil) == (e == 0) {
		t.Fatalf("got %v and %v", q, e)
	}
	req := &r.req
	if twice := target.TooOften(described(req)); len(twice) > 0 {
		t.Errorf("%d bytes, from %#x on, were read more often than described", len(twice), twice[0])
	}
	if len(target.Written) > 0 {
		t.Error("a reader writes")
	}
	if len(req.Files) > abi.MaxFiles || !slices.IsSortedFunc(req.Files, func(a, b File) int { return a.N - b.N }) || len(req.Files) > 0 && req.Files[0].N < 0 {
		t.Errorf("took %v", req.Files)
	}
	if q == nil {
		return
	}
	if len(q.Attr) != int(abi.AttrSize) || q.Size > abi.AttrSize || !bytes.Equal(q.Attr[:q.Size], attr[:q.Size]) {
		t.Errorf("attribute: got %d, %x, wanted %x", q.Size, q.Attr, attr)
	}
	for i := range q.Buffers {
		u := &q.Buffers[i]
		rule := u.Field.Buffer
		limit := rule.Len.Max
		if rule.Len.Clamp == abi.ClampFDArray {
			limit = max(limit, 4*abi.MaxFDArray)
		} else if uint64(len(u.Data)) > u.Len {
			t.Errorf("%s: %d bytes were copied, the application has %d", u.Field.Name, len(u.Data), u.Len)
		}
		if uint64(len(u.Data)) > limit {
			t.Errorf("%s: %d bytes were copied, at most %d may be", u.Field.Name, len(u.Data), limit)
		}
		if rule.Dir == abi.Out && u.Data != nil {
			t.Errorf("%s: is written only, and was read", u.Field.Name)
		}
		if u.Data != nil && !u.Fault && rule.Len.Clamp != abi.ClampFDArray && !bytes.Equal(u.Data, target.Get(u.Addr, uint64(len(u.Data)))) {
			t.Errorf("%s: the copy isn't what was there", u.Field.Name)
		}
	}
	checkFDArray(t, q)
}

// What a request is read to must not depend on luck: any command, any size, any
// bytes, memory that ends anywhere.
func FuzzRead(f *testing.F) {
	mem := bytes.Repeat([]byte{0x18, 0x11, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0}, 48)
	for _, r := range abi.Table() {
		b := fill(&r)
		f.Add(uint32(r.Command), uint32(len(b)), b, mem)
		for i := range r.Fields {
			if r.Fields[i].Class == abi.Pointer {
				r.Fields[i].Put(b, uint64(i)*8)
			} else if f := &r.Fields[i]; f.Class == abi.FD || f.Class == abi.Scalar {
				f.Put(b, uint64(i)+1)
			}
		}
		f.Add(uint32(r.Command), r.LastEnd, b[:r.LastEnd], mem)
		if g := r.Field("attach_type"); g != nil {
			for at := range abi.AttachTypes.Names {
				c := bytes.Clone(b)
				g.Put(c, uint64(at))
				f.Add(uint32(r.Command), r.LastEnd, c[:r.LastEnd], mem)
			}
		}
	}
	f.Add(uint32(5), uint32(4096), make([]byte, 4096), mem)
	f.Fuzz(func(t *testing.T, command, size uint32, attr, mem []byte) {
		if len(attr) > 2*abi.PageSize || len(mem) > 1<<16 {
			return
		}
		fuzzRead(t, Call{Command: abi.Command(command), Size: size}, attr, mem)
	})
}

// What the kernel finds by the instructions of a program is what was copied.
func FuzzReferences(f *testing.F) {
	for _, insns := range [][]byte{
		wide(pseudoMapFD, 3, 0), wide(pseudoMapIdx, 2, 0), wide(pseudoMapIdxValue, -1, 0), wide(pseudoBTFID, 1, 4),
		insn(call, pseudoKfun, 3, 1), slices.Concat(insn(ldImm64, 0, 0, 5), insn(call, pseudoKfun, 6, 0), wide(pseudoMapIdx, 9, 0)),
	} {
		f.Add(insns, uint16(0), []byte{2, 0, 0, 0, 11, 0, 0, 0, 20, 0, 0, 0})
		f.Add(insns, uint16(2), []byte{2, 0, 0, 0, 11, 0, 0, 0, 20, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, insns []byte, count uint16, array []byte) {
		if len(insns) > 1<<14 || len(array) > 1<<14 {
			return
		}
		target, _ := fuzzTarget(nil, nil)
		b := attr(t, abi.ProgLoad, map[string]uint64{
			"insns": target.AtEnd(insns), "insn_cnt": uint64(len(insns) / insnSize),
			"fd_array": target.AtEnd(array), "fd_array_cnt": uint64(count),
		})
		m := arena.New(arena.NewBudget(testBudget))
		defer m.Reset()
		q, e := NewReader(m, nil).Read(target, Call{Command: abi.ProgLoad, Addr: target.AtEnd(b), Size: uint32(len(b))})
		if e != 0 {
			t.Fatal(e)
		}
		checkFDArray(t, q)
		// Every fd that the kernel may find is taken, unless there are too many.
		if len(q.Files) == abi.MaxFiles {
			return
		}
		taken := func(n int32) {
			if n >= 0 && q.File(int(n)) == nil {
				t.Errorf("fd %d isn't taken", n)
			}
		}
		references(q.Buffer("insns").Data, taken, func(int32) {})
		if u := q.Buffer("fd_array"); u != nil && !u.Fault {
			for o := 0; o+4 <= len(u.Data); o += 4 {
				taken(int32(abi.Uint(u.Data, uint32(o), 4)))
			}
		}
		for _, file := range q.Files {
			if (file.Err == sys.EBADF) != (file.N >= 32) {
				t.Errorf("fd %d: %v", file.N, file.Err)
			}
		}
	})
}
