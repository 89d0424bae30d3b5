package generate

import "fmt"

// The arena is all memory that a request speaks of: its attribute and its buffers.

const (
	// Base is where the arena begins in every process: far from where Go, or the
	// kernel's mmap, puts anything.
	Base = 0x10_0000_0000

	page = 4096
)

// Area is a part of the arena; between areas that aren't adjacent there are pages that
// can't be touched.
type Area struct {
	Name     string
	Start    uint64 // from Base, bytes
	Size     uint64
	Writable bool
}

// Areas are what is mapped of the arena. Read-only memory follows rw without a gap, so
// that an output may begin well and end badly; each edge is a page between two that
// can't be touched.
var Areas = []Area{
	{"rw", 1 * page, 24 * page, true},
	{"ro", 25 * page, 2 * page, false},
	{"edge1", 28 * page, page, true},
	{"edge2", 30 * page, page, true},
	{"edge3", 32 * page, page, true},
	{"edge4", 34 * page, page, true},
}

// Size is that of the whole arena, with the pages that can't be touched.
const Size = 36 * page

func area(name string) Area {
	for _, a := range Areas {
		if a.Name == name {
			return a
		}
	}
	panic("generate: no area " + name)
}

func (a Area) begin() uint64 { return Base + a.Start }
func (a Area) end() uint64   { return Base + a.Start + a.Size }

// Where shows an address: by its area, where it is in one.
func Where(addr uint64) string {
	for _, a := range Areas {
		if addr >= a.begin() && addr < a.end() {
			return fmt.Sprintf("%s+%#x", a.Name, addr-a.begin())
		}
	}
	return fmt.Sprintf("%#x", addr)
}
