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

// Objects are the ids of the maps, programs and BTFs that one workload may see: those
// that were made for it, which are its own, those that it has opened from a pin that
// somebody else made, and those that its policy shares. It is safe for use by many
// goroutines.
//
// The kernel gives ids out in a circle of 2^31, so an id that it gave us and
// took back doesn't come to mean another's object in any time that matters.
type Objects struct {
	mu                   sync.Mutex
	made, opened, shared ids
	// living lists the ids of all objects of a kind, ascending; it is asked when a set
	// has doubled since the last time, so that what is gone doesn't pile up.
	living func(kind abi.Object) []uint32
	// kept is shared memory with all that were made and opened, for the next daemon; nil:
	// none.
	kept *kept
}

// kept is a set of objects as it lies in shared memory. What is more than it has
// room for, the next daemon doesn't know of. (Pages that aren't used cost nothing.)
type kept struct {
	layout  uint64 // ledger.Layout of whoever serves the workload
	n       uint64
	objects [1 << 20]uint64 // see entry
}

// openedBit is set in an entry of what was opened, and not made.
const openedBit = 1 << 63

// entry is an object as kept has it.
func entry(kind abi.Object, id uint32) uint64 { return uint64(kind)<<32 | uint64(id) }

// ids are sets of them by kind.
type ids map[abi.Object]*idSet

type idSet struct {
	sorted  []uint32 // ascending
	pruneAt int
}

// firstPrune is how many ids of a kind pile up before the first look at which
// are still in use.
const firstPrune = 1024

func (s ids) has(kind abi.Object, id uint32) bool {
	if s[kind] == nil {
		return false
	}
	_, found := slices.BinarySearch(s[kind].sorted, id)
	return found
}

// next is the smallest id above after, 0 where there is none.
func (s ids) next(kind abi.Object, after uint32) uint32 {
	if s[kind] == nil {
		return 0
	}
	sorted := s[kind].sorted
	i, found := slices.BinarySearch(sorted, after)
	if found {
		i++
	}
	if i == len(sorted) {
		return 0
	}
	return sorted[i]
}

// add says whether the id wasn't there, and whether others were forgotten.
func (s ids) add(kind abi.Object, id uint32, living func(abi.Object) []uint32) (added, pruned bool) {
	set := s[kind]
	if set == nil {
		set = &idSet{pruneAt: firstPrune}
		s[kind] = set
	}
	i, found := slices.BinarySearch(set.sorted, id)
	if found {
		return false, false
	}
	set.sorted = slices.Insert(set.sorted, i, id)
	if len(set.sorted) < set.pruneAt || living == nil {
		return true, false
	}
	lives := living(kind)
	set.sorted = slices.DeleteFunc(set.sorted, func(id uint32) bool {
		_, is := slices.BinarySearch(lives, id)
		return !is
	})
	set.pruneAt = max(firstPrune, 2*len(set.sorted))
	return true, true
}

// NewObjects returns an empty set. living may be nil: nothing is forgotten then.
func NewObjects(living func(abi.Object) []uint32) *Objects {
	return &Objects{made: ids{}, opened: ids{}, shared: ids{}, living: living}
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
		o.of(v).add(abi.Object(v&^openedBit>>32), uint32(v), living)
	}
	o.kept = k
	return o, nil
}

func (k *kept) add(v uint64) {
	if k.n < uint64(len(k.objects)) {
		k.objects[k.n] = v
		k.n++
	}
}

// of is the set that an entry is in.
func (o *Objects) of(v uint64) ids {
	if v&openedBit != 0 {
		return o.opened
	}
	return o.made
}

// forget takes the objects out that were forgotten. If the daemon is killed
// meanwhile, the next one finds some twice, and misses none.
func (o *Objects) forget() {
	k, n := o.kept, uint64(0)
	for _, v := range k.objects[:min(k.n, uint64(len(k.objects)))] {
		if o.of(v).has(abi.Object(v&^openedBit>>32), uint32(v)) {
			k.objects[n] = v
			n++
		}
	}
	k.n = n
}

// Add notes that the object was made for the workload.
func (o *Objects) Add(kind abi.Object, id uint32) { o.add(kind, entry(kind, id)) }

// Open notes that the workload has opened the object from a pin.
func (o *Objects) Open(kind abi.Object, id uint32) {
	if !o.Owns(kind, id) {
		o.add(kind, entry(kind, id)|openedBit)
	}
}

func (o *Objects) add(kind abi.Object, v uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	added, pruned := o.of(v).add(kind, uint32(v), o.living)
	if o.kept == nil || !added {
		return
	}
	o.kept.add(v)
	if pruned {
		o.forget()
	}
}

// Share shows the workload an object of the host's. It isn't kept for the next daemon,
// whose policy may be another.
func (o *Objects) Share(kind abi.Object, id uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shared.add(kind, id, nil)
}

// Owns says whether the object was made for the workload.
func (o *Objects) Owns(kind abi.Object, id uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.made.has(kind, id)
}

// Shares says whether the object is one that the policy shares, and not the workload's.
func (o *Objects) Shares(kind abi.Object, id uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shared.has(kind, id) && !o.made.has(kind, id)
}

// Sees says whether the workload may see the object.
func (o *Objects) Sees(kind abi.Object, id uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.made.has(kind, id) || o.opened.has(kind, id) || o.shared.has(kind, id)
}

// Next returns the smallest id above after that the workload may see, 0 where there is
// none.
func (o *Objects) Next(kind abi.Object, after uint32) (next uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range []ids{o.made, o.opened, o.shared} {
		if id := s.next(kind, after); id != 0 && (next == 0 || id < next) {
			next = id
		}
	}
	return next
}
