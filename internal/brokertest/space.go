// Package brokertest has what tests of the steps share: a target whose memory and
// fds are made up, so that a step can be tested alone, without root and without
// a kernel; and a TestMain that finds what a test leaves behind.
package brokertest

import (
	"slices"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// PageSize is the size of a page of a Space.
const PageSize = 4096

// Space is a target's memory: pages that are there or aren't. It counts how
// often each byte is read, and remembers what is written. The zero Space is
// empty.
type Space struct {
	pages map[uint64]*page
	next  uint64 // where Alloc puts the next thing

	Written []Span // by Write, in order
}

type page struct {
	data     [PageSize]byte
	reads    [PageSize]uint8
	readOnly bool
}

// Span is a range of addresses.
type Span struct{ Addr, Len uint64 }

// Has says whether the span holds the address; it may wrap around.
func (s Span) Has(addr uint64) bool { return addr-s.Addr < s.Len }

// Map makes the n bytes at addr, and the rest of their pages, accessible.
func (s *Space) Map(addr, n uint64) {
	if s.pages == nil {
		s.pages = map[uint64]*page{}
	}
	if n == 0 {
		return
	}
	for p := addr / PageSize; p <= (addr+n-1)/PageSize; p++ {
		if s.pages[p] == nil {
			s.pages[p] = &page{}
		}
	}
}

// Protect makes the page of addr read-only.
func (s *Space) Protect(addr uint64) {
	if p := s.pages[addr/PageSize]; p != nil {
		p.readOnly = true
	}
}

// Unmap takes the page of addr away.
func (s *Space) Unmap(addr uint64) { delete(s.pages, addr/PageSize) }

// Put maps memory at addr and copies data there.
func (s *Space) Put(addr uint64, data []byte) {
	s.Map(addr, uint64(len(data)))
	for i, b := range data {
		a := addr + uint64(i)
		s.pages[a/PageSize].data[a%PageSize] = b
	}
}

// AtEnd puts data where the last byte is the last of its page, and nothing
// comes behind. It returns the address.
func (s *Space) AtEnd(data []byte) uint64 {
	pages := uint64(len(data)+PageSize-1)/PageSize + 1 // one stays away
	if s.next == 0 {
		s.next = 0x7f00_0000_0000
	}
	end := s.next + (pages-1)*PageSize
	s.next += pages * PageSize
	addr := end - uint64(len(data))
	s.Put(addr, data)
	return addr
}

// Get returns a copy of the memory, without counting it as read; nil where some
// of it isn't there.
func (s *Space) Get(addr, n uint64) []byte {
	out := []byte{}
	for uint64(len(out)) < n {
		a := addr + uint64(len(out))
		p := s.pages[a/PageSize]
		if p == nil {
			return nil
		}
		at := a % PageSize
		out = append(out, p.data[at:min(PageSize, at+n-uint64(len(out)))]...)
	}
	return out
}

// Read is process_vm_readv of one piece: what comes before the first page that
// isn't there, EFAULT where that is nothing.
func (s *Space) Read(addr uint64, b []byte) (int, sys.Errno) {
	for n := 0; n < len(b); {
		a := addr + uint64(n)
		p := s.pages[a/PageSize]
		if p == nil {
			if n == 0 {
				return 0, sys.EFAULT
			}
			return n, 0
		}
		at := a % PageSize
		got := copy(b[n:], p.data[at:])
		for i := range got {
			if p.reads[at+uint64(i)] < 0xff {
				p.reads[at+uint64(i)]++
			}
		}
		n += got
	}
	return len(b), 0
}

// ReadAll is process_vm_readv of several pieces. Where not all of it is there,
// what has been copied is unknown: it is made nonsense.
func (s *Space) ReadAll(segs []sys.Segment) bool {
	for _, g := range segs {
		if s.Get(g.Addr, uint64(len(g.Data))) != nil {
			continue
		}
		for _, g := range segs {
			for i := range min(len(g.Data), PageSize) {
				g.Data[i] = 0xa5
			}
		}
		return false
	}
	for _, g := range segs {
		s.Read(g.Addr, g.Data)
	}
	return true
}

// Write is sys.Memory.Write.
func (s *Space) Write(addr uint64, b []byte) (int, sys.Errno) {
	n := 0
	for n < len(b) {
		a := addr + uint64(n)
		p := s.pages[a/PageSize]
		if p == nil || p.readOnly {
			break
		}
		n += copy(p.data[a%PageSize:], b[n:])
	}
	if n > 0 {
		s.Written = append(s.Written, Span{addr, uint64(n)})
	}
	if n == 0 && len(b) > 0 {
		return 0, sys.EFAULT
	}
	return n, 0
}

// Forget makes all of it unread and unwritten.
func (s *Space) Forget() {
	for _, p := range s.pages {
		p.reads = [PageSize]uint8{}
	}
	s.Written = nil
}

// Clear takes all memory away.
func (s *Space) Clear() { *s = Space{} }

// TooOften returns the addresses that were read more often than spans cover
// them, ascending: read twice, or read although nothing describes them.
func (s *Space) TooOften(spans []Span) []uint64 {
	var out []uint64
	for n, p := range s.pages {
		base := n * PageSize
		var begin, end [PageSize + 1]int // of spans, by byte
		for _, v := range spans {
			switch {
			case v.Has(base):
				begin[0]++
				end[min(PageSize, v.Len-(base-v.Addr))]++
			case v.Addr-base < PageSize:
				begin[v.Addr-base]++
				end[v.Addr-base+min(PageSize-(v.Addr-base), v.Len)]++
			}
		}
		covered := 0
		for i, count := range p.reads {
			covered += begin[i] - end[i]
			if int(count) > covered {
				out = append(out, base+uint64(i))
			}
		}
	}
	slices.Sort(out)
	return out
}
