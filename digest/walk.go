package digest

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
)

// walk is what is found on the way through a program.
type walk struct {
	*Program
	n       int   // instructions
	starts  []int // of the functions, ascending
	ordinal []int // of the function at that index of starts, -1: not named yet
	ordered []int // indexes of starts, in the canonical order
	maps    map[int32]int32
	btfs    map[int32]int // the ordinal by fd
	names   []string      // of the BTFs but the kernel's, by ordinal - 1
	hash    hash.Hash
	buf     []byte
}

func newWalk(p *Program) *walk {
	return &walk{Program: p, n: len(p.Insns) / size, starts: []int{0}, maps: map[int32]int32{}, btfs: map[int32]int{}}
}

// functions finds where functions begin. False: this is no program.
func (w *walk) functions() bool {
	if w.n == 0 || len(w.Insns)%size != 0 {
		return false
	}
	last := 0 // where the last one leads; most in a row lead to the same
	for i := 0; i < w.n; i++ {
		in := w.at(i)
		if to, is := target(in, i); is {
			if to < 0 || to >= w.n {
				return false
			}
			if to != last {
				if at, found := slices.BinarySearch(w.starts, to); !found {
					if len(w.starts) == maxFuncs {
						return false
					}
					w.starts = slices.Insert(w.starts, at, to)
				}
				last = to
			}
		}
		if in.code() != ldImm64 {
			continue
		}
		if i++; i == w.n {
			return false
		}
		if half := w.at(i); half.code() != 0 || half[1] != 0 || half.off() != 0 {
			return false
		}
	}
	return w.apart()
}

// apart says that no function begins in the middle of an instruction.
func (w *walk) apart() bool {
	next := 0
	for i := 0; i < w.n && next < len(w.starts); i++ {
		if w.starts[next] == i {
			next++
		}
		if w.at(i).code() == ldImm64 {
			i++
		}
	}
	return next == len(w.starts)
}

// target is where instruction i leads, if it names a function.
func target(in insn, i int) (int, bool) {
	switch {
	case in.code() == call && in.src() == pseudoCall, in.code() == ldImm64 && in.src() == pseudoFunc:
		return i + 1 + int(in.imm()), true
	}
	return 0, false
}

// bounds are the instructions of the function at index f of starts.
func (w *walk) bounds(f int) (from, to int) {
	if f+1 < len(w.starts) {
		return w.starts[f], w.starts[f+1]
	}
	return w.starts[f], w.n
}

// raw is the digest of what is no program.
func (w *walk) raw() (s Sum) {
	h := sha256.New()
	h.Write([]byte(rawDomain))
	h.Write(w.Insns)
	h.Sum(s[:0])
	return s
}

// order puts the functions into their canonical order.
func (w *walk) order() {
	w.ordinal = make([]int, len(w.starts))
	for i := range w.ordinal {
		w.ordinal[i] = -1
	}
	w.place(0)
	for done := 0; done < len(w.ordered) && len(w.ordered) < len(w.starts); done++ {
		from, to := w.bounds(w.ordered[done])
		for i := from; i < to; i++ {
			in := w.at(i)
			if at, is := target(in, i); is {
				f, _ := slices.BinarySearch(w.starts, at)
				w.place(f)
			}
			if in.code() == ldImm64 {
				i++
			}
		}
	}
	for f := range w.starts {
		w.place(f)
	}
}

func (w *walk) place(f int) {
	if w.ordinal[f] < 0 {
		w.ordinal[f] = len(w.ordered)
		w.ordered = append(w.ordered, f)
	}
}

// chunk is how many bytes are hashed at a time.
const chunk = 4 << 10

// write hashes the program. False: it names what isn't there, or too much.
func (w *walk) write() bool {
	w.order()
	w.hash = sha256.New()
	w.buf = append(make([]byte, 0, chunk+64), domain...)
	for _, f := range w.ordered {
		from, to := w.bounds(f)
		w.number(to - from)
		for i := from; i < to; i++ {
			at := len(w.buf)
			w.buf = append(w.buf, w.at(i)...)
			in := insn(w.buf[at:])
			switch in.code() {
			case call:
				if !w.normalCall(in, i) {
					return false
				}
			case ldImm64:
				i++
				w.buf = append(w.buf, w.at(i)...)
				if !w.normalLoad(insn(w.buf[at:at+size]), insn(w.buf[at+size:]), i-1) {
					return false
				}
			}
			w.flush(chunk)
		}
	}
	w.number(len(w.names))
	for _, name := range w.names {
		w.number(len(name))
		w.buf = append(w.buf, name...)
		w.flush(chunk)
	}
	w.flush(1)
	return true
}

func (w *walk) number(n int) { w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(n)) }

// flush hashes what there is, if it is that much.
func (w *walk) flush(much int) {
	if len(w.buf) >= much {
		w.hash.Write(w.buf)
		w.buf = w.buf[:0]
	}
}

// normalCall normalises a call, instruction i.
func (w *walk) normalCall(in insn, i int) bool {
	switch in.src() {
	case pseudoCall:
		in.setImm(w.function(in, i))
	case pseudoKfunc:
		if in.off() == 0 {
			return true
		}
		fd, ok := w.indexed(int32(in.off()))
		if !ok {
			return false
		}
		n := w.btf(fd)
		in.setOff(n)
		return n >= 0
	}
	return true
}

// normalLoad normalises the two halves of a load of 64 bits, of which the first is
// instruction i.
func (w *walk) normalLoad(in, half insn, i int) bool {
	switch src := in.src(); src {
	case pseudoFunc:
		in.setImm(w.function(in, i))
	case pseudoMapFD, pseudoMapValue:
		return w.mapLoad(in, in.imm())
	case pseudoMapIdx, pseudoMapIdxValue:
		in.setSrc(src - pseudoMapIdx + pseudoMapFD)
		fd, ok := w.indexed(in.imm())
		return ok && w.mapLoad(in, fd)
	case pseudoBTFID:
		if half.imm() == 0 {
			return true
		}
		n := w.btf(half.imm())
		half.setImm(int32(n))
		return n >= 0
	}
	return true
}

// function is the ordinal of the function that an instruction names.
func (w *walk) function(in insn, i int) int32 {
	to, _ := target(in, i)
	f, _ := slices.BinarySearch(w.starts, to)
	return int32(w.ordinal[f])
}

func (w *walk) mapLoad(in insn, fd int32) bool {
	n, there := w.maps[fd]
	if !there {
		n = int32(len(w.maps))
		w.maps[fd] = n
	}
	in.setImm(n)
	return n < maxMaps
}

// kernelBTF is the name of the kernel's own BTF.
const kernelBTF = "vmlinux"

// btf is the ordinal of the BTF of an fd; negative: there are too many.
func (w *walk) btf(fd int32) int {
	n, there := w.btfs[fd]
	if there {
		return n
	}
	if len(w.btfs) == maxBTFs {
		return -1
	}
	name := ""
	if w.BTFName != nil {
		name = w.BTFName(fd)
	}
	switch at := slices.Index(w.names, name); {
	case name == kernelBTF:
		n = 0
	case name != "" && at >= 0:
		n = at + 1
	default:
		w.names = append(w.names, name)
		n = len(w.names)
	}
	w.btfs[fd] = n
	return n
}

// indexed is the fd at an index of fd_array.
func (w *walk) indexed(i int32) (int32, bool) {
	const fdSize = 4
	if i < 0 || int(i) >= len(w.FDArray)/fdSize {
		return 0, false
	}
	return int32(binary.LittleEndian.Uint32(w.FDArray[int(i)*fdSize:])), true
}
