// Package btfnames finds names of the kernel's types by their ids: of functions,
// tracepoints and structures that programs name by BTF.
//
// A worker can't read /sys/kernel/btf, and the kernel's own BTF is large (5 MB and more).
// So an index is made of it once, which all workers of a host map: for each type where
// its name is, and the names. A module's BTF is small, and whoever has its fd can read it.
// It builds on the kernel's own: its types' ids and its strings go on where those end.
package btfnames

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// BTF's header and types: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
const (
	magic     = 0xeb9f
	minHeader = 24
	typeSize  = 12 // struct btf_type
	// maxTypes and maxStrings are BTF_MAX_TYPE and BTF_MAX_NAME_OFFSET, of the kernel's
	// own and a module's together.
	maxTypes   = 1 << 20
	maxStrings = 1 << 24
)

var errMalformed = errors.New("malformed BTF")

// parts are the types and the strings of BTF data.
func parts(raw []byte) (types, strings []byte, err error) {
	if len(raw) < minHeader || binary.LittleEndian.Uint16(raw) != magic {
		return nil, nil, errMalformed
	}
	u32 := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(raw[at:])) }
	part := func(at int) ([]byte, bool) {
		from := u32(4) + u32(at) // behind the header
		to := from + u32(at+4)
		if to > uint64(len(raw)) {
			return nil, false
		}
		return raw[from:to], true
	}
	types, ok1 := part(8)
	strings, ok2 := part(16)
	if !ok1 || !ok2 || len(strings) > maxStrings {
		return nil, nil, errMalformed
	}
	return types, strings, nil
}

// sizeOf is how long the type is that b begins with; 0: it is none.
func sizeOf(b []byte) int {
	if len(b) < typeSize {
		return 0
	}
	n, members := typeSize, int(binary.LittleEndian.Uint16(b[4:]))
	switch b[7] & 0x1f {
	case 1, 14, 17: // BTF_KIND_INT, _VAR, _DECL_TAG
		n += 4
	case 3: // _ARRAY
		n += 12
	case 4, 5, 15, 19: // _STRUCT, _UNION, _DATASEC, _ENUM64
		n += 12 * members
	case 6, 13: // _ENUM, _FUNC_PROTO
		n += 8 * members
	case 2, 7, 8, 9, 10, 11, 12, 16, 18: // _PTR, _FWD, _TYPEDEF, qualifiers, _FUNC, _FLOAT, _TYPE_TAG
	default:
		return 0
	}
	if n > len(b) {
		return 0
	}
	return n
}

// The index: a head of 16 bytes (mark, number of types with that of id 0, bytes of the
// names), the offset of each type's name, the names. All numbers have 32 bits,
// little-endian.
const (
	mark     = "bpfn\x01\x00\x00\x00"
	headSize = len(mark) + 8
)

// Index makes the index of the kernel's own BTF.
func Index(raw []byte) ([]byte, error) {
	types, strings, err := parts(raw)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	out := append([]byte(mark), make([]byte, 8)...)
	out = le.AppendUint32(out, 0) // id 0 is void
	count := 1
	for len(types) > 0 {
		n := sizeOf(types)
		if n == 0 || count == maxTypes {
			return nil, errMalformed
		}
		out = append(out, types[:4]...)
		types = types[n:]
		count++
	}
	le.PutUint32(out[len(mark):], uint32(count))
	le.PutUint32(out[len(mark)+4:], uint32(len(strings)))
	return append(out, strings...), nil
}

// Names finds names by an index. It may be used by many threads.
type Names struct {
	offsets, strings []byte
}

// Open returns the names of an index, which mustn't change.
func Open(index []byte) (*Names, error) {
	rest, ok := bytes.CutPrefix(index, []byte(mark))
	if !ok || len(rest) < 8 {
		return nil, errors.New("no index of BTF names")
	}
	count, size := int64(binary.LittleEndian.Uint32(rest)), int64(binary.LittleEndian.Uint32(rest[4:]))
	rest = rest[8:]
	if count > maxTypes || 4*count+size != int64(len(rest)) {
		return nil, errors.New("an index of BTF names that isn't as long as it says")
	}
	return &Names{offsets: rest[:4*count], strings: rest[4*count:]}, nil
}

// Name is the name of a type of the kernel's.
func (n *Names) Name(id uint32) (string, error) {
	if int64(id) >= int64(len(n.offsets)/4) {
		return "", fmt.Errorf("the kernel has no type %d", id)
	}
	return named(n.strings, binary.LittleEndian.Uint32(n.offsets[4*id:]), id)
}

// InModule is the name of a type in a module's BTF, or of one of the kernel's that it
// builds on.
func (n *Names) InModule(raw []byte, id uint32) (string, error) {
	if int64(id) < int64(len(n.offsets)/4) {
		return n.Name(id)
	}
	types, strings, err := parts(raw)
	if err != nil {
		return "", err
	}
	at, found := find(types, int(id)-len(n.offsets)/4)
	switch {
	case !found:
		return "", fmt.Errorf("the module has no type %d", id)
	case int64(at) < int64(len(n.strings)):
		return named(n.strings, at, id)
	}
	return named(strings, at-uint32(len(n.strings)), id)
}

// Of is the name of a type in BTF that builds on no other: a program's.
func Of(raw []byte, id uint32) (string, error) {
	types, strings, err := parts(raw)
	if err != nil {
		return "", err
	}
	at, found := find(types, int(id)-1)
	if !found {
		return "", fmt.Errorf("there is no type %d", id)
	}
	return named(strings, at, id)
}

// find is where the name of the n-th type is.
func find(types []byte, n int) (offset uint32, found bool) {
	if n < 0 {
		return 0, false
	}
	for {
		size := sizeOf(types)
		if size == 0 {
			return 0, false
		}
		if n == 0 {
			return binary.LittleEndian.Uint32(types), true
		}
		types = types[size:]
		n--
	}
}

// named is the string at an offset, which is the name of type id.
func named(strings []byte, at, id uint32) (string, error) {
	const maxName = 512 // KSYM_NAME_LEN
	if int64(at) < int64(len(strings)) {
		rest := strings[at:min(int(at)+maxName, len(strings))]
		if end := bytes.IndexByte(rest, 0); end > 0 {
			return string(rest[:end]), nil
		}
	}
	return "", fmt.Errorf("type %d has no name", id)
}
