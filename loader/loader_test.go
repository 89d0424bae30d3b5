package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// raw is an instruction as the kernel has it.
func raw(code, dst, src uint8, off int16, imm int32) []byte {
	b := make([]byte, insnSize)
	b[0], b[1] = code, dst|src<<4
	binary.LittleEndian.PutUint16(b[2:], uint16(off))
	binary.LittleEndian.PutUint32(b[4:], uint32(imm))
	return b
}

func join(insns ...[]byte) []byte { return bytes.Join(insns, nil) }

const (
	mov = 0xb7 // BPF_ALU64 | BPF_MOV | BPF_K
	add = 0x07 // BPF_ALU64 | BPF_ADD | BPF_K
	ja  = 0x05
	jeq = 0x15
	ldw = 0x61 // BPF_LDX | BPF_MEM | BPF_W
	stw = 0x62 // BPF_ST | BPF_MEM | BPF_W
)

var exit = raw(0x95, 0, 0, 0, 0)

func call(helper int32) []byte { return raw(0x85, 0, 0, 0, helper) }

// env is one that does nothing, and counts.
type env struct {
	calls []string
	sys   func(cmd abi.Command, attr uint64, size uint32, m *Memory) (int, error)
}

func (e *env) SysBPF(cmd abi.Command, attr uint64, size uint32, m *Memory) (int, error) {
	e.calls = append(e.calls, fmt.Sprintf("bpf %d %d", cmd, size))
	if e.sys != nil {
		return e.sys(cmd, attr, size, m)
	}
	return 100 + len(e.calls), nil
}

func (e *env) SysClose(fd int32) sys.Errno {
	e.calls = append(e.calls, fmt.Sprintf("close %d", fd))
	return 0
}

func (e *env) BTFFind(name string, kind uint32) (uint32, int32, sys.Errno) {
	e.calls = append(e.calls, fmt.Sprintf("find %s %d", name, kind))
	if name != "known" {
		return 0, 0, sys.ENOENT
	}
	return 7, 9, 0
}

func (e *env) KallsymsLookup(string) (uint64, sys.Errno) { return 0, sys.ENOENT }

func (e *env) ReadUser(addr uint64, p []byte) (int, sys.Errno) {
	if addr < 4096 {
		return 0, sys.EFAULT
	}
	for i := range p {
		p[i] = byte(addr) + byte(i)
	}
	return len(p), 0
}

// blob is the instruction that sets a register to an address in map 0's value.
func blob(reg uint8, off int32) []byte {
	return join(raw(ldImm64, reg, pseudoMapIdxValue, 0, 0), raw(0, 0, 0, 0, off))
}

func runs(t *testing.T, ctx []byte, e *env, insns ...[]byte) (uint32, error) {
	t.Helper()
	p, err := Parse(join(insns...))
	if err != nil {
		t.Fatal(err)
	}
	maps := make([]Map, len(p.Maps()))
	for i := range maps {
		maps[i].Value = make([]byte, 64)
		copy(maps[i].Value, "known\x00")
	}
	return p.Run(ctx, maps, e)
}

// TestRefused: what can't be interpreted isn't parsed.
func TestRefused(t *testing.T) {
	for what, insns := range map[string][]byte{
		"":                         {},
		"a piece of one":           raw(mov, 0, 0, 0, 0)[:7],
		"no exit":                  raw(mov, 0, 0, 0, 0),
		"jump out":                 join(raw(ja, 0, 0, 5, 0), exit),
		"jump back out":            join(raw(ja, 0, 0, -2, 0), exit),
		"jump into a second half":  join(raw(ja, 0, 0, 1, 0), raw(ldImm64, 1, 0, 0, 1), raw(0, 0, 0, 0, 0), exit),
		"half of two":              join(exit, raw(ldImm64, 1, 0, 0, 1)),
		"second half with a code":  join(raw(ldImm64, 1, 0, 0, 1), raw(5, 0, 0, 0, 0), exit),
		"register 11":              join(raw(mov, 11, 0, 0, 0), exit),
		"from register 15":         join(raw(0xbf, 0, 15, 0, 0), exit),
		"to the frame pointer":     join(raw(mov, 10, 0, 0, 0), exit),
		"load to it":               join(raw(ldw, 10, 1, 0, 0), exit),
		"helper 5":                 join(call(5), exit),
		"helper -1":                join(call(-1), exit),
		"kernel function":          join(raw(0x85, 0, 2, 0, 166), exit),
		"callback":                 join(raw(ldImm64, 1, 4, 0, 0), raw(0, 0, 0, 0, 0), exit),
		"variable of the kernel's": join(raw(ldImm64, 1, 3, 0, 0), raw(0, 0, 0, 0, 0), exit),
		"packet":                   join(raw(0x20, 0, 0, 0, 0), exit),
		"call out":                 join(raw(0x85, 0, 1, 0, 9), exit),
		"atomic byte":              join(raw(0xd3, 10, 1, -8, 0), exit),
		"indirect jump":            join(raw(0x0d, 1, 0, 0, 0), exit),
	} {
		if _, err := Parse(insns); err == nil {
			t.Errorf("%s is parsed", what)
		}
	}
	var many [][]byte
	for i := range int32(MaxMaps + 1) {
		many = append(many, raw(ldImm64, 1, pseudoMapFD, 0, i), raw(0, 0, 0, 0, 0))
	}
	if _, err := Parse(join(append(many, exit)...)); err == nil {
		t.Error("too many maps are parsed")
	}
}

// TestBounds: a run that does too much, or goes where nothing is, ends with an error.
func TestBounds(t *testing.T) {
	loop := func(body []byte) []byte { return join(body, raw(ja, 0, 0, int16(-len(body)/insnSize-1), 0), exit) }
	for what, c := range map[string]struct {
		insns []byte
		err   string
	}{
		"for ever":               {loop(raw(mov, 0, 0, 0, 0)), "instructions"},
		"call itself":            {join(raw(0x85, 0, 1, 0, -1), exit), "deep"},
		"many helpers":           {loop(join(raw(mov, 1, 0, 0, 0), call(168))), "helpers"},
		"many calls":             {loop(join(raw(mov, 1, 0, 0, 0), blob(2, 0), raw(mov, 3, 0, 0, 8), call(166))), "bpf()"},
		"behind the context":     {join(raw(ldw, 0, 1, 16, 0), exit), ErrContext.Error()},
		"over its end":           {join(raw(ldw, 0, 1, 14, 0), exit), ErrContext.Error()},
		"before it":              {join(raw(ldw, 0, 1, -1, 0), exit), "none"},
		"above the stack":        {join(raw(stw, 10, 0, 0, 1), exit), "none"},
		"below the stack":        {join(raw(stw, 10, 0, -516, 1), exit), "none"},
		"behind a value":         {join(blob(2, 61), raw(ldw, 0, 2, 0, 0), exit), "none"},
		"at NULL":                {join(raw(mov, 2, 0, 0, 0), raw(ldw, 0, 2, 0, 0), exit), "none"},
		"at -1":                  {join(raw(mov, 2, 0, 0, -1), raw(ldw, 0, 2, 0, 0), exit), "none"},
		"into a struct bpf_map":  {join(raw(ldImm64, 2, pseudoMapIdx, 0, 0), raw(0, 0, 0, 0, 0), raw(stw, 2, 0, 0, 1), exit), "none"},
		"a frame that is gone":   {join(raw(0x85, 0, 1, 0, 2), raw(ldw, 0, 0, -8, 0), exit, raw(0xbf, 0, 10, 0, 0), exit), "none"},
		"attribute over the end": {join(raw(mov, 1, 0, 0, 0), blob(2, 0), raw(mov, 3, 0, 0, 65), call(166), exit), "no memory"},
		"attribute of no bytes":  {join(raw(mov, 1, 0, 0, 0), blob(2, 0), raw(mov, 3, 0, 0, 0), call(166), exit), "no memory"},
		"a name of -1 bytes":     {join(blob(1, 0), raw(mov, 2, 0, 0, -1), raw(mov, 3, 0, 0, 4), raw(mov, 4, 0, 0, 0), call(167), exit), "name"},
		"copy to nowhere":        {join(raw(mov, 1, 0, 0, 8), raw(mov, 2, 0, 0, 8), raw(mov, 3, 0, 0, 8192), call(148), exit), "no memory"},
		"copy too much":          {join(blob(1, 0), raw(mov, 2, 0, 0, -1), raw(mov, 3, 0, 0, 8192), call(148), exit), "copied"},
	} {
		_, err := runs(t, make([]byte, 16), &env{}, c.insns)
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, wanted an error with %q", what, err, c.err)
		}
	}
	p, err := Parse(join(raw(mov, 0, 0, 0, 0), exit))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(make([]byte, 65536), nil, &env{}); err == nil {
		t.Error("a context that is too long is taken")
	}
	if _, err := p.Run(nil, make([]Map, 1), &env{}); err == nil {
		t.Error("more maps than it names are taken")
	}
}

// TestHelpers: what helpers are told, and what they return.
func TestHelpers(t *testing.T) {
	e := &env{}
	ctx := make([]byte, 32)
	stop := errors.New("stop")
	ret, err := runs(t, ctx, e,
		raw(0xbf, 6, 1, 0, 0),
		raw(mov, 1, 0, 0, 5), blob(2, 8), raw(mov, 3, 0, 0, 16), call(166), raw(0x63, 6, 0, 0, 0),
		raw(mov, 1, 0, 0, 10), blob(2, 8), raw(mov, 3, 0, 0, 16), call(166), raw(0x63, 6, 0, 4, 0), // PROG_TEST_RUN isn't for loaders
		blob(1, 0), raw(mov, 2, 0, 0, 6), raw(mov, 3, 0, 0, 4), raw(mov, 4, 0, 0, 0), call(167), raw(0x7b, 6, 0, 8, 0),
		blob(1, 1), raw(mov, 2, 0, 0, 5), raw(mov, 3, 0, 0, 4), raw(mov, 4, 0, 0, 0), call(167), raw(0x63, 6, 0, 16, 0),
		blob(1, 0), raw(mov, 2, 0, 0, 5), raw(mov, 3, 0, 0, 4), raw(mov, 4, 0, 0, 0), call(167), raw(0x63, 6, 0, 20, 0), // no NUL
		blob(1, 32), raw(mov, 2, 0, 0, 4), raw(mov, 3, 0, 0, 1), call(148), raw(0x63, 6, 0, 24, 0), // from NULL
		blob(1, 32), raw(mov, 2, 0, 0, 4), raw(mov, 3, 0, 0, 4097), call(148),
		blob(2, 32), raw(ldw, 0, 2, 0, 0), raw(0x63, 6, 0, 28, 0),
		raw(mov, 1, 0, 0, 33), call(168), raw(mov, 0, 0, 0, 42), exit)
	if err != nil || ret != 42 {
		t.Fatalf("returned %d, %v", ret, err)
	}
	if got, want := fmt.Sprint(e.calls), "[bpf 5 16 find known 4 find nown 4 close 33]"; got != want {
		t.Errorf("calls %s, wanted %s", got, want)
	}
	word := func(at int) int32 { return int32(binary.LittleEndian.Uint32(ctx[at:])) }
	for at, want := range map[int]int32{0: 101, 4: -int32(sys.EINVAL), 8: 7, 12: 9, 16: -int32(sys.ENOENT), 20: -int32(sys.EINVAL), 24: -int32(sys.EFAULT), 28: 0x04030201} {
		if got := word(at); got != want {
			t.Errorf("word %d of the context: %#x, wanted %#x", at, got, want)
		}
	}
	e.sys = func(abi.Command, uint64, uint32, *Memory) (int, error) { return 0, stop }
	if _, err := runs(t, ctx, e, raw(mov, 1, 0, 0, 5), blob(2, 8), raw(mov, 3, 0, 0, 16), call(166), exit); !errors.Is(err, stop) {
		t.Errorf("%v doesn't end the run", err)
	}
}

// TestMemory: what a call reads and writes behind a program's addresses.
func TestMemory(t *testing.T) {
	e := &env{}
	e.sys = func(_ abi.Command, attr uint64, _ uint32, m *Memory) (int, error) {
		p := make([]byte, 100)
		if n, errno := m.Read(attr, p); n != 56 || errno != 0 || string(p[:2]) != "\x00\x00" {
			t.Errorf("read %d bytes, %v", n, errno)
		}
		if n, errno := m.Write(attr+50, make([]byte, 10)); n != 6 || errno != 0 {
			t.Errorf("wrote %d bytes, %v", n, errno)
		}
		for _, addr := range []uint64{attr + 56, attr - 9, 0, 4096, ^uint64(0), 1 << 63, attr + span, attr - span, base, base - 1} {
			if n, errno := m.Read(addr, p); errno != sys.EFAULT && addr != attr+span && addr != attr-span {
				t.Errorf("read %d bytes at %#x, %v", n, addr, errno)
			}
			if n, errno := m.Write(addr, p[:1]); addr < base && errno != sys.EFAULT {
				t.Errorf("wrote %d bytes at %#x, %v", n, addr, errno)
			}
		}
		if m.Has(0) || m.Has(0x7fff_ffff_f000) || m.Has(^uint64(0)) || !m.Has(attr) {
			t.Error("addresses of user space are taken for the program's")
		}
		if m.ReadAll([]sys.Segment{{Addr: attr, Data: p[:56]}, {Addr: attr + 50, Data: p[:10]}}) {
			t.Error("read all of what isn't there")
		}
		return 0, nil
	}
	if _, err := runs(t, nil, e, raw(mov, 1, 0, 0, 5), blob(2, 8), raw(mov, 3, 0, 0, 16), call(166), exit); err != nil {
		t.Error(err)
	}
}

// TestAgainstKernel runs random programs in the kernel and here.
func TestAgainstKernel(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
	const programs, size = 400, 64
	accepted := 0
	for seed := range uint64(programs) {
		insns := random(rand.New(rand.NewPCG(seed, 1)))
		spec := &ebpf.ProgramSpec{Type: ebpf.Syscall, License: "GPL", Flags: 1 << 4 /* BPF_F_SLEEPABLE */, Instructions: decoded(t, insns)}
		prog, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
		if err != nil {
			continue
		}
		accepted++
		ctx := make([]byte, size)
		for i := range ctx {
			ctx[i] = byte(seed) ^ byte(i*37)
		}
		native := bytes.Clone(ctx)
		want, err := prog.Run(&ebpf.RunOptions{Context: native, ContextOut: native})
		prog.Close()
		if err != nil {
			// ContextOut isn't taken for this type: the kernel writes to Context itself.
			t.Fatalf("seed %d: %v", seed, err)
		}
		p, err := Parse(insns)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := p.Run(ctx, nil, &env{})
		if err != nil || got != want || !bytes.Equal(ctx, native) {
			t.Errorf("seed %d: returned %#x, %v, wanted %#x\ncontext %x\nwanted  %x\n%v", seed, got, err, want, ctx, native, decoded(t, insns))
		}
	}
	if accepted < programs*3/4 {
		t.Errorf("the kernel accepted %d of %d programs", accepted, programs)
	}
}

func decoded(t *testing.T, insns []byte) asm.Instructions {
	t.Helper()
	out, err := asm.AppendInstructions(nil, bytes.NewReader(insns), binary.LittleEndian, "linux")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// random is a program without loops, on the context (64 bytes) and its stack.
func random(r *rand.Rand) []byte {
	var body [][]byte
	reg := func() uint8 { return uint8(r.IntN(6)) } // r0 to r5; r6 is the context
	body = append(body, raw(0xbf, 6, 1, 0, 0))
	for i := range uint8(6) {
		body = append(body, raw(ldImm64, i, 0, 0, int32(r.Uint32())), raw(0, 0, 0, 0, int32(r.Uint32())))
	}
	for i := range int16(8) {
		body = append(body, raw(0x7a, 10, 0, -8*(i+1), int32(r.Uint32())))
	}
	ops := []uint8{aluADD, aluSUB, aluMUL, aluDIV, aluOR, aluAND, aluLSH, aluRSH, aluMOD, aluXOR, aluMOV, aluARSH}
	jumps := []uint8{jmpJEQ, jmpJGT, jmpJGE, jmpJSET, jmpJNE, jmpJSGT, jmpJSGE, jmpJLT, jmpJLE, jmpJSLT, jmpJSLE}
	sizes := []uint8{0x00, 0x08, 0x10, 0x18} // BPF_W, _H, _B, _DW
	widths := []int16{4, 2, 1, 8}
	for n := 20 + r.IntN(60); n > 0; n-- {
		class := []uint8{classALU, classALU64}[r.IntN(2)]
		bits := map[uint8]int32{classALU: 32, classALU64: 64}[class]
		k := r.IntN(len(sizes))
		place := func(area int16) int16 { return widths[k] * int16(r.IntN(int(area/widths[k]))) }
		switch r.IntN(10) {
		case 0, 1, 2: // with a register
			op, off := ops[r.IntN(len(ops))], int16(0)
			switch {
			case op == aluDIV || op == aluMOD:
				off = int16(r.IntN(2))
			case op == aluMOV && r.IntN(2) == 0:
				off = []int16{8, 16, 32}[r.IntN(int(bits/32)+1)]
			}
			body = append(body, raw(class|op|srcX, reg(), reg(), off, 0))
		case 3, 4: // with a number
			op, imm, off := ops[r.IntN(len(ops))], int32(r.Uint32()), int16(0)
			switch op {
			case aluLSH, aluRSH, aluARSH:
				imm = int32(r.IntN(int(bits)))
			case aluDIV, aluMOD:
				imm |= 1
				off = int16(r.IntN(2))
			}
			body = append(body, raw(class|op, reg(), 0, off, imm))
		case 5:
			switch r.IntN(3) {
			case 0:
				body = append(body, raw(class|aluNEG, reg(), 0, 0, 0))
			case 1: // to little or big endian
				body = append(body, raw(classALU|aluEND|uint8(r.IntN(2))*srcX, reg(), 0, 0, []int32{16, 32, 64}[r.IntN(3)]))
			default: // bswap
				body = append(body, raw(classALU64|aluEND, reg(), 0, 0, []int32{16, 32, 64}[r.IntN(3)]))
			}
		case 6: // load, perhaps with sign
			mode := uint8(modeMEM)
			if k < 3 && r.IntN(2) == 0 {
				mode = modeMEMSX
			}
			if r.IntN(2) == 0 {
				mode = modeMEM // the context has no signed loads
				body = append(body, raw(classLDX|mode|sizes[k], reg(), 6, place(64), 0))
			} else {
				body = append(body, raw(classLDX|mode|sizes[k], reg(), fp, -64+place(64), 0))
			}
		case 7: // store
			if r.IntN(2) == 0 {
				body = append(body, raw(classSTX|modeMEM|sizes[k], 6, reg(), place(64), 0))
			} else {
				body = append(body, raw(classST|modeMEM|sizes[k], fp, 0, -64+place(64), int32(r.Uint32())))
			}
		case 8: // atomic
			k = []int{0, 3}[r.IntN(2)]
			op := []int32{aluADD, aluOR, aluAND, aluXOR, aluADD | atomicFetch, aluOR | atomicFetch, aluAND | atomicFetch, aluXOR | atomicFetch, atomicXCHG, atomicCMPXCHG}[r.IntN(10)]
			body = append(body, raw(classSTX|modeATOMIC|sizes[k], fp, reg(), -64+place(64), op))
		case 9: // over the next instruction, which doesn't jump
			class := []uint8{classJMP, classJMP32}[r.IntN(2)]
			op := jumps[r.IntN(len(jumps))]
			if r.IntN(2) == 0 {
				body = append(body, raw(class|op|srcX, reg(), reg(), 1, 0))
			} else {
				body = append(body, raw(class|op, reg(), 0, 1, int32(r.Uint32())))
			}
			body = append(body, raw(classALU64|aluXOR, reg(), 0, 0, int32(r.Uint32())))
		}
	}
	for i := range uint8(5) { // what came of it
		body = append(body, raw(0x7b, 6, i+1, int16(i)*8, 0))
	}
	return join(append(body, exit)...)
}

// FuzzRun: whatever the instructions are, a run comes to an end, and harms nobody.
func FuzzRun(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(random(rand.New(rand.NewPCG(seed, 1))), []byte("context"))
	}
	f.Add(join(blob(2, 0), raw(mov, 1, 0, 0, 5), raw(mov, 3, 0, 0, 16), call(166), blob(1, 0), raw(mov, 2, 0, 0, 8), blob(3, 8), call(113), exit), []byte{})
	f.Fuzz(func(t *testing.T, insns, ctx []byte) {
		p, err := Parse(insns)
		if err != nil {
			return
		}
		maps := make([]Map, len(p.Maps()))
		for i := range maps {
			maps[i].Value = make([]byte, 48)
		}
		e := &env{sys: func(_ abi.Command, attr uint64, size uint32, m *Memory) (int, error) {
			b := make([]byte, size%4096)
			m.Read(attr, b)
			m.Write(attr, b)
			return int(size), nil
		}}
		if _, err := p.Run(ctx[:min(len(ctx), maxCtx)], maps, e); err == nil && len(e.calls) > MaxCalls {
			t.Error("too many calls")
		}
	})
}
