package abi

import (
	"fmt"
	"strings"
)

// Values are the names of an enum's numbers or of a bit set's bits.
type Values struct {
	Kernel string   // enum bpf_map_type; for flags, the field that they belong to
	Prefix string   // what Name cuts off: BPF_MAP_TYPE_
	Names  []string // an enum: by value, "" where there is none
	Bits   []Bit    // flags

	names []string // what Name returns, made once
}

// Bit is one flag.
type Bit struct {
	Kernel string // BPF_F_RDONLY
	Bit    uint64
}

// KernelName returns the kernel's name of an enum's value ("BPF_MAP_TYPE_HASH"),
// or "" if the table knows none.
func (v *Values) KernelName(n uint64) string {
	if n < uint64(len(v.Names)) {
		return v.Names[n]
	}
	return ""
}

// Name returns the name that users see, as the kernel's bpffs options spell it:
// "hash", or "99 /* bpf_map_type? */" for an unknown value.
func (v *Values) Name(n uint64) string {
	if n < uint64(len(v.names)) && v.names[n] != "" {
		return v.names[n]
	}
	return fmt.Sprintf("%d /* %s? */", n, v.Kernel)
}

// Value returns the number that Name calls name.
func (v *Values) Value(name string) (uint64, bool) {
	for i, n := range v.names {
		if n == name && n != "" {
			return uint64(i), true
		}
	}
	return 0, false
}

// enum makes the Values of an enum.
func enum(kernel, prefix string, names ...string) *Values {
	v := &Values{Kernel: kernel, Prefix: prefix, Names: names, names: make([]string, len(names))}
	for i, k := range names {
		v.names[i] = strings.ToLower(strings.TrimPrefix(k, prefix))
	}
	return v
}

// FlagNames lists the names of the bits set in n, and the rest in hexadecimal.
func (v *Values) FlagNames(n uint64) []string { return v.AppendNames(nil, n) }

// AppendNames is FlagNames that appends to a list.
func (v *Values) AppendNames(to []string, n uint64) []string {
	for _, b := range v.Bits {
		if n&b.Bit == b.Bit {
			to = append(to, b.Kernel)
			n &^= b.Bit
		}
	}
	if n != 0 {
		to = append(to, fmt.Sprintf("%#x", n))
	}
	return to
}

func (v *Values) must(kernel string) uint64 {
	for i, k := range v.Names {
		if k == kernel {
			return uint64(i)
		}
	}
	for _, b := range v.Bits {
		if b.Kernel == kernel {
			return b.Bit
		}
	}
	panic("abi: no value " + kernel)
}
