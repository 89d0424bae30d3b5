// Package workload knows who is calling and what the workload holds.
package workload

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
)

// Objects are the ids of the maps, programs and BTFs that were made for one
// workload. It is safe for use by many goroutines.
//
// The kernel gives ids out in a circle of 2^31, so an id that it gave us and
// took back doesn't come to mean another's object in any time that matters.
type Objects struct {
	mu  sync.Mutex
	ids map[abi.Object]*idSet
	// living lists the ids of all objects of a kind, ascending; it is asked when a set
	// has doubled since the last time, so that what is gone doesn't pile up.
	living func(kind abi.Object) []uint32
	// kept is shared memory with all that were added, for the next daemon; nil: none.
	kept *kept
}

// kept is a set of objects as it lies in shared memory. What is more than it has
// room for, the next daemon doesn't know of. (Pages that aren't used cost nothing.)
type kept struct {
	layout  uint64 // ledger.Layout of whoever serves the workload
	n       uint64
	objects [1 << 20]uint64 // kind << 32 | id
}

type idSet struct {
	sorted  []uint32 // ascending
	pruneAt int
}

// firstPrune is how many ids of a kind pile up before the first look at which
// are still in use.
const firstPrune = 1024

// NewObjects returns an empty set. living may be nil: nothing is forgotten then.
func NewObjects(living func(abi.Object) []uint32) *Objects {
	return &Objects{ids: map[abi.Object]*idSet{}, living: living}
}

// CreateObjects makes shared memory for a set that is empty.
func CreateObjects() (*os.File, error) {
	f, err := sys.SharedMemory[kept]("bpfbroker-objects")
	if err != nil {
		return nil, fmt.Errorf("make memory for the workload's objects: %w", err)
	}
	k, unmap, err := sys.MapShared[kept](int(f.Fd()))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make memory for the workload's objects: %w", err)
	}
	k.layout = ledger.Layout
	unmap()
	return f, nil
}

// OpenObjects returns the set that is kept in the shared memory at fd, and keeps it
// there. It is an error if the workload's ledger is of another version.
func OpenObjects(fd int, living func(abi.Object) []uint32) (*Objects, error) {
	k, unmap, err := sys.MapShared[kept](fd)
	if err != nil {
		return nil, fmt.Errorf("map the workload's objects: %w", err)
	}
	if v := k.layout; v != ledger.Layout {
		unmap()
		return nil, fmt.Errorf("the workload's ledger is of version %d, not %d: of another version of bpfbroker", v, ledger.Layout)
	}
	o := NewObjects(living)
	for _, v := range k.objects[:min(k.n, uint64(len(k.objects)))] {
		o.add(abi.Object(v>>32), uint32(v))
	}
	o.kept = k
	return o, nil
}

func (k *kept) add(kind abi.Object, id uint32) {
	if k.n < uint64(len(k.objects)) {
		k.objects[k.n] = uint64(kind)<<32 | uint64(id)
		k.n++
	}
}

// forget takes the objects out that were forgotten. If the daemon is killed
// meanwhile, the next one finds some twice, and misses none.
func (o *Objects) forget() {
	k, n := o.kept, uint64(0)
	for _, v := range k.objects[:min(k.n, uint64(len(k.objects)))] {
		if s := o.ids[abi.Object(v>>32)]; s != nil {
			if _, there := slices.BinarySearch(s.sorted, uint32(v)); there {
				k.objects[n] = v
				n++
			}
		}
	}
	k.n = n
}

// Add notes that the workload holds the object.
func (o *Objects) Add(kind abi.Object, id uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	added, pruned := o.add(kind, id)
	switch {
	case o.kept == nil || !added:
	case pruned:
		o.kept.add(kind, id)
		o.forget()
	default:
		o.kept.add(kind, id)
	}
}

func (o *Objects) add(kind abi.Object, id uint32) (added, pruned bool) {
	s := o.ids[kind]
	if s == nil {
		s = &idSet{pruneAt: firstPrune}
		o.ids[kind] = s
	}
	i, found := slices.BinarySearch(s.sorted, id)
	if found {
		return false, false
	}
	s.sorted = slices.Insert(s.sorted, i, id)
	if len(s.sorted) < s.pruneAt || o.living == nil {
		return true, false
	}
	living := o.living(kind)
	s.sorted = slices.DeleteFunc(s.sorted, func(id uint32) bool {
		_, lives := slices.BinarySearch(living, id)
		return !lives
	})
	s.pruneAt = max(firstPrune, 2*len(s.sorted))
	return true, true
}

// Owns says whether the object was made for the workload.
func (o *Objects) Owns(kind abi.Object, id uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.ids[kind]
	if s == nil {
		return false
	}
	_, found := slices.BinarySearch(s.sorted, id)
	return found
}

// Next returns the workload's smallest id above after, 0 where there is none.
func (o *Objects) Next(kind abi.Object, after uint32) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.ids[kind]
	if s == nil {
		return 0
	}
	i, found := slices.BinarySearch(s.sorted, after)
	if found {
		i++
	}
	if i == len(s.sorted) {
		return 0
	}
	return s.sorted[i]
}
