package generate

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/bpfbroker/bpfbroker/abi"
)

// What attributes are made of: instructions, types, names of the table.

// insn is a struct bpf_insn.
func insn(code, dst, src uint8, off int16, imm int32) []byte {
	var b [8]byte
	b[0], b[1] = code, dst|src<<4
	abi.Put(b[:], 2, 2, uint64(uint16(off)))
	abi.Put(b[:], 4, 4, uint64(uint32(imm)))
	return b[:]
}

func join(insns ...[]byte) []byte { return bytes.Join(insns, nil) }

// returns is a program that returns n.
func returns(n int32) []byte { return join(insn(0xb7, 0, 0, 0, n), exit) }

var exit = insn(0x95, 0, 0, 0, 0)

// loadMap is r1 = a map, in the way that src says.
func loadMap(src uint8, imm, next int32) []byte {
	return join(insn(0x18, 1, src, 0, imm), insn(0, 0, 0, 0, next))
}

// long has a log of many lines.
var long = join(bytes.Repeat(join(insn(0xbf, 2, 1, 0, 0), insn(0x07, 2, 0, 0, 1)), 60), returns(0))

func words(v ...uint32) []byte {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		abi.Put(b, uint32(4*i), 4, uint64(x))
	}
	return b
}

// typesBTF has an int (1), int() (2), and a function main of it (3).
var typesBTF = func() []byte {
	strs := "\x00int\x00main\x00file.c\x00int main() { return 0; }\x00"
	types := words(
		1, 1<<24, 4, 1<<24|32, // BTF_KIND_INT
		0, 13<<24, 1, // BTF_KIND_FUNC_PROTO
		5, 12<<24|1, 2, // BTF_KIND_FUNC, BTF_FUNC_GLOBAL
	)
	head := words(0x0001eb9f, 24, 0, uint32(len(types)), uint32(len(types)), uint32(len(strs)))
	return slices.Concat(head, types, []byte(strs))
}()

func value(v *abi.Values, name string) int {
	n, ok := v.Value(name)
	if !ok {
		panic("generate: no value " + name)
	}
	return int(n)
}

func mapType(name string) int    { return value(abi.MapTypes, name) }
func progType(name string) int   { return value(abi.ProgTypes, name) }
func attachType(name string) int { return value(abi.AttachTypes, name) }

// refName is the name of a Ref to a value that only the process knows.
func refName(v any) string {
	switch v := v.(type) {
	case Value:
		return string(v)
	case ID:
		return "id " + strconv.Itoa(int(v))
	case Before:
		return "id " + strconv.Itoa(int(v))
	case PID:
		return "pid"
	}
	panic("generate: no such reference")
}
