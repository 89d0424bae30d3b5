package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// randomProgram is a program of type raw_tracepoint of r's choice: arithmetic on registers
// that hold numbers, loads from the context and the stack, jumps forward, loops, calls of
// functions and helpers. Most of them load. With asks it asks who runs, too, and forgets it.
func randomProgram(r *rand.Rand, asks bool) []byte {
	var p [][]byte
	add := func(insns ...[]byte) { p = append(p, insns...) }
	var subs []int // instructions that call a function, and which
	scalar := func() uint8 { return []uint8{0, 2, 3, 4, 5, 7, 8}[r.IntN(7)] }
	init := func() {
		for _, reg := range []uint8{0, 2, 3, 4, 5} {
			add(insn(0xb7, reg, 0, 0, r.Int32()))
		}
	}
	add(insn(0xbf, 6, 1, 0, 0), insn(0x7a, 10, 0, -8, r.Int32()), insn(0x7a, 10, 0, -16, r.Int32()))
	init()
	add(insn(0x79, 7, 1, 0, 0), insn(0x79, 8, 1, 8, 0))
	op := func() []byte {
		alu := []uint8{0x00, 0x10, 0x20, 0x40, 0x50, 0xa0, 0xb0, 0x30, 0x90}[r.IntN(9)] // + - * | & ^ = / %
		class := []uint8{7, 4}[r.IntN(2)]
		switch r.IntN(8) {
		case 0:
			return insn(0x79, scalar(), 10, []int16{-8, -16}[r.IntN(2)], 0)
		case 1:
			return insn(0x7b, 10, scalar(), []int16{-8, -16}[r.IntN(2)], 0)
		case 2:
			return insn(0x79, scalar(), 6, []int16{0, 8}[r.IntN(2)], 0)
		case 3:
			return insn(class|0x60, scalar(), 0, 0, int32(r.IntN(31))) // <<
		case 4:
			return insn(class|alu|8, scalar(), scalar(), 0, 0)
		}
		return insn(class|alu, scalar(), 0, 0, r.Int32N(1<<20)+1)
	}
	for range 3 + r.IntN(30) {
		switch r.IntN(10) {
		case 0: // over some
			n := 1 + r.IntN(4)
			if r.IntN(2) == 0 {
				add(insn([]uint8{0x15, 0x55, 0x25, 0xa5, 0x65, 0x16, 0x56}[r.IntN(7)], scalar(), 0, int16(n), r.Int32()))
			} else {
				add(insn([]uint8{0x1d, 0x2d, 0xad, 0x6e}[r.IntN(4)], scalar(), scalar(), int16(n), 0))
			}
			for range n {
				add(op())
			}
		case 1: // some, a few times
			body := [][]byte{op(), op()}
			add(insn(0xb7, 9, 0, 0, int32(1+r.IntN(5))))
			add(body...)
			add(insn(0x17, 9, 0, 0, 1), insn(0x55, 9, 0, -4, 0))
		case 2: // a function
			add(insn(0xbf, 1, scalar(), 0, 0))
			subs = append(subs, len(p))
			add(insn(0x85, 0, 1, 0, 0))
			init()
		case 3: // a helper: bpf_get_current_uid_gid, bpf_get_numa_node_id
			if asks {
				add(insn(0x85, 0, 0, 0, []int32{14, 15}[r.IntN(2)]), insn(0xb7, 7, 0, 0, r.Int32()))
			} else {
				add(insn(0x85, 0, 0, 0, []int32{15, 42}[r.IntN(2)]), insn(0xbf, 7, 0, 0, 0))
			}
			init()
			add(insn(0xbf, 0, 7, 0, 0))
		default:
			add(op())
		}
	}
	add(insn(0xbf, 0, scalar(), 0, 0), exit)
	if len(subs) > 0 {
		n := 1 + r.IntN(2)
		begins := make([]int, n)
		for i := range begins {
			begins[i] = len(p)
			if asks { // from where it has a stack, too
				add(insn(0x7b, 10, 1, -24, 0), insn(0x85, 0, 0, 0, 14), insn(0x79, 1, 10, -24, 0))
			}
			add(insn(0xbf, 0, 1, 0, 0), insn(0x27, 0, 0, 0, r.Int32()), insn(0xa7, 0, 0, 0, r.Int32()), exit)
		}
		for i, at := range subs {
			to := begins[i%n]
			p[at] = insn(0x85, 0, 1, 0, int32(to-at-1))
		}
		for i := range begins { // one that nothing calls would be refused
			if i >= len(subs) {
				p = p[:begins[i]]
				break
			}
		}
	}
	return bytes.Join(p, nil)
}

// nameOf is "ok" or the errno's name.
func nameOf(e sys.Errno) string {
	if e == 0 {
		return "ok"
	}
	return errnoName(e)
}

func init() {
	// Loads programs, runs those that load, and says of each how that went. The log is said
	// as a number.
	probes["scope-random"] = func() {
		seed, err1 := strconv.ParseUint(os.Args[1], 10, 64)
		count, err2 := strconv.Atoi(os.Args[2])
		if err1 != nil || err2 != nil {
			fail("%v, %v", err1, err2)
		}
		r := rand.New(rand.NewPCG(seed, 0))
		for i := range count {
			insns := randomProgram(r, len(os.Args) > 3)
			log := make([]byte, 1<<20)
			fd, e := load(uint32(progType("raw_tracepoint")), "random", insns, 1, log)
			text, _, _ := bytes.Cut(log, []byte{0})
			h := fnv.New32a()
			for line := range bytes.Lines(text) {
				if !bytes.HasPrefix(line, []byte("verification time")) {
					h.Write(line)
				}
			}
			fmt.Printf("%d: %d instructions: %s, log %x", i, len(insns)/8, nameOf(e), h.Sum32())
			if e == 0 {
				for range 3 {
					ctx := words(r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32())
					a := new(attr).u32(0, uint32(fd)).u32(40, uint32(len(ctx))).u64(48, sys.Addr(ctx))
					_, e := bpf(cmdTestRun, a, 80, ctx)
					fmt.Printf(", %s %#x", nameOf(e), binary.NativeEndian.Uint32(a[4:]))
				}
				sys.Close(fd)
			}
			fmt.Println()
		}
	}
}

// TestScopeRandom: with a guard that is always true a program loads whenever it does
// without, with the same log, and gives the same results.
func TestScopeRandom(t *testing.T) {
	needRoot(t)
	t.Run("scope", func(t *testing.T) { compareRandom(t, policyFile(t, scoped)) })
	t.Run("pids", func(t *testing.T) { compareRandom(t, policyFile(t, numbered), "asks") })
}

func compareRandom(t *testing.T, file string, more ...string) {
	t.Helper()
	programs, seed := strconv.Itoa(count("BPFBROKER_RANDOM", 1000)), strconv.Itoa(count("BPFBROKER_SEED", 1))
	run := func(policy string) []string {
		return strings.Split(output(t, brokeredBy(policy, probe("scope-random", append([]string{seed, programs}, more...)...), "--quiet", "--pid=private")), "\n")
	}
	want, got := run("trusted"), run(file)
	if len(got) != len(want) {
		t.Fatalf("%d lines, wanted %d", len(got), len(want))
	}
	loaded := 0
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("with a guard\n%s\nwithout\n%s", got[i], want[i])
		}
		if strings.Contains(want[i], "instructions: ok") {
			loaded++
		}
	}
	if loaded < len(want)/2 {
		t.Errorf("of %d programs %d load: this tells little", len(want)-1, loaded)
	}
}
