package digest_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bpfbroker/bpfbroker/digest"
)

func insn(code, dst, src uint8, off int16, imm int32) []byte {
	b := []byte{code, dst | src<<4, 0, 0, 0, 0, 0, 0}
	binary.LittleEndian.PutUint16(b[2:], uint16(off))
	binary.LittleEndian.PutUint32(b[4:], uint32(imm))
	return b
}

func wide(dst, src uint8, imm, next int32) []byte {
	return slices.Concat(insn(0x18, dst, src, 0, imm), insn(0, 0, 0, 0, next))
}

func callTo(imm int32) []byte       { return insn(0x85, 0, 1, 0, imm) }
func mov(dst uint8, n int32) []byte { return insn(0xb7, dst, 0, 0, n) }

var exit = insn(0x95, 0, 0, 0, 0)

func same(t *testing.T, what string, a, b []byte, ra, rb digest.Refs, want bool) {
	t.Helper()
	if got := digest.Sum(a, ra) == digest.Sum(b, rb); got != want {
		t.Errorf("%s: same digest: got %v, wanted %v", what, got, want)
	}
}

func TestSame(t *testing.T) {
	none := digest.Refs{}
	for _, c := range []struct {
		what string
		a, b []byte
		ra   digest.Refs
		rb   digest.Refs
		want bool
	}{
		{"fds of maps", slices.Concat(wide(1, 1, 5, 0), wide(2, 1, 6, 0), exit), slices.Concat(wide(1, 1, 9, 0), wide(2, 1, 3, 0), exit), none, none, true},
		{"one map twice", slices.Concat(wide(1, 1, 5, 0), wide(2, 1, 5, 0), exit), slices.Concat(wide(1, 1, 9, 0), wide(2, 1, 3, 0), exit), none, none, false},
		{"two fds of a map", slices.Concat(wide(1, 1, 5, 0), wide(2, 1, 5, 0), exit), slices.Concat(wide(1, 1, 9, 0), wide(2, 1, 3, 0), exit),
			none, digest.Refs{Object: func(int32) uint64 { return 7 }}, true},
		{"by fd and by index", slices.Concat(wide(1, 1, 5, 0), exit), slices.Concat(wide(1, 5, 1, 0), exit), none, digest.Refs{FDs: []int32{3, 5}}, true},
		{"values", slices.Concat(wide(1, 2, 5, 16), exit), slices.Concat(wide(1, 6, 0, 16), exit), none, digest.Refs{FDs: []int32{77}}, true},
		{"offsets in values", slices.Concat(wide(1, 2, 5, 16), exit), slices.Concat(wide(1, 2, 5, 24), exit), none, none, false},
		{"a map and its value", slices.Concat(wide(1, 1, 5, 0), exit), slices.Concat(wide(1, 2, 5, 0), exit), none, none, false},
		{"a number and a map", slices.Concat(wide(1, 0, 0, 0), exit), slices.Concat(wide(1, 1, 0, 0), exit), none, none, false},
		{"fds of BTFs", slices.Concat(wide(1, 3, 100, 5), exit), slices.Concat(wide(1, 3, 100, 8), exit), none, none, true},
		{"a module's variable and the kernel's", slices.Concat(wide(1, 3, 100, 0), exit), slices.Concat(wide(1, 3, 100, 8), exit), none, none, false},
		{"variables", slices.Concat(wide(1, 3, 100, 5), exit), slices.Concat(wide(1, 3, 101, 5), exit), none, none, false},
		{"kfuncs of a module", slices.Concat(insn(0x85, 0, 2, 1, 99), exit), slices.Concat(insn(0x85, 0, 2, 2, 99), exit), digest.Refs{FDs: []int32{0, 4}}, digest.Refs{FDs: []int32{0, 9, 6}}, true},
		{"kfuncs of the kernel", slices.Concat(insn(0x85, 0, 2, 0, 99), exit), slices.Concat(insn(0x85, 0, 2, 1, 99), exit), none, digest.Refs{FDs: []int32{0, 9}}, false},
		{"helpers", slices.Concat(insn(0x85, 0, 0, 0, 5), exit), slices.Concat(insn(0x85, 0, 0, 0, 6), exit), none, none, false},
		// main calls f, then g.
		{"order of functions",
			slices.Concat(callTo(2), callTo(3), exit, mov(0, 1), exit, mov(0, 2), exit),
			slices.Concat(callTo(4), callTo(1), exit, mov(0, 2), exit, mov(0, 1), exit), none, none, true},
		{"which function is called",
			slices.Concat(callTo(2), callTo(3), exit, mov(0, 1), exit, mov(0, 2), exit),
			slices.Concat(callTo(4), callTo(1), exit, mov(0, 1), exit, mov(0, 2), exit), none, none, false},
		{"a callback",
			slices.Concat(wide(2, 4, 2, 0), exit, mov(0, 1), exit),
			slices.Concat(wide(2, 4, 4, 0), exit, mov(0, 7), exit, mov(0, 1), exit), none, none, false},
		{"functions that nobody calls count",
			slices.Concat(callTo(1), exit, mov(0, 1), exit),
			slices.Concat(callTo(1), exit, mov(0, 1), exit, mov(0, 9), exit), none, none, false},
		{"an empty program and none", nil, []byte{}, none, none, true},
	} {
		same(t, c.what, c.a, c.b, c.ra, c.rb, c.want)
	}
}

// What doesn't hang together has the digest of its bytes: not that of anything else.
func TestMalformed(t *testing.T) {
	seen := map[[digest.Size]byte]int{}
	for i, p := range [][]byte{
		exit[:7], insn(0x18, 1, 1, 0, 5), callTo(-5), callTo(5), slices.Concat(wide(1, 4, -1, 0), exit), slices.Concat(wide(1, 4, 1<<30, 0), exit),
		slices.Concat(callTo(2), insn(0x05, 0, 0, 1, 0), exit, mov(0, 1), exit), // jumps into another function
		slices.Concat(callTo(2), insn(0x06, 0, 0, 0, 1), exit, mov(0, 1), exit),
		slices.Concat(callTo(1), wide(0, 0, 1, 1), exit), // calls the half of an instruction
	} {
		s := digest.Sum(p, digest.Refs{})
		if j, again := seen[s]; again {
			t.Errorf("%d and %d have one digest", i, j)
		}
		seen[s] = i
	}
}

// TestEveryBit: a program that differs in one bit has another digest, but for the
// numbers of fds.
func TestEveryBit(t *testing.T) {
	p := slices.Concat(callTo(6), wide(1, 2, 5, 16), insn(0x15, 1, 0, 1, 7), mov(0, 3), exit, wide(3, 1, 6, 0), insn(0x85, 0, 2, 1, 44), mov(0, 1), exit)
	refs := digest.Refs{FDs: []int32{0, 9}}
	want := digest.Sum(p, refs)
	for bit := range len(p) * 8 {
		at := bit / 8
		q := bytes.Clone(p)
		q[at] ^= 1 << (bit % 8)
		// fds: of the second instruction and the seventh; the kfunc's index, which only tells
		// from the kernel's.
		free := at >= 12 && at < 16 || at >= 60 && at < 64 || at >= 74 && at < 76
		if !free && digest.Sum(q, refs) == want {
			t.Errorf("bit %d of byte %d makes no difference", bit%8, at)
		}
	}
}

func TestFDNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var a, b []byte
		from, to := r.Perm(50), r.Perm(50)
		for range 1 + r.IntN(20) {
			n := r.IntN(50)
			src := uint8(1 + r.IntN(2))
			a = append(a, wide(1, src, int32(from[n]), 0)...)
			b = append(b, wide(1, src, int32(to[n]), 0)...)
		}
		same(t, "renumbered", append(a, exit...), append(b, exit...), digest.Refs{}, digest.Refs{}, true)
	}
}

func FuzzSum(f *testing.F) {
	f.Add(slices.Concat(callTo(2), wide(1, 1, 5, 0), exit, mov(0, 1), exit), []byte{1, 2})
	f.Fuzz(func(t *testing.T, insns, fds []byte) {
		refs := digest.Refs{}
		for _, fd := range fds {
			refs.FDs = append(refs.FDs, int32(fd))
		}
		was := bytes.Clone(insns)
		if digest.Sum(insns, refs) != digest.Sum(insns, refs) {
			t.Error("two digests of one program")
		}
		if !bytes.Equal(was, insns) {
			t.Error("the instructions have changed")
		}
	})
}

func BenchmarkSum(b *testing.B) {
	p := slices.Concat(bytes.Repeat(slices.Concat(wide(1, 1, 5, 0), mov(0, 1), insn(0x85, 0, 0, 0, 1)), 250_000-1), exit)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		digest.Sum(p, digest.Refs{})
	}
}
