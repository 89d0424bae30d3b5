package request

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func TestReferences(t *testing.T) {
	const movImm = 0xb7 // BPF_ALU64 | BPF_MOV | BPF_K
	for _, c := range []struct {
		what         string
		insns        []byte
		fds, indexes []int32
	}{
		{what: "none"},
		{what: "a number", insns: wide(0, 7, 8)},
		{"a map", wide(pseudoMapFD, 7, 0), []int32{7}, nil},
		{"a map's value", wide(pseudoMapValue, 7, 16), []int32{7}, nil},
		{"the kernel's BTF", wide(pseudoBTFID, 7, 0), nil, nil},
		{"a module's BTF", wide(pseudoBTFID, 7, 9), []int32{9}, nil},
		{"a function", wide(4, 7, 0), nil, nil},
		{"a map of fd_array", wide(pseudoMapIdx, 3, 0), nil, []int32{3}},
		{"the first of fd_array", wide(pseudoMapIdx, 0, 0), nil, []int32{0}},
		{"a value of fd_array", wide(pseudoMapIdxValue, 3, 16), nil, []int32{3}},
		{"a negative index", wide(pseudoMapIdx, -2, 0), nil, []int32{-2}},
		{"a negative fd", wide(pseudoMapFD, -1, 0), []int32{-1}, nil},
		{"no such source", wide(7, 5, 6), nil, nil},
		{"a kfunc of the kernel", insn(call, pseudoKfun, 0, 4711), nil, nil},
		{"a kfunc of a module", insn(call, pseudoKfun, 2, 4711), nil, []int32{2}},
		{"a kfunc, negative", insn(call, pseudoKfun, -2, 4711), nil, []int32{-2}},
		{"a helper", insn(call, 0, 2, 1), nil, nil},
		{"a call between subprograms", insn(call, 1, 2, 1), nil, nil},
		{"no load", insn(movImm, pseudoMapFD, 0, 5), nil, nil},
		{"the first half alone", insn(ldImm64, pseudoMapFD, 0, 5), []int32{5}, nil},
		{"BTF in the first half alone", insn(ldImm64, pseudoBTFID, 0, 5), nil, nil},
		{"a load in a second half", slices.Concat(insn(ldImm64, 0, 0, 5), insn(ldImm64, pseudoMapFD, 0, 6), insn(movImm, 0, 0, 7)), nil, nil},
		{"a call in a second half", slices.Concat(insn(ldImm64, 0, 0, 5), insn(call, pseudoKfun, 6, 0)), nil, []int32{6}},
		{"two maps", slices.Concat(wide(pseudoMapFD, 7, 0), wide(pseudoMapFD, 8, 0)), []int32{7, 8}, nil},
		{"half an instruction more", append(wide(pseudoMapFD, 7, 0), ldImm64, pseudoMapFD<<4, 0, 0, 1), []int32{7}, nil},
	} {
		var fds, indexes []int32
		references(c.insns, func(n int32) { fds = append(fds, n) }, func(n int32) { indexes = append(indexes, n) })
		if !slices.Equal(fds, c.fds) || !slices.Equal(indexes, c.indexes) {
			t.Errorf("%s: got fds %v, indexes %v, wanted %v, %v", c.what, fds, indexes, c.fds, c.indexes)
		}
	}
}

// load reads a BPF_PROG_LOAD of these instructions.
func (e *env) load(insns []byte, more map[string]uint64) *Request {
	e.Helper()
	v := map[string]uint64{"insns": e.AtEnd(insns), "insn_cnt": uint64(len(insns) / insnSize)}
	for k, n := range more {
		v[k] = n
	}
	return e.must(abi.ProgLoad, v)
}

func TestFDArray(t *testing.T) {
	none := bytes.Repeat([]byte{0xff}, 4)
	e := newEnv(t)
	e.Files[5], e.Files[6], e.Files[7] = abi.Map, abi.Map, abi.BTF
	array := e.words(5, 6, 7)
	for _, c := range []struct {
		what  string
		insns []byte
		count uint64
		addr  uint64
		want  []byte // what is there for the kernel; nil: nothing
		fault bool
		taken []int
	}{
		{what: "nobody names it", insns: wide(0, 1, 0), addr: array},
		{what: "without a count", insns: wide(pseudoMapIdx, 1, 0), addr: array,
			want: slices.Concat(none, le(6)), taken: []int{6}},
		{what: "two without a count", insns: slices.Concat(wide(pseudoMapIdx, 2, 0), wide(pseudoMapIdxValue, 0, 0)), addr: array,
			want: slices.Concat(le(5), none, le(7)), taken: []int{5, 7}},
		{what: "with a count", insns: wide(0, 1, 0), count: 3, addr: array,
			want: slices.Concat(le(5), le(6), le(7)), taken: []int{5, 6, 7}},
		{what: "an index behind the count", insns: wide(pseudoMapIdx, 2, 0), count: 1, addr: array,
			want: slices.Concat(le(5), none, le(7)), taken: []int{5, 7}},
		{what: "a count past the end of memory", insns: wide(0, 1, 0), count: 4, addr: array, fault: true},
		{what: "an index past the end of memory", insns: wide(pseudoMapIdx, 3, 0), addr: array, fault: true},
		{what: "nowhere", insns: wide(pseudoMapIdx, 0, 0), addr: 16, fault: true},
		// The kernel would look there, and find what is ours.
		{what: "a negative index", insns: wide(pseudoMapIdx, -1, 0), addr: array + 4, fault: true},
		{what: "a negative index with a count", insns: wide(pseudoMapIdx, -1, 0), count: 2, addr: array + 4, fault: true},
		{what: "an index too large", insns: wide(pseudoMapIdx, abi.MaxFDArray, 0), addr: array, fault: true},
		{what: "an index too large with a count", insns: wide(pseudoMapIdxValue, 1<<31-1, 0), count: 2, addr: array, fault: true},
	} {
		q := e.load(c.insns, map[string]uint64{"fd_array": c.addr, "fd_array_cnt": c.count})
		e.checkReads()
		u := q.Buffer("fd_array")
		if u.Fault != c.fault || !c.fault && !bytes.Equal(u.Data, c.want) {
			t.Errorf("%s: got %x, fault %v, wanted %x, %v", c.what, u.Data, u.Fault, c.want, c.fault)
		}
		taken := slices.DeleteFunc(slices.Clone(e.Taken), func(n int) bool { return n == 0 })
		if !c.fault && !slices.Equal(taken, c.taken) {
			t.Errorf("%s: took %v, wanted %v", c.what, taken, c.taken)
		}
	}
	if q := e.load(wide(pseudoMapIdx, 9, 0), nil); q.Buffer("fd_array") != nil {
		t.Error("NULL: a buffer, though the kernel has an error of its own for it")
	}

	// So many that not all can be taken: what isn't is still not ours.
	var insns []byte
	big := make([]uint32, 2000)
	for i := range big {
		insns = append(insns, wide(pseudoMapIdx, int32(i), 0)...)
		big[i] = uint32(i)
	}
	q := e.load(insns, map[string]uint64{"fd_array": e.words(big...)})
	if u := q.Buffer("fd_array"); u.Fault || len(u.Data) != 4*len(big) || !bytes.Equal(u.Data[4*1999:], none) || len(q.Files) > abi.MaxFiles {
		t.Errorf("2000 indexes: %d bytes, fault %v, %d files", len(u.Data), u.Fault, len(q.Files))
	}
}

func le(v uint32) []byte {
	b := make([]byte, 4)
	abi.Put(b, 0, 4, uint64(v))
	return b
}

// Whatever the instructions are: as far as the kernel looks into fd_array, it
// finds the copy, or an address that faults.
func checkFDArray(t testing.TB, q *Request) {
	t.Helper()
	u, insns := q.Buffer("fd_array"), q.Buffer("insns")
	if u == nil || u.Fault || insns == nil || insns.Fault {
		return
	}
	// The kernel's two walks, written in its way: each slot for kfuncs, then the
	// loads of 16 bytes.
	n := len(insns.Data) / insnSize
	at := func(i int) []byte { return insns.Data[i*insnSize:] }
	check := func(index int64) {
		if index < 0 || 4*(index+1) > int64(len(u.Data)) {
			t.Errorf("the kernel looks at fd_array[%d], of which %d bytes are copied", index, len(u.Data))
		}
	}
	for i := range n {
		if at(i)[0] == 0x85 && at(i)[1]>>4 == 2 {
			if off := int16(abi.Uint(at(i), 2, 2)); off > 0 { // < 0: EINVAL
				check(int64(off))
			}
		}
	}
	for i := 0; i < n; i++ {
		if at(i)[0] == 0x18 {
			if src := at(i)[1] >> 4; src == 5 || src == 6 {
				check(int64(int32(abi.Uint(at(i), 4, 4))))
			}
			i++
		}
	}
}

func TestTake(t *testing.T) {
	e := newEnv(t)
	e.Files[3], e.Files[4], e.Files[5], e.Files[0] = abi.Map, abi.Prog, 0, abi.BTF
	q := e.load(slices.Concat(wide(pseudoMapFD, 3, 0), wide(pseudoMapFD, 3, 0), wide(pseudoMapFD, 9, 0), wide(pseudoMapValue, -7, 0), wide(pseudoBTFID, 1, 5)),
		map[string]uint64{"attach_prog_fd": 4, "prog_btf_fd": 0, "func_info_cnt": 1, "prog_token_fd": 99})
	want := []File{{N: 0, Kind: abi.BTF}, {N: 3, Kind: abi.Map}, {N: 4, Kind: abi.Prog}, {N: 5}, {N: 9, Err: sys.EBADF}}
	if fmt.Sprint(q.Files) != fmt.Sprint(want) {
		t.Errorf("got %v, wanted %v", q.Files, want)
	}
	if q.File(9) == nil || q.File(99) != nil || q.File(4).Kind != abi.Prog {
		t.Error("File doesn't find what was taken")
	}
	// 0 is no program to attach to; it is a BTF only if there is something in it.
	q = e.load(wide(0, 0, 0), nil)
	if len(q.Files) != 0 {
		t.Errorf("got %v, wanted none", q.Files)
	}
	if q.Field("insn_cnt") != 2 || q.Field("nonsense") != 0 {
		t.Error("Field reads other bytes")
	}

	// The fds of an attribute come before those of instructions, which may be too many.
	var insns []byte
	for i := range 3 * abi.MaxFiles {
		insns = append(insns, wide(pseudoMapFD, int32(100+i), 0)...)
	}
	q = e.load(insns, map[string]uint64{"attach_prog_fd": 4})
	if len(q.Files) != abi.MaxFiles || q.Files[0].N != 4 {
		t.Errorf("took %d files, the first %d", len(q.Files), q.Files[0].N)
	}
}

// An error of Take that isn't EBADF ends the call, and what was taken before is
// still there to be dropped.
func TestTakeFails(t *testing.T) {
	e := newEnv(t)
	e.Files[3] = abi.Map
	insns := slices.Concat(wide(pseudoMapFD, 3, 0), wide(pseudoMapFD, 4, 0))
	b := attr(t, abi.ProgLoad, map[string]uint64{"insns": e.AtEnd(insns), "insn_cnt": 4})
	q, errno := e.reader.Read(&failingTarget{&e.Target}, Call{Command: abi.ProgLoad, Addr: e.AtEnd(b), Size: uint32(len(b))})
	if q != nil || errno != sys.EPERM {
		t.Errorf("got %v, %v, wanted EPERM", q, errno)
	}
	if taken := e.reader.Taken(); len(taken) != 1 || taken[0].N != 3 {
		t.Errorf("taken: %v", taken)
	}
}

// failingTarget lets nobody take what isn't there.
type failingTarget struct{ *brokertest.Target }

func (f *failingTarget) Take(n int) (abi.Object, sys.Errno) {
	kind, e := f.Target.Take(n)
	if e != 0 {
		e = sys.EPERM
	}
	return kind, e
}
