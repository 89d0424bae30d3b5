package digest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// The instructions that tests are made of.

func ins(code, dst, src byte, off int16, imm int32) []byte {
	b := []byte{code, dst | src<<4}
	b = binary.LittleEndian.AppendUint16(b, uint16(off))
	return binary.LittleEndian.AppendUint32(b, uint32(imm))
}

func wide(src byte, imm, half int32) []byte {
	return append(ins(ldImm64, 1, src, 0, imm), ins(0, 0, 0, 0, half)...)
}

func mov(n int32) []byte              { return ins(0xb7, 0, 0, 0, n) }
func exit() []byte                    { return ins(0x95, 0, 0, 0, 0) }
func callTo(rel int32) []byte         { return ins(call, 0, pseudoCall, 0, rel) }
func kfunc(off int16, n int32) []byte { return ins(call, 0, pseudoKfunc, off, n) }

func program(parts ...[]byte) []byte { return slices.Concat(parts...) }

func fdArray(fds ...int32) (b []byte) {
	for _, fd := range fds {
		b = binary.LittleEndian.AppendUint32(b, uint32(fd))
	}
	return b
}

func named(names map[int32]string) func(int32) string {
	return func(fd int32) string { return names[fd] }
}

// Pairs of programs that are one, or aren't.
func TestOf(t *testing.T) {
	two := func(fdA, fdB int32) []byte {
		return program(wide(pseudoMapFD, fdA, 0), wide(pseudoMapValue, fdB, 16), wide(pseudoMapFD, fdA, 0), exit())
	}
	// main calls a, then b; a calls b.
	ab := program(callTo(2), callTo(3), exit(), callTo(1), exit(), mov(2), exit())
	ba := program(callTo(4), callTo(1), exit(), mov(2), exit(), callTo(-3), exit())
	for _, c := range []struct {
		name string
		a, b Program
		same bool
	}{
		{"other fds", Program{Insns: two(3, 4)}, Program{Insns: two(9, 5)}, true},
		{"one map for two", Program{Insns: two(3, 4)}, Program{Insns: two(3, 3)}, false},
		{"another offset in the value", Program{Insns: wide(pseudoMapValue, 3, 16)}, Program{Insns: wide(pseudoMapValue, 3, 24)}, false},
		{"an index for an fd", Program{Insns: wide(pseudoMapFD, 3, 0)}, Program{Insns: wide(pseudoMapIdx, 1, 0), FDArray: fdArray(8, 7)}, true},
		{"an index for an fd in a value", Program{Insns: wide(pseudoMapValue, 3, 8)}, Program{Insns: wide(pseudoMapIdxValue, 0, 8), FDArray: fdArray(8)}, true},
		{"index and fd of one map", Program{Insns: program(wide(pseudoMapFD, 7, 0), wide(pseudoMapIdx, 1, 0)), FDArray: fdArray(8, 7)},
			Program{Insns: program(wide(pseudoMapFD, 1, 0), wide(pseudoMapFD, 1, 0))}, true},
		{"map and value", Program{Insns: wide(pseudoMapFD, 3, 0)}, Program{Insns: wide(pseudoMapValue, 3, 0)}, false},
		{"functions in another order", Program{Insns: ab}, Program{Insns: ba}, true},
		{"the other function", Program{Insns: program(callTo(1), exit(), mov(1), exit(), mov(2), exit())},
			Program{Insns: program(callTo(3), exit(), mov(1), exit(), mov(2), exit())}, false},
		{"an address for a call", Program{Insns: program(callTo(1), exit(), mov(1), exit())},
			Program{Insns: program(wide(pseudoFunc, 2, 0), exit(), mov(1), exit())}, false},
		{"kfuncs by other indexes", Program{Insns: program(kfunc(1, 5), kfunc(2, 6)), FDArray: fdArray(0, 8, 9)},
			Program{Insns: program(kfunc(2, 5), kfunc(1, 6)), FDArray: fdArray(0, 3, 4)}, true},
		{"a kfunc of the kernel", Program{Insns: kfunc(0, 5)}, Program{Insns: kfunc(1, 5), FDArray: fdArray(0, 4)}, false},
		{"another kfunc", Program{Insns: kfunc(0, 5)}, Program{Insns: kfunc(0, 6)}, false},
		{"a kfunc of another module", Program{Insns: kfunc(1, 5), FDArray: fdArray(0, 4), BTFName: named(map[int32]string{4: "xfs"})},
			Program{Insns: kfunc(1, 5), FDArray: fdArray(0, 4), BTFName: named(map[int32]string{4: "nf_nat"})}, false},
		{"two fds of a module", Program{Insns: program(kfunc(1, 5), kfunc(2, 6)), FDArray: fdArray(0, 4, 5), BTFName: named(map[int32]string{4: "xfs", 5: "xfs"})},
			Program{Insns: program(kfunc(1, 5), kfunc(1, 6)), FDArray: fdArray(0, 4), BTFName: named(map[int32]string{4: "xfs"})}, true},
		{"a variable of a module", Program{Insns: wide(pseudoBTFID, 7, 3)}, Program{Insns: wide(pseudoBTFID, 7, 4)}, true},
		{"a variable of the kernel", Program{Insns: wide(pseudoBTFID, 7, 0)}, Program{Insns: wide(pseudoBTFID, 7, 4)}, false},
		{"the kernel's BTF by an fd", Program{Insns: wide(pseudoBTFID, 7, 0)}, Program{Insns: wide(pseudoBTFID, 7, 4), BTFName: named(map[int32]string{4: "vmlinux"})}, true},
		{"another variable", Program{Insns: wide(pseudoBTFID, 7, 0)}, Program{Insns: wide(pseudoBTFID, 8, 0)}, false},
		{"a helper", Program{Insns: ins(call, 0, 0, 0, 1)}, Program{Insns: ins(call, 0, 0, 0, 2)}, false},
		{"dead functions", Program{Insns: program(exit(), callTo(1), exit(), callTo(-3), exit())},
			Program{Insns: program(exit(), callTo(1), exit(), callTo(-4), exit())}, false},
	} {
		if got := Of(&c.a) == Of(&c.b); got != c.same {
			t.Errorf("%s: same is %v, wanted %v", c.name, got, c.same)
		}
		for _, p := range []*Program{&c.a, &c.b} {
			if Of(p) == rawOf(p) {
				t.Errorf("%s: a program has a raw digest", c.name)
			}
		}
	}
}

// rawOf is the digest that the instructions would have if they were none.
func rawOf(p *Program) Sum {
	w := newWalk(p)
	return w.raw()
}

func TestRaw(t *testing.T) {
	many := func(part func(i int32) []byte, n int32) (b []byte) {
		for i := range n {
			b = append(b, part(i)...)
		}
		return b
	}
	functions := func(n int32) []byte { // each calls the one behind it
		return append(many(func(int32) []byte { return callTo(0) }, n-1), exit()...)
	}
	loads := func(n int32) []byte { return many(func(i int32) []byte { return wide(pseudoMapFD, i, 0) }, n) }
	variables := func(n int32) []byte { return many(func(i int32) []byte { return wide(pseudoBTFID, 1, i+1) }, n) }
	for _, c := range []struct {
		name  string
		p     Program
		isRaw bool
	}{
		{"nothing", Program{}, true},
		{"no whole instruction", Program{Insns: exit()[:7]}, true},
		{"a half", Program{Insns: wide(0, 1, 2)[:8]}, true},
		{"a half that is something", Program{Insns: program(ins(ldImm64, 0, 0, 0, 0), exit())}, true},
		{"a call behind the end", Program{Insns: program(callTo(1), exit())}, true},
		{"a call before the beginning", Program{Insns: program(callTo(-2), exit())}, true},
		{"the largest call", Program{Insns: program(callTo(1<<31-1), exit())}, true},
		{"a call into an instruction", Program{Insns: program(callTo(1), wide(0, 1, 2), exit())}, true},
		{"an address behind the end", Program{Insns: wide(pseudoFunc, 1, 0)}, true},
		{"no fd_array", Program{Insns: wide(pseudoMapIdx, 0, 0)}, true},
		{"an index behind fd_array", Program{Insns: wide(pseudoMapIdx, 1, 0), FDArray: fdArray(1)}, true},
		{"an index before fd_array", Program{Insns: wide(pseudoMapIdx, -1, 0), FDArray: fdArray(1)}, true},
		{"a negative index of a kfunc", Program{Insns: kfunc(-1, 0), FDArray: fdArray(1)}, true},
		{"as many functions as there may be", Program{Insns: functions(maxFuncs)}, false},
		{"more", Program{Insns: functions(maxFuncs + 1)}, true},
		{"as many maps as there may be", Program{Insns: loads(maxMaps)}, false},
		{"more", Program{Insns: loads(maxMaps + 1)}, true},
		{"as many BTFs as there may be", Program{Insns: variables(maxBTFs)}, false},
		{"more", Program{Insns: variables(maxBTFs + 1)}, true},
	} {
		if got := Of(&c.p) == rawOf(&c.p); got != c.isRaw {
			t.Errorf("%s: raw is %v, wanted %v", c.name, got, c.isRaw)
		}
	}
}

// random makes a program with functions, maps, kernel functions and variables, each fd
// by the function given; and says which bits are of fds.
func random(r *rand.Rand, mapFD, btfFD func(int) int32) (p Program, isFD map[int]bool) {
	isFD = map[int]bool{}
	funcs := 1 + r.IntN(5)
	var bodies [][]byte
	type ref struct{ at, to int }
	var refs []ref
	var starts []int
	at := 0
	kf := 1 + r.IntN(3)
	p.FDArray = fdArray(0)
	for i := range kf {
		p.FDArray = append(p.FDArray, fdArray(btfFD(i))...)
	}
	for f := range funcs {
		starts = append(starts, at)
		var b []byte
		add := func(in []byte) { b = append(b, in...); at += len(in) / size }
		for range 1 + r.IntN(10) {
			switch r.IntN(7) {
			case 0:
				for bit := range 32 {
					isFD[(at*size+4)*8+bit] = true
				}
				isFD[at*size*8+14] = true // whether it is the fd or its index
				add(wide(pseudoMapFD+byte(r.IntN(2)), mapFD(r.IntN(4)), 0))
			case 1:
				for bit := range 16 {
					isFD[(at*size+2)*8+bit] = true
				}
				add(kfunc(int16(1+r.IntN(kf)), r.Int32()))
			case 2:
				for bit := range 32 {
					isFD[(at*size+size+4)*8+bit] = true
				}
				add(wide(pseudoBTFID, r.Int32(), btfFD(r.IntN(kf))))
			case 3:
				refs = append(refs, ref{at, r.IntN(funcs)})
				add(callTo(0))
			default:
				add(mov(r.Int32()))
			}
		}
		if f+1 < funcs { // each is named once at least
			refs = append(refs, ref{at, f + 1})
			add(callTo(0))
		}
		add(exit())
		bodies = append(bodies, b)
	}
	p.Insns = slices.Concat(bodies...)
	for _, x := range refs {
		p.at(x.at).setImm(int32(starts[x.to] - x.at - 1))
	}
	return p, isFD
}

func TestProperties(t *testing.T) {
	for seed := range uint64(300) {
		make := func(mapFD, btfFD func(int) int32) (Program, map[int]bool) {
			return random(rand.New(rand.NewPCG(seed, 1)), mapFD, btfFD)
		}
		p, isFD := make(func(i int) int32 { return int32(3 + i) }, func(i int) int32 { return int32(30 + i) })
		want := Of(&p)
		if want == rawOf(&p) {
			t.Fatalf("program %d has a raw digest", seed)
		}
		other, _ := make(func(i int) int32 { return int32(90 - 7*i) }, func(i int) int32 { return int32(20 - i) })
		if Of(&other) != want {
			t.Errorf("program %d: other fds make another digest", seed)
		}
		for bit := range len(p.Insns) * 8 {
			if isFD[bit] {
				continue
			}
			p.Insns[bit/8] ^= 1 << (bit % 8)
			if Of(&p) == want {
				t.Fatalf("program %d: bit %d of instruction %d makes no other digest: %x", seed, bit%64, bit/64, p.at(bit/64))
			}
			p.Insns[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func FuzzOf(f *testing.F) {
	for seed := range uint64(8) {
		p, _ := random(rand.New(rand.NewPCG(seed, 2)), func(i int) int32 { return int32(i) }, func(i int) int32 { return int32(i) })
		f.Add(p.Insns, p.FDArray)
	}
	f.Fuzz(func(t *testing.T, insns, array []byte) {
		before := bytes.Clone(insns)
		p := Program{Insns: insns, FDArray: array}
		sum := Of(&p)
		if !bytes.Equal(before, insns) {
			t.Fatal("the program is another now")
		}
		if sum != Of(&p) {
			t.Fatal("another digest the second time")
		}
		p.Insns = append(before, exit()...)
		if Of(&p) == sum {
			t.Fatal("one more instruction makes no other digest")
		}
	})
}

func BenchmarkOf(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"2k", 2000}, {"1M", 1_000_000}} {
		var insns []byte
		for i := 0; len(insns)/size < c.n-8; i++ { // eight at a time
			to, at := 8*(i%60), 8*i+3
			insns = append(insns, slices.Concat(wide(pseudoMapFD, int32(i%50), 0), ins(call, 0, 0, 0, 1), callTo(int32(to-at-1)), mov(1), mov(2), mov(3), mov(4))...)
		}
		p := Program{Insns: append(insns, exit()...)}
		if Of(&p) == rawOf(&p) {
			b.Fatal("a raw digest")
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(p.Insns)))
			b.ReportAllocs()
			for b.Loop() {
				Of(&p)
			}
		})
	}
}
