package loader

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// fuzzSeeds calls add with programs that are worth starting from.
func fuzzSeeds(f *testing.F, add func(code, ctx, value []byte)) {
	for _, c := range insnCases() {
		add(assemble(f, c.program()), c.context(), nil)
	}
	for n := range uint64(8) {
		insns, ctx, value := generate(1, n, mapFD)
		add(assemble(f, insns), ctx, value)
	}
	for _, name := range loaders {
		l := readLoader(f, name)
		insns := make([]byte, 0)
		for _, in := range l.program.insns {
			insns = append(insns, encode(in)...)
		}
		add(insns, l.ctx, l.data)
	}
	value, ctx := int64(addrOf(valueOf(0))), int64(addrOf(regionCtx))
	for id, args := range map[asm.BuiltinFunc][5]int64{
		asm.FnMapLookupElem:      {int64(addrOf(structOf(0))), ctx},
		asm.FnTracePrintk:        {value, 8},
		asm.FnProbeReadKernel:    {value, 8, ctx},
		asm.FnCopyFromUser:       {value, 8, 0x1000},
		asm.FnSysBpf:             {0, value, 16},
		asm.FnBtfFindByNameKind:  {value, 8, 12, 0},
		asm.FnSysClose:           {3},
		asm.FnKallsymsLookupName: {value, 8, 0, ctx},
	} {
		insns := withMap()
		for i, v := range args {
			insns = append(insns, asm.LoadImm(asm.R1+asm.Register(i), v, asm.DWord))
		}
		add(assemble(f, append(insns, id.Call(), asm.Return())), make([]byte, 16), []byte("symbol\x00\x00and more"))
		add(assemble(f, repeat(3, id, insns...)), make([]byte, 16), make([]byte, 64))
	}
}

// Parse takes anything, and what it takes is a program.
func FuzzParse(f *testing.F) {
	fuzzSeeds(f, func(code, _, _ []byte) { f.Add(code) })
	f.Fuzz(func(t *testing.T, code []byte) {
		p, err := Parse(code)
		if (p == nil) == (err == nil) {
			t.Fatalf("got %v and %v", p, err)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(encode(p.insns...), code) {
			t.Errorf("%x was parsed as %x", code, encode(p.insns...))
		}
		maps := p.Maps()
		if len(maps) > MaxMaps {
			t.Errorf("%d maps", len(maps))
		}
		for i, m := range maps {
			if slices.Index(maps, m) != i {
				t.Errorf("map %v is there twice", m)
			}
		}
	})
}

// tame makes a program of bytes that are none: what is wrong with instructions it sets
// right, and else leaves them as they are.
func tame(code []byte) []byte {
	n := min(len(code)/insnSize, 1<<12)
	p := &Program{insns: make([]insn, n, n+1), mapOf: map[MapRef]int{}}
	second := make([]bool, n+1)
	for i := range n {
		in := decode(code[i*insnSize:])
		in.dst, in.src = in.dst%(fp+1), in.src%(fp+1)
		p.insns[i] = in
	}
	p.insns = append(p.insns, exit)
	for i := 0; i < n; i++ {
		in := &p.insns[i]
		if in.code == ldImm64 && i+1 < n {
			p.insns[i+1].code = 0
		}
		if p.check(i, *in) != nil {
			*in = nop
		}
		if in.code == ldImm64 {
			i++
			second[i] = true
		}
	}
	for i := range n {
		in := &p.insns[i]
		to, jumps := target(i, *in)
		if second[i] || !jumps || to >= 0 && to <= n && !second[to] {
			continue
		}
		if to = int(uint(to) % uint(n+1)); second[to] {
			to++
		}
		if op := in.op(); op == jmpCALL || in.class() == classJMP32 && op == jmpJA {
			in.imm = int32(to - i - 1)
		} else {
			in.off = int16(to - i - 1)
		}
	}
	return encode(p.insns...)
}

// fuzzEnv answers with the bytes that it has, and looks at memory where an attribute says
// so.
type fuzzEnv struct {
	t       *testing.T
	answers []byte
	bpfs    int
}

func (e *fuzzEnv) answer() byte {
	if len(e.answers) == 0 {
		return 0
	}
	b := e.answers[0]
	e.answers = e.answers[1:]
	return b
}

func (e *fuzzEnv) SysBPF(cmd abi.Command, attr uint64, size uint32, mem *Memory) (int, error) {
	if e.bpfs++; e.bpfs > MaxSysBPF || !sysBPFCommands[cmd] || size == 0 {
		e.t.Errorf("call %d: %v, %d bytes", e.bpfs, cmd, size)
	}
	p := make([]byte, min(size, 128))
	if n, errno := mem.Read(attr, p); n < len(p) || errno != 0 {
		e.t.Errorf("read %d bytes of an attribute of %d, %v", n, size, errno)
	}
	if !mem.ReadAll([]sys.Segment{{Addr: attr, Data: p}, {Addr: attr + uint64(size) - 1, Data: p[:1]}}) {
		e.t.Error("can't read the attribute's end")
	}
	for ; len(p) >= 8; p = p[8:] {
		addr := binary.LittleEndian.Uint64(p)
		b := make([]byte, e.answer())
		if n, errno := mem.Read(addr, b); n > 0 && !mem.Has(addr) || n > len(b) || errno != 0 && n > 0 {
			e.t.Errorf("read %d bytes at %#x, %v", n, addr, errno)
		}
		mem.Write(addr, b[:min(len(b), 8)])
	}
	ret := int(int8(e.answer()))
	if ret == -128 {
		return 0, errNotExpected
	}
	return ret, nil
}

func (e *fuzzEnv) SysClose(int32) sys.Errno { return sys.Errno(e.answer()) }

func (e *fuzzEnv) BTFFind(name string, kind uint32) (uint32, int32, sys.Errno) {
	return kind, int32(e.answer()), sys.Errno(e.answer())
}

func (e *fuzzEnv) KallsymsLookup(name string) (uint64, sys.Errno) {
	if len(name) > maxName || bytes.IndexByte([]byte(name), 0) >= 0 {
		e.t.Errorf("asks for %q", name)
	}
	return uint64(len(name)), sys.Errno(e.answer())
}

func (e *fuzzEnv) ReadUser(addr uint64, p []byte) (int, sys.Errno) {
	for i := range p {
		p[i] = byte(addr) + byte(i)
	}
	return min(len(p), int(addr%4096)), sys.Errno(e.answer() % 2)
}

// Run ends, doesn't panic, does the same each time, and writes to nothing but what it was
// given.
func FuzzRun(f *testing.F) {
	fuzzSeeds(f, func(code, ctx, value []byte) { f.Add(code, ctx, value, []byte{3, 0, 0, 4, 255, 0, 5}) })
	f.Fuzz(func(t *testing.T, code, ctx, value, answers []byte) {
		p, err := Parse(code)
		if err != nil {
			if p, err = Parse(tame(code)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, value = ctx[:min(len(ctx), maxCtx)], value[:min(len(value), 1<<16)]
		type result struct {
			ret uint32
			err string
			ctx []byte
		}
		var results [2]result
		var values [2][]byte
		for i := range results {
			// Behind the end there is something that must stay as it is.
			ctxRoom := bytes.Repeat([]byte{0xa5}, len(ctx)+64)
			r := result{ctx: ctxRoom[:copy(ctxRoom, ctx)]}
			valueRoom := bytes.Repeat([]byte{0xa5}, len(value)+64)
			values[i] = valueRoom[:copy(valueRoom, value)]
			maps := make([]Map, len(p.Maps()))
			for n := range maps {
				if n%4 != 3 {
					maps[n].Value = values[i]
				}
				maps[n].Hash[0] = byte(n)
			}
			ret, err := p.Run(r.ctx, maps, &fuzzEnv{t: t, answers: answers})
			if r.ret = ret; err != nil {
				r.err = err.Error()
			}
			results[i] = r
			for _, rest := range [][]byte{ctxRoom[len(ctx):], valueRoom[len(value):]} {
				if len(bytes.Trim(rest, "\xa5")) > 0 {
					t.Errorf("wrote behind the end: %x", rest)
				}
			}
			for n := range maps {
				if maps[n].Hash != [32]byte{byte(n)} {
					t.Errorf("wrote to what is read only: %x", maps[n].Hash)
				}
			}
		}
		if a, b := results[0], results[1]; a.ret != b.ret || a.err != b.err || !bytes.Equal(a.ctx, b.ctx) || !bytes.Equal(values[0], values[1]) {
			t.Errorf("got %v, and then %v", a, b)
		}
	})
}
