package loader

import "fmt"

const (
	// MaxSteps is how many instructions a run may execute. The verifier follows no more
	// than BPF_COMPLEXITY_LIMIT_INSNS, 1,000,000, and loaders have no loop, so that a
	// verified one executes less. It takes some 10 ms.
	MaxSteps = 1_000_000
	// MaxFrames is MAX_CALL_FRAMES, how deep functions may call each other.
	MaxFrames = 8
	// stackSize is MAX_BPF_STACK. The verifier wants all frames together to be no more.
	stackSize = 512
	// maxCtx is what BPF_PROG_TEST_RUN takes as ctx_size_in (U16_MAX).
	maxCtx = 65535
)

// run is one run of a program.
type run struct {
	insns []insn
	mapOf map[MapRef]int
	maps  []Map
	mem   *Memory
	env   Env

	reg     [11]uint64
	frames  []frame // callers
	stack   [MaxFrames][stackSize]byte
	calls   int
	sysBPFs int
	copied  uint64
}

// frame is what a function that calls another finds again.
type frame struct {
	saved [5]uint64 // r6 to r10
	pc    int       // of the call
}

// The regions of map i.
func valueOf(i int) int  { return regionMaps + 2*i }
func structOf(i int) int { return regionMaps + 2*i + 1 }

// Run interprets the program: with ctx, which it changes in place, and maps, which are
// those of Maps in the same order. An error means that the program did what no verified
// program does, that it reached a bound, or that env said so. What it did before that is
// done.
func (p *Program) Run(ctx []byte, maps []Map, env Env) (uint32, error) {
	if len(ctx) > maxCtx {
		return 0, fmt.Errorf("context of %d bytes, the kernel takes %d", len(ctx), maxCtx)
	}
	if len(maps) != len(p.maps) {
		return 0, fmt.Errorf("%d maps for a program that names %d", len(maps), len(p.maps))
	}
	r := &run{insns: p.insns, mapOf: p.mapOf, maps: maps, env: env}
	r.mem = &Memory{regions: make([]region, regionMaps+2*len(maps))}
	r.mem.regions[regionCtx].data = ctx
	for i := range maps {
		if len(maps[i].Value) > most {
			return 0, fmt.Errorf("map value of %d bytes, at most %d", len(maps[i].Value), most)
		}
		r.mem.regions[valueOf(i)].data = maps[i].Value
		r.mem.regions[structOf(i)] = region{data: maps[i].Hash[:], readOnly: true}
	}
	r.reg[1] = addrOf(regionCtx)
	r.enter()
	return r.interpret()
}

// enter gives the function that begins a stack frame.
func (r *run) enter() {
	n := len(r.frames)
	clear(r.stack[n][:])
	r.mem.regions[regionStack+n].data = r.stack[n][:]
	r.reg[fp] = addrOf(regionStack+n) + stackSize
}

func (r *run) interpret() (uint32, error) {
	for pc, steps := 0, 0; ; steps++ {
		if steps == MaxSteps {
			return 0, fmt.Errorf("more than %d instructions", MaxSteps)
		}
		in := r.insns[pc]
		var err error
		switch in.class() {
		case classALU, classALU64:
			r.reg[in.dst] = alu(in, r.reg[in.dst], r.operand(in))
		case classLD:
			r.reg[in.dst] = r.wide(in, r.insns[pc+1])
			pc++
		case classLDX:
			err = r.load(in)
		case classST:
			err = r.store(in, uint64(in.imm))
		case classSTX:
			if in.mode() == modeATOMIC {
				err = r.atomic(in)
			} else {
				err = r.store(in, r.reg[in.src])
			}
		case classJMP, classJMP32:
			switch op := in.op(); {
			case op == jmpEXIT:
				if len(r.frames) == 0 {
					return uint32(r.reg[0]), nil
				}
				pc = r.leave()
			case op == jmpCALL && in.src == 0:
				r.reg[0], err = r.call(in.imm, [5]uint64(r.reg[1:6]))
			case op == jmpCALL:
				if err = r.callFunction(pc); err == nil {
					pc, _ = target(pc, in)
					continue
				}
			case op == jmpJA || taken(in, r.reg[in.dst], r.operand(in)):
				pc, _ = target(pc, in)
				continue
			}
		}
		if err != nil {
			return 0, fmt.Errorf("insn %d (code %#02x): %w", pc, in.code, err)
		}
		pc++ // Parse has seen to it that there is one
	}
}

// operand is the second one of an ALU instruction or a jump.
func (r *run) operand(in insn) uint64 {
	if in.x() {
		return r.reg[in.src]
	}
	return uint64(in.imm)
}

// wide is a 64-bit immediate, whose second half is next.
func (r *run) wide(in, next insn) uint64 {
	switch in.src {
	case pseudoMapFD, pseudoMapIdx:
		return addrOf(structOf(r.mapOf[MapRef{in.src == pseudoMapIdx, in.imm}]))
	case pseudoMapValue, pseudoMapIdxValue:
		return addrOf(valueOf(r.mapOf[MapRef{in.src == pseudoMapIdxValue, in.imm}])) + uint64(uint32(next.imm))
	}
	return uint64(uint32(in.imm)) | uint64(uint32(next.imm))<<32
}

func (r *run) load(in insn) error {
	addr := r.reg[in.src] + uint64(in.off)
	b := r.mem.at(addr, in.size(), false)
	if b == nil {
		return fmt.Errorf("load of %d bytes at %#x, where the program has none", in.size(), addr)
	}
	v := get(b)
	if in.mode() == modeMEMSX {
		v = extend(int16(8*in.size()), v)
	}
	r.reg[in.dst] = v
	return nil
}

// stored is the memory that a store or an atomic operation goes to.
func (r *run) stored(in insn) ([]byte, error) {
	addr := r.reg[in.dst] + uint64(in.off)
	b := r.mem.at(addr, in.size(), true)
	if b == nil {
		return nil, fmt.Errorf("store of %d bytes at %#x, where the program has none", in.size(), addr)
	}
	return b, nil
}

func (r *run) store(in insn, v uint64) error {
	b, err := r.stored(in)
	if err == nil {
		put(b, v)
	}
	return err
}

// atomic is an atomic operation, for which there is nothing to do: nobody else looks at
// the memory.
func (r *run) atomic(in insn) error {
	if in.imm == atomicLoadAcq {
		return r.load(in)
	}
	if in.imm == atomicStRel {
		return r.store(in, r.reg[in.src])
	}
	b, err := r.stored(in)
	if err != nil {
		return err
	}
	old, v := get(b), r.reg[in.src]
	switch in.imm &^ atomicFetch {
	case aluADD:
		put(b, old+v)
	case aluOR:
		put(b, old|v)
	case aluAND:
		put(b, old&v)
	case aluXOR:
		put(b, old^v)
	case atomicXCHG &^ atomicFetch:
		put(b, v)
	default: // atomicCMPXCHG
		expected := r.reg[0]
		if in.size() == 4 {
			expected = uint64(uint32(expected))
		}
		if old == expected {
			put(b, v)
		}
		r.reg[0] = old
		return nil
	}
	if in.imm&atomicFetch != 0 {
		r.reg[in.src] = old
	}
	return nil
}

// callFunction begins the function that the instruction at pc calls.
func (r *run) callFunction(pc int) error {
	if len(r.frames) == MaxFrames-1 {
		return fmt.Errorf("functions are called more than %d deep", MaxFrames)
	}
	r.frames = append(r.frames, frame{[5]uint64(r.reg[6:]), pc})
	clear(r.reg[6:])
	r.enter()
	return nil
}

// leave ends a function, and returns where it was called from. Its stack frame is gone.
func (r *run) leave() int {
	n := len(r.frames)
	r.mem.regions[regionStack+n].data = nil
	f := r.frames[n-1]
	r.frames = r.frames[:n-1]
	copy(r.reg[6:], f.saved[:])
	return f.pc
}
