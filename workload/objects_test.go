package workload

import (
	"strings"
	"sync"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

func TestObjects(t *testing.T) {
	o := NewObjects(nil)
	for _, id := range []uint32{7, 3, 9, 3} {
		o.Add(abi.Map, id)
	}
	o.Add(abi.Prog, 5)
	for id, want := range map[uint32]bool{3: true, 7: true, 9: true, 5: false, 0: false} {
		if got := o.Owns(abi.Map, id); got != want {
			t.Errorf("owns map %d: %v", id, got)
		}
	}
	var ids []uint32
	for id := o.Next(abi.Map, 0); id != 0; id = o.Next(abi.Map, id) {
		ids = append(ids, id)
	}
	if len(ids) != 3 || ids[0] != 3 || ids[1] != 7 || ids[2] != 9 {
		t.Errorf("maps are %v, wanted 3, 7, 9", ids)
	}
	if o.Next(abi.Link, 0) != 0 {
		t.Error("there is a link")
	}
}

// What is gone doesn't pile up, and what lives is never forgotten.
func TestObjectsPrune(t *testing.T) {
	const keep = 100
	o := NewObjects(func(abi.Object) (living []uint32) {
		for id := uint32(keep); id <= 100*keep; id += keep {
			living = append(living, id)
		}
		return living
	})
	for id := uint32(1); id <= 100*keep; id++ {
		o.Add(abi.Map, id)
	}
	if n := len(o.made[abi.Map].sorted); n > 2*firstPrune {
		t.Errorf("%d ids are remembered, of %d that live", n, keep)
	}
	for id := uint32(keep); id <= 100*keep; id += keep {
		if !o.Owns(abi.Map, id) {
			t.Fatalf("map %d is forgotten", id)
		}
	}
}

func TestObjectsConcurrently(t *testing.T) {
	o := NewObjects(func(abi.Object) (all []uint32) {
		for id := uint32(1); id <= 8000; id++ {
			all = append(all, id)
		}
		return all
	})
	var g sync.WaitGroup
	for base := range uint32(8) {
		g.Go(func() {
			for id := base*1000 + 1; id <= base*1000+1000; id++ {
				o.Add(abi.Map, id)
				if !o.Owns(abi.Map, id) {
					t.Errorf("map %d isn't there", id)
				}
				o.Next(abi.Map, id)
			}
		})
	}
	g.Wait()
	n := 0
	for id := o.Next(abi.Map, 0); id != 0; id = o.Next(abi.Map, id) {
		n++
	}
	if n != 8000 {
		t.Errorf("%d maps, wanted 8000", n)
	}
}

// Another daemon finds what the one before has kept, also after some was forgotten.
func TestObjectsKept(t *testing.T) {
	f, err := CreateObjects()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	even := func(abi.Object) (living []uint32) {
		for id := uint32(2); id <= 4*firstPrune; id += 2 {
			living = append(living, id)
		}
		return living
	}
	o, err := OpenObjects(int(f.Fd()), even)
	if err != nil {
		t.Fatal(err)
	}
	o.Add(abi.Prog, 7)
	for id := uint32(1); id <= 3*firstPrune; id++ {
		o.Add(abi.Map, id)
	}
	next, err := OpenObjects(int(f.Fd()), even)
	if err != nil {
		t.Fatal(err)
	}
	if !next.Owns(abi.Prog, 7) || next.Owns(abi.Prog, 8) {
		t.Error("program 7 is forgotten, or 8 made up")
	}
	for id := uint32(1); id <= 3*firstPrune; id++ {
		if id%2 == 0 && !next.Owns(abi.Map, id) {
			t.Fatalf("map %d is forgotten", id)
		}
	}
	if next.kept.n > 3*firstPrune {
		t.Errorf("%d are kept", next.kept.n)
	}
	next.kept.layout++
	if _, err := OpenObjects(int(f.Fd()), even); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("what another version has left: %v", err)
	}
}
