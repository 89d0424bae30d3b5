package loader

import (
	"encoding/binary"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The layout of the virtual addresses: region i begins at base + i*span. Bits 63 and 55
// are set, so that on no architecture, tagged pointers included, an address of user space
// looks like it; and bit 62 isn't, so that it is none of the kernel's on x86-64. Like the
// kernel's it is negative as a number.
const (
	base uint64 = 0xbf80_0000_0000_0000
	span uint64 = 1 << 32
	// lead is where a region's bytes begin. Before and behind them is nothing, as far as
	// an instruction's offset reaches.
	lead uint64 = 1 << 30
	// most is how long a region may be, for that.
	most = 1 << 31
)

// The regions of a run: the context, the stack frames, then of each map its value and
// what may be read of its struct bpf_map.
const (
	regionCtx   = 0
	regionStack = 1
	regionMaps  = regionStack + MaxFrames
)

type region struct {
	data     []byte
	readOnly bool
}

func addrOf(n int) uint64 { return base + uint64(n)*span + lead }

// Memory is what a program sees, by its virtual addresses.
type Memory struct{ regions []region }

// Has says whether addr is one of the addresses among which a program's memory lies,
// whether or not there is memory. An address of user space is none.
func (m *Memory) Has(addr uint64) bool { return addr-base < uint64(len(m.regions))*span }

// from is the memory from addr to the end of its region, nil where there is none.
func (m *Memory) from(addr uint64) (b []byte, readOnly bool) {
	if !m.Has(addr) {
		return nil, false
	}
	r := &m.regions[(addr-base)/span]
	off := (addr-base)%span - lead // wraps around before the region's first byte
	if off >= uint64(len(r.data)) {
		return nil, false
	}
	return r.data[off:], r.readOnly
}

// at is the n bytes at addr, nil where they aren't all within one region.
func (m *Memory) at(addr uint64, n int, write bool) []byte {
	b, readOnly := m.from(addr)
	if len(b) < n || readOnly && write {
		return nil
	}
	return b[:n:n]
}

// Read copies memory at addr to p. It returns how many bytes came before the first that
// isn't there, and EFAULT where that is none.
func (m *Memory) Read(addr uint64, p []byte) (int, sys.Errno) {
	b, _ := m.from(addr)
	n := copy(p, b)
	if n == 0 && len(p) > 0 {
		return 0, sys.EFAULT
	}
	return n, 0
}

// ReadAll does the same for several pieces, all or (false) perhaps nothing.
func (m *Memory) ReadAll(segs []sys.Segment) bool {
	for _, s := range segs {
		if n, _ := m.Read(s.Addr, s.Data); n < len(s.Data) {
			return false
		}
	}
	return true
}

// Write copies p to memory at addr. It returns how many bytes went before the first that
// can't be written, and EFAULT where that is none.
func (m *Memory) Write(addr uint64, p []byte) (int, sys.Errno) {
	b, readOnly := m.from(addr)
	if readOnly {
		b = nil
	}
	n := copy(b, p)
	if n == 0 && len(p) > 0 {
		return 0, sys.EFAULT
	}
	return n, 0
}

// get is the number in b, which is 1, 2, 4 or 8 bytes long.
func get(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func put(b []byte, v uint64) {
	switch len(b) {
	case 1:
		b[0] = uint8(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
}
