// Package workload knows who is calling and what the workload holds.
package workload

import (
	"slices"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Objects are the ids of the maps, programs, links and BTFs that were made for
// one workload. It is safe for use by many goroutines.
//
// The kernel gives ids out in a circle of 2^31, so an id that it gave us and
// took back doesn't come to mean another's object in any time that matters.
type Objects struct {
	mu  sync.Mutex
	ids map[abi.Object]*idSet
	// Alive says whether the object still exists; it is asked when a set has
	// doubled since the last time, so that what is gone doesn't pile up.
	alive func(kind abi.Object, id uint32) bool
}

type idSet struct {
	sorted  []uint32 // ascending
	pruneAt int
}

// firstPrune is how many ids of a kind pile up before the first look at which
// are still in use.
const firstPrune = 1024

// NewObjects returns an empty set. alive may be nil: nothing is forgotten then.
func NewObjects(alive func(abi.Object, uint32) bool) *Objects {
	return &Objects{ids: map[abi.Object]*idSet{}, alive: alive}
}

// Add notes that the workload holds the object.
func (o *Objects) Add(kind abi.Object, id uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.ids[kind]
	if s == nil {
		s = &idSet{pruneAt: firstPrune}
		o.ids[kind] = s
	}
	i, found := slices.BinarySearch(s.sorted, id)
	if found {
		return
	}
	s.sorted = slices.Insert(s.sorted, i, id)
	if len(s.sorted) >= s.pruneAt && o.alive != nil {
		s.sorted = slices.DeleteFunc(s.sorted, func(id uint32) bool { return !o.alive(kind, id) })
		s.pruneAt = max(firstPrune, 2*len(s.sorted))
	}
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
