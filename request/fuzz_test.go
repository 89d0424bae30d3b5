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

var fuzzProbes = Probes{6: abi.Kprobe, 7: abi.Uprobe}

func fuzzRead(t testing.TB, call Call, attr, mem []byte) {
	attr = bytes.Clone(attr)
	target, at := brokertest.FuzzTarget(call.Row(), attr, mem)
	call.Addr = at
	m := arena.New(arena.NewBudget(testBudget))
	defer m.Reset()
	r := NewReader(m, fuzzProbes)
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
	if q.Syscall == abi.SyscallBPF && (len(q.Attr) != int(abi.AttrSize) || q.Size > abi.AttrSize || !bytes.Equal(q.Attr[:q.Size], attr[:q.Size])) {
		t.Errorf("attribute: got %d, %x, wanted %x", q.Size, q.Attr, attr)
	}
	for i := range q.Buffers {
		u := &q.Buffers[i]
		rule := u.Field.Buffer
		limit, data := rule.Len.Max, u.Data
		if rule.Struct != nil && uint64(len(data)) > u.Len { // zeros, up to its size
			data = data[:u.Len]
			if len(u.Data) != int(rule.Struct.Size) || bytes.Trim(u.Data[u.Len:], "\x00") != nil {
				t.Errorf("%s: %x, of which the application gave %d bytes", u.Field.Name, u.Data, u.Len)
			}
		}
		if rule.Len.Clamp == abi.ClampFDArray {
			limit = max(limit, 4*abi.MaxFDArray)
		} else if uint64(len(data)) > u.Len {
			t.Errorf("%s: %d bytes were copied, the application has %d", u.Field.Name, len(data), u.Len)
		}
		if uint64(len(u.Data)) > limit {
			t.Errorf("%s: %d bytes were copied, at most %d may be", u.Field.Name, len(u.Data), limit)
		}
		if rule.Dir == abi.Out && u.Data != nil {
			t.Errorf("%s: is written only, and was read", u.Field.Name)
		}
		if u.Data != nil && !u.Fault && rule.Len.Clamp != abi.ClampFDArray && !bytes.Equal(data, target.Get(u.Addr, uint64(len(data)))) {
			t.Errorf("%s: the copy isn't what was there", u.Field.Name)
		}
	}
	checkFDArray(t, q)
}

// What a request is read to must not depend on luck: any command, any size, any
// bytes, memory that ends anywhere.
func FuzzRead(f *testing.F) {
	brokertest.Seeds(func(command, size uint32, attr, mem []byte) { f.Add(command, size, attr, mem) })
	f.Fuzz(func(t *testing.T, command, size uint32, attr, mem []byte) {
		if len(attr) > 2*abi.PageSize || len(mem) > 1<<16 {
			return
		}
		call := Call{Size: size}
		if call.Syscall, call.Command = brokertest.CallOf(command); call.Syscall != abi.SyscallBPF {
			for i := range call.Args {
				call.Args[i] = uint64(size) >> (4 * i) & 0x1f
			}
		}
		fuzzRead(t, call, attr, mem)
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
		target, _ := brokertest.FuzzTarget(nil, nil, nil)
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
