package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

var testIDs = &IDs{PIDDev: 4, PIDIno: 0xf0000123, UIDs: []Extent{{0, 100000, 1000}, {1000, 1000, 1}, {1001, 101001, 64535}}, GIDs: []Extent{{0, 100000, 65536}}}

func room(n int) []byte { return make([]byte, n) }

// randomBody is a program of r's choice, with jumps and calls to anywhere in it.
func randomBody(r *rand.Rand) []byte {
	const second = 9 // half of a wide instruction
	kinds := make([]int, 0, 64)
	for n := 1 + r.IntN(60); len(kinds) < n; {
		k := r.IntN(second)
		if kinds = append(kinds, k); k == second-1 {
			kinds = append(kinds, second)
		}
	}
	var starts []int
	for i, k := range kinds {
		if k != second {
			starts = append(starts, i)
		}
	}
	var b []byte
	for i, k := range kinds {
		by := starts[r.IntN(len(starts))] - i - 1
		switch k {
		case 0:
			b = emit(b, call, 0, 0, currentPIDTGID)
		case 1:
			b = emit(b, call, 0, 0, currentUIDGID)
		case 2:
			b = emit(b, call, 0, 0, 5) // another helper
		case 3:
			b = emit(b, call, 1<<4, 0, uint32(by)) // a function
		case 4:
			b = emit(b, []uint8{0x05, 0x15, 0xae, 0xe5, 0x66}[r.IntN(5)], 1, int16(by), 7) // jumps
		case 5:
			b = emit(b, 0x06, 0, 0, uint32(by)) // gotol
		case 6:
			b = emit(b, call, 2<<4, 0, uint32(by)) // a kernel function: by is its type
		case 7:
			b = emit(b, movImm, 3, int16(by), uint32(by)) // these aren't relative
		case 8:
			if r.IntN(2) == 0 {
				b = emit(b, wide, 4<<4|1, 0, uint32(by)) // a reference to a function
			} else {
				b = emit(b, wide, 1, 0, currentPIDTGID)
			}
		case second:
			b = emit(b, 0, 0, 0, 0)
		}
	}
	return b
}

// asShown is a program as the kernel shows it: calls of functions have the distance elsewhere.
func asShown(insns []byte) []byte {
	b := bytes.Clone(insns)
	each(b, func(_ int, insn []byte) {
		switch {
		case insn[0] == call && insn[1]>>4 == 1:
			binary.NativeEndian.PutUint16(insn[2:], uint16(binary.NativeEndian.Uint32(insn[4:])))
			binary.NativeEndian.PutUint32(insn[4:], 99)
		case isCall(insn): // some address
			binary.NativeEndian.PutUint32(insn[4:], binary.NativeEndian.Uint32(insn[4:])*1000+3)
		}
	})
	return b
}

// TestUndo: whatever a program is, what is put there is found, and taken away, and what
// refers to something refers to the same then.
func TestUndo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	edited := 0
	for range 20_000 {
		body := randomBody(r)
		n := len(body) / InsnSize
		p := &Program{Insns: body, LineInfo: Records{Size: 8}}
		for range r.IntN(5) {
			p.LineInfo.Data = binary.NativeEndian.AppendUint64(p.LineInfo.Data, uint64(r.IntN(n)))
		}
		ids := testIDs
		if r.IntN(4) == 0 {
			ids = nil
		}
		g := Guard{Scope: scope, Foreign: 1, Original: Original{Tag: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Verified: 9}, IDs: ids}
		for range functions(p) {
			g.Depths = append(g.Depths, r.IntN(500))
		}
		before := bytes.Clone(body)
		out, err := g.Program(p, room)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body, before) {
			t.Fatal("the program that was given has changed")
		}
		if len(out.Insns) > len(body)+Size {
			edited++
		}
		checkTargets(t, body, out.Insns, ids)
		whole := asShown(out.Insns)
		shown, ok := scope.Undo(whole, ids)
		if !ok || shown.Original != g.Original {
			t.Fatalf("found %v: %v, wanted %v", ok, shown, g.Original)
		}
		got, err := shown.Insns(whole)
		if err != nil || !bytes.Equal(got, asShown(body)) {
			t.Fatalf("got (%v)\n% x, wanted\n% x", err, got, asShown(body))
		}
		lines := Records{bytes.Clone(out.LineInfo.Data), 8}
		if shown.Records(&lines); !bytes.Equal(lines.Data, p.LineInfo.Data) {
			t.Fatalf("lines\n% x, wanted\n% x", lines.Data, p.LineInfo.Data)
		}
	}
	if edited < 10_000 {
		t.Errorf("%d programs have such calls: this tells little", edited)
	}
}

// checkTargets follows each reference of body, and the one that it has become.
func checkTargets(t *testing.T, body, insns []byte, ids *IDs) {
	t.Helper()
	place, at := map[int]int{}, Insns // of each instruction
	each(body, func(i int, insn []byte) {
		place[i] = at
		at++
		if insn[0] == wide {
			at++
		}
		if isCall(insn) && ids != nil {
			switch binary.NativeEndian.Uint32(insn[4:]) {
			case currentPIDTGID:
				at += 6
			case currentUIDGID:
				at += len(ids.uidGID()) / InsnSize
			}
		}
	})
	if at*InsnSize != len(insns) {
		t.Fatalf("%d instructions, wanted %d", len(insns)/InsnSize, at)
	}
	by := func(insn []byte) int {
		if targetOf(insn, false) == inOff {
			return int(int16(binary.NativeEndian.Uint16(insn[2:])))
		}
		return int(int32(binary.NativeEndian.Uint32(insn[4:])))
	}
	each(body, func(i int, insn []byte) {
		if targetOf(insn, false) == none {
			return
		}
		j := place[i]
		if got, want := j+1+by(insns[j*InsnSize:][:InsnSize]), place[i+1+by(insn)]; got != want {
			t.Fatalf("instruction %d refers to %d, wanted %d", i, got, want)
		}
	})
}

func TestEditRefuses(t *testing.T) {
	far := emit(nil, 0x05, 0, 32767, 0) // over calls that become longer
	for range 32768 {
		far = emit(far, call, 0, 0, currentUIDGID)
	}
	asks := emit(emit(nil, call, 0, 0, currentPIDTGID), exit, 0, 0, 0)
	for what, c := range map[string]struct {
		insns  []byte
		depths []int
		want   string
	}{
		"far":               {far, nil, errFar.Error()},
		"away":              {emit(nil, 0x05, 0, 3, 0), nil, errAway.Error()},
		"before":            {emit(nil, call, 1<<4, 0, 1<<32-3), nil, errAway.Error()},
		"in a map":          {emit(nil, 0x0d, 1, 0, 0), nil, errAway.Error()},
		"a full stack":      {asks, []int{505}, errStack.Error()},
		"nearly":            {asks, []int{504}, "<nil>"},
		"unknown functions": {asks, nil, "it has 1 functions, and the kernel finds 0"},
		"half a wide":       {emit(nil, wide, 1, 0, 0), nil, "<nil>"}, // the kernel refuses it
		"users alone":       {emit(nil, call, 0, 0, currentUIDGID), nil, "<nil>"},
	} {
		g := Guard{Scope: scope, IDs: testIDs, Depths: c.depths}
		if _, err := g.Program(&Program{Insns: c.insns}, room); fmt.Sprint(err) != c.want {
			t.Errorf("%s: %v, wanted %v", what, err, c.want)
		}
	}
	if _, err := (&Guard{Scope: scope}).Program(&Program{Insns: asks}, func(int) []byte { return nil }); err != errMemory {
		t.Errorf("without memory: %v", err)
	}
}

func TestStackDepths(t *testing.T) {
	for log, want := range map[string]string{
		"stack depth 0\n": "[0] <nil>",
		"x\nstack depth 8+512+0\nprocessed 7 insns\n": "[8 512 0] <nil>",
		"stack depth 1\nstack depth 2\n":              "[2] <nil>",
		"":                                            "[] the verifier doesn't say what its functions use of their stacks",
		"stack depth 8+":                              `[] the verifier says that its functions use "8+" of their stacks`,
		"stack depth 520\n":                           `[] the verifier says that its functions use "520" of their stacks`,
		"stack depth -8+16\n":                         `[] the verifier says that its functions use "-8+16" of their stacks`,
	} {
		if depths, err := StackDepths(log); fmt.Sprint(depths, " ", err) != want {
			t.Errorf("%q: %v %v, wanted %s", log, depths, err, want)
		}
	}
}

// run interprets uidGID's instructions.
func run(t *testing.T, insns []byte, r0 uint64) uint64 {
	t.Helper()
	r := [11]uint64{r0}
	for i := 0; i*InsnSize < len(insns); i++ {
		in := insns[i*InsnSize:]
		dst, src, off, imm := in[1]&15, in[1]>>4, int16(binary.NativeEndian.Uint16(in[2:])), binary.NativeEndian.Uint32(in[4:])
		switch in[0] {
		case mov32Reg:
			r[dst] = uint64(uint32(r[src]))
		case movReg:
			r[dst] = r[src]
		case mov32Imm:
			r[dst] = uint64(imm)
		case add32Imm:
			r[dst] = uint64(uint32(r[dst]) + imm)
		case 0x77:
			r[dst] >>= imm
		case 0x67:
			r[dst] <<= imm
		case 0x4f:
			r[dst] |= r[src]
		case 0xa6:
			if uint32(r[dst]) < imm {
				i += int(off)
			}
		case 0x26:
			if uint32(r[dst]) > imm {
				i += int(off)
			}
		default:
			t.Fatalf("instruction %#x", in[0])
		}
	}
	return r[0]
}

// TestUIDGID: each number is what the extents make of it.
func TestUIDGID(t *testing.T) {
	in := func(n uint32, extents []Extent) uint32 {
		if len(extents) == 0 {
			return n
		}
		for _, x := range extents {
			if n >= x.Host && uint64(n) < uint64(x.Host)+uint64(x.Count) {
				return n - x.Host + x.Inside
			}
		}
		return overflowID
	}
	for _, ids := range []*IDs{
		testIDs,
		{UIDs: []Extent{{5, 0, 10}}},
		{GIDs: []Extent{{0, 1 << 31, 1 << 31}, {1 << 31, 7, 1}}},
		{UIDs: []Extent{{0, 0, 1<<32 - 1}}, GIDs: []Extent{{0, 1, 1<<32 - 1}}},
	} {
		code := ids.uidGID()
		numbers := []uint32{0, 1, 1<<32 - 1, 1<<32 - 2, 1 << 31, 4711}
		for _, list := range [][]Extent{ids.UIDs, ids.GIDs} {
			for _, x := range list {
				numbers = append(numbers, x.Host, x.Host-1, x.Host+x.Count, x.Host+x.Count-1)
			}
		}
		for _, uid := range numbers {
			for _, gid := range numbers {
				got, want := run(t, code, uint64(gid)<<32|uint64(uid)), uint64(in(gid, ids.GIDs))<<32|uint64(in(uid, ids.UIDs))
				if got != want {
					t.Fatalf("%+v: uid %d, gid %d: got %#x, wanted %#x", ids, uid, gid, got, want)
				}
			}
		}
	}
}

// FuzzUndo: nothing that the kernel could show makes it go astray.
func FuzzUndo(f *testing.F) {
	g := Guard{Scope: scope, IDs: testIDs, Depths: []int{8}}
	p, err := g.Program(&Program{Insns: emit(emit(nil, call, 0, 0, currentPIDTGID), call, 0, 0, currentUIDGID)}, room)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Insns, []byte{1, 0, 0, 0, 9, 0, 0, 0})
	f.Fuzz(func(t *testing.T, insns, lines []byte) {
		n := len(insns)
		shown, ok := scope.Undo(insns, testIDs)
		if !ok {
			return
		}
		if got, err := shown.Insns(insns); err == nil && len(got) > n-Size {
			t.Errorf("%d bytes of %d are left", len(got), n)
		}
		shown.Records(&Records{lines, 8})
	})
}
