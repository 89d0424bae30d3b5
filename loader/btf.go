package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// BTF is type information as the kernel has it (Documentation/bpf/btf.rst), of which
// nothing is known but where its types are.
type BTF struct {
	base    *BTF // what a module's builds on
	first   uint32
	count   uint32
	types   []byte
	strings []byte
	offset  uint32 // of the first string, behind those of the base
}

var errBTF = errors.New("malformed BTF")

const (
	btfMagic  = 0xeb9f
	btfHeader = 24
	btfType   = 12
)

// ParseBTF looks through BTF data: of a module, if base isn't nil.
func ParseBTF(data []byte, base *BTF) (*BTF, error) {
	if len(data) < btfHeader || binary.LittleEndian.Uint16(data) != btfMagic {
		return nil, errBTF
	}
	u32 := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(data[at:])) }
	header := u32(4)
	part := func(at int) []byte {
		from := header + u32(at)
		if to := from + u32(at+4); to <= uint64(len(data)) {
			return data[from:to]
		}
		return nil
	}
	b := &BTF{base: base, first: 1, types: part(8), strings: part(16)}
	if base != nil {
		b.first, b.offset = base.first+base.count, base.offset+uint32(len(base.strings))
	}
	for rest := b.types; len(rest) > 0; b.count++ {
		n := typeSize(rest)
		if n == 0 || n > len(rest) {
			return nil, errBTF
		}
		rest = rest[n:]
	}
	return b, nil
}

// OfModule says whether the types build on the kernel's own.
func (b *BTF) OfModule() bool { return b.base != nil }

// typeSize is how long the type is that b begins with, 0 where there is none.
func typeSize(b []byte) int {
	if len(b) < btfType {
		return 0
	}
	members := int(binary.LittleEndian.Uint16(b[4:]))
	switch kindOf(b) {
	case 1, 14, 17: // BTF_KIND_INT, _VAR, _DECL_TAG
		return btfType + 4
	case 3: // _ARRAY
		return btfType + 12
	case 4, 5, 15, 19: // _STRUCT, _UNION, _DATASEC, _ENUM64
		return btfType + 12*members
	case 6, 13: // _ENUM, _FUNC_PROTO
		return btfType + 8*members
	case 2, 7, 8, 9, 10, 11, 12, 16, 18: // _PTR, _FWD, _TYPEDEF, qualifiers, _FUNC, _FLOAT, _TYPE_TAG
		return btfType
	}
	return 0
}

func kindOf(b []byte) uint32 { return uint32(b[7] & 0x1f) }

// Find returns the id of the first type of that name and kind, without those of the base.
func (b *BTF) Find(name string, kind uint32) (id uint32, found bool) {
	want := []byte(name)
	id = b.first
	for rest := b.types; len(rest) > 0; id++ {
		if kindOf(rest) == kind && b.named(binary.LittleEndian.Uint32(rest), want) {
			return id, true
		}
		rest = rest[typeSize(rest):]
	}
	return 0, false
}

// named says whether the string at an offset is want.
func (b *BTF) named(offset uint32, want []byte) bool {
	if offset < b.offset {
		return b.base.named(offset, want)
	}
	at := uint64(offset - b.offset)
	if at >= uint64(len(b.strings)) {
		return false
	}
	s, ok := bytes.CutPrefix(b.strings[at:], want)
	return ok && len(s) > 0 && s[0] == 0
}
