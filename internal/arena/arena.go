// Package arena is memory for one operation at a time: handed out in pieces,
// taken back all at once, bounded over all operations of a workload.
package arena

import (
	"sync"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

const (
	// slab is the memory that every arena keeps and that isn't counted: enough
	// for nearly all requests.
	slab = 128 << 10
	// large pieces get memory of their own, given back at Reset.
	large = 64 << 10
)

// Budget bounds the memory that many arenas use together, beside their slabs.
type Budget struct {
	mu   sync.Mutex
	free int64
	cond sync.Cond
	size int64
}

// NewBudget returns a budget of n bytes.
func NewBudget(n int64) *Budget {
	b := &Budget{free: n, size: n}
	b.cond.L = &b.mu
	return b
}

// acquire waits until n bytes are free (all of them, if n is more than there is).
func (b *Budget) acquire(n int64) int64 {
	n = min(n, b.size)
	b.mu.Lock()
	for b.free < n {
		b.cond.Wait()
	}
	b.free -= n
	b.mu.Unlock()
	return n
}

func (b *Budget) release(n int64) {
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	b.cond.Broadcast()
}

// Arena hands out memory until Reset. It belongs to one goroutine.
type Arena struct {
	budget   *Budget
	slab     []byte
	at       int
	mappings []sys.Mapping
	held     int64
}

// New returns an arena that draws on budget.
func New(budget *Budget) *Arena { return &Arena{budget: budget, slab: make([]byte, slab)} }

// Reserve waits until the operation may use n bytes beside the slab. It is
// called once, before anything is allocated: an operation that waited for more
// while it holds some could wait for another that does the same.
func (a *Arena) Reserve(n int64) {
	if n > slab/2 {
		a.held += a.budget.acquire(n)
	}
}

// Alloc returns n bytes, not cleared, or nil where there is no memory. Memory
// of 64 KiB and more ends at a page that can't be touched, is zero, and costs
// nothing until it is touched.
func (a *Arena) Alloc(n int) []byte {
	if n < large && a.at+n <= len(a.slab) {
		p := a.slab[a.at : a.at+n : a.at+n]
		a.at += (n + 7) &^ 7
		if a.at > len(a.slab) {
			a.at = len(a.slab)
		}
		return p
	}
	m, e := sys.MapGuarded(max(n, 1))
	if e != 0 {
		return nil
	}
	a.mappings = append(a.mappings, m)
	return m.Bytes[:n]
}

// Zeroed is Alloc, and the memory is zero.
func (a *Arena) Zeroed(n int) []byte {
	p := a.Alloc(n)
	if n < large { // else it is fresh
		clear(p)
	}
	return p
}

// Own makes the arena unmap m at Reset.
func (a *Arena) Own(m sys.Mapping) { a.mappings = append(a.mappings, m) }

// Reset takes everything back.
func (a *Arena) Reset() {
	for _, m := range a.mappings {
		m.Unmap()
	}
	clear(a.mappings)
	a.mappings = a.mappings[:0]
	a.at = 0
	if a.held > 0 {
		a.budget.release(a.held)
		a.held = 0
	}
}
