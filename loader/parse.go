package loader

import (
	"errors"
	"fmt"
)

const (
	// MaxInsns is BPF_COMPLEXITY_LIMIT_INSNS, the most instructions that BPF_PROG_LOAD
	// takes.
	MaxInsns = 1_000_000
	// MaxMaps is MAX_USED_MAPS, the most maps that the verifier lets a program name.
	MaxMaps = 64
)

// Program is a loader program as it was given to BPF_PROG_LOAD, checked. It doesn't
// change, and several goroutines may run it.
type Program struct {
	insns []insn
	maps  []MapRef
	mapOf map[MapRef]int // index in maps
}

// MapRef is how instructions name a map.
type MapRef struct {
	Index bool  // N is an index into fd_array; else it is an fd
	N     int32 // as it was when the program was loaded
}

// Maps returns the maps that the program names, each once.
func (p *Program) Maps() []MapRef { return p.maps }

// Parse checks instructions as far as Run relies on it. A program that it takes jumps
// to instructions only, names no register that isn't there, and has no instruction that
// Run doesn't know; the instruction at fault is named as the verifier counts.
func Parse(code []byte) (*Program, error) {
	n := len(code) / insnSize
	if n == 0 || len(code)%insnSize != 0 || n > MaxInsns {
		return nil, fmt.Errorf("%d bytes: want instructions of %d bytes, from 1 to %d", len(code), insnSize, MaxInsns)
	}
	p := &Program{insns: make([]insn, n), mapOf: map[MapRef]int{}}
	second := make([]bool, n) // second half of an instruction of 16 bytes
	for i := range n {
		p.insns[i] = decode(code[i*insnSize:])
	}
	for i := 0; i < n; i++ {
		in := p.insns[i]
		if err := p.check(i, in); err != nil {
			return nil, fmt.Errorf("insn %d (code %#02x): %w", i, in.code, err)
		}
		if in.code == ldImm64 {
			i++
			second[i] = true
		}
	}
	for i, in := range p.insns {
		if second[i] {
			continue
		}
		if to, jumps := target(i, in); jumps && (to < 0 || to >= n || second[to]) {
			return nil, fmt.Errorf("insn %d (code %#02x): jumps to %d, which is no instruction", i, in.code, to)
		}
	}
	if last := p.insns[n-1]; second[n-1] || !ends(last) {
		return nil, fmt.Errorf("insn %d (code %#02x): the last is neither exit nor jump", n-1, last.code)
	}
	return p, nil
}

// target is the instruction that the i-th may go to beside the next one. It can't
// overflow: i is at most MaxInsns.
func target(i int, in insn) (to int, jumps bool) {
	switch in.class() {
	case classJMP:
		switch in.op() {
		case jmpEXIT:
			return 0, false
		case jmpCALL:
			return i + 1 + int(in.imm), in.src == pseudoCall
		}
	case classJMP32:
		if in.op() == jmpJA { // gotol
			return i + 1 + int(in.imm), true
		}
	default:
		return 0, false
	}
	return i + 1 + int(in.off), true
}

// ends says whether an instruction never goes to the next one.
func ends(in insn) bool {
	switch in.class() {
	case classJMP:
		return in.op() == jmpEXIT || in.op() == jmpJA
	case classJMP32:
		return in.op() == jmpJA
	}
	return false
}

func (p *Program) check(i int, in insn) error {
	if in.dst > fp || in.src > fp {
		return fmt.Errorf("no register r%d", max(in.dst, in.src))
	}
	if in.dst == fp && writesDst(in) {
		return fmt.Errorf("writes to r%d", fp)
	}
	switch in.class() {
	case classALU, classALU64:
		return checkALU(in)
	case classJMP, classJMP32:
		return checkJump(in)
	case classLD:
		return p.checkWide(i, in)
	}
	return checkMemory(in)
}

// writesDst says whether dst is a result. For a store it is an address.
func writesDst(in insn) bool {
	switch in.class() {
	case classALU, classALU64, classLD, classLDX:
		return true
	case classSTX:
		return in.mode() == modeATOMIC && in.imm == atomicLoadAcq
	}
	return false
}

var errUnknown = errors.New("no instruction that loaders have")

func checkALU(in insn) error {
	wide := in.class() == classALU64
	ok := false
	switch in.op() {
	case aluADD, aluSUB, aluMUL, aluOR, aluAND, aluLSH, aluRSH, aluXOR, aluARSH:
		ok = in.off == 0
	case aluNEG:
		ok = in.off == 0 && !in.x()
	case aluDIV, aluMOD:
		ok = in.off == 0 || in.off == 1 // signed
	case aluMOV:
		switch in.off {
		case 0:
			ok = true
		case 8, 16:
			ok = in.x()
		case 32:
			ok = in.x() && wide
		}
	case aluEND:
		// With BPF_ALU64 it is bswap, and BPF_TO_BE must not be set.
		ok = in.off == 0 && (in.imm == 16 || in.imm == 32 || in.imm == 64) && !(wide && in.x())
	}
	if !ok {
		return errUnknown
	}
	return nil
}

func checkJump(in insn) error {
	wide := in.class() == classJMP
	ok := false
	switch in.op() {
	case jmpJA:
		ok = !in.x() // with BPF_X it is gotox
	case jmpJEQ, jmpJGT, jmpJGE, jmpJSET, jmpJNE, jmpJSGT, jmpJSGE, jmpJLT, jmpJLE, jmpJSLT, jmpJSLE:
		ok = true
	case jmpJCOND:
		ok = wide && !in.x() && in.src == 0
	case jmpEXIT:
		ok = wide && !in.x()
	case jmpCALL:
		switch {
		case !wide || in.x():
		case in.src == pseudoCall:
			ok = true
		case in.src == 0:
			if helpers[in.imm] == nil {
				return fmt.Errorf("calls helper %d, which loaders don't use", in.imm)
			}
			ok = true
		case in.src == 2: // BPF_PSEUDO_KFUNC_CALL
			return fmt.Errorf("calls kfunc %d, and loaders call none", in.imm)
		}
	}
	if !ok {
		return errUnknown
	}
	return nil
}

// checkWide checks an instruction of 16 bytes, and notes the map that it names.
func (p *Program) checkWide(i int, in insn) error {
	if in.code != ldImm64 {
		return errUnknown
	}
	if i+1 == len(p.insns) || p.insns[i+1].code != 0 {
		return errors.New("has no second half")
	}
	ref := MapRef{N: in.imm}
	switch in.src {
	case 0:
		return nil
	case pseudoMapFD, pseudoMapValue:
	case pseudoMapIdx, pseudoMapIdxValue:
		ref.Index = true
	default:
		return fmt.Errorf("64-bit immediate of kind %d, which loaders don't use", in.src)
	}
	if _, known := p.mapOf[ref]; known {
		return nil
	}
	if len(p.maps) == MaxMaps {
		return fmt.Errorf("names more than %d maps", MaxMaps)
	}
	p.mapOf[ref] = len(p.maps)
	p.maps = append(p.maps, ref)
	return nil
}

func checkMemory(in insn) error {
	ok := false
	switch in.mode() {
	case modeMEM:
		ok = true
	case modeMEMSX:
		ok = in.class() == classLDX && in.size() < 8
	case modeATOMIC:
		ok = in.class() == classSTX && checkAtomic(in)
	}
	if !ok {
		return errUnknown
	}
	return nil
}

func checkAtomic(in insn) bool {
	switch in.imm {
	case atomicLoadAcq, atomicStRel:
		return true
	case aluADD, aluOR, aluAND, aluXOR:
		return in.size() >= 4
	case aluADD | atomicFetch, aluOR | atomicFetch, aluAND | atomicFetch, aluXOR | atomicFetch, atomicXCHG:
		return in.size() >= 4 && in.src != fp // the old value comes to src
	case atomicCMPXCHG:
		return in.size() >= 4
	}
	return false
}
