package arena

import (
	"runtime/debug"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// Pieces don't overlap, and have the length asked for.
func TestAlloc(t *testing.T) {
	a := New(NewBudget(1 << 20))
	defer a.Reset()
	var pieces [][]byte
	for _, n := range []int{0, 1, 7, 8, 1000, large - 1, large, large + 1, slab, 1 << 20} {
		p := a.Alloc(n)
		if len(p) != n {
			t.Fatalf("asked for %d bytes, got %d", n, len(p))
		}
		for i := range p {
			p[i] = byte(n)
		}
		pieces = append(pieces, p)
	}
	for _, p := range pieces {
		for i := range p {
			if p[i] != byte(len(p)) {
				t.Fatalf("a piece of %d bytes was written through another", len(p))
			}
		}
	}
}

// Behind a large piece memory ends, so that a kernel which runs past it faults.
func TestGuard(t *testing.T) {
	a := New(NewBudget(1 << 20))
	defer a.Reset()
	p := a.Alloc(large)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() == nil {
			t.Error("the byte behind a large piece can be read")
		}
	}()
	sink = *(*byte)(unsafe.Add(unsafe.Pointer(&p[0]), large))
}

var sink byte

// Who wants more than is free waits until it is given back.
func TestReserveWaits(t *testing.T) {
	b := NewBudget(1 << 20)
	first, second := New(b), New(b)
	first.Reserve(1 << 20)
	got := make(chan struct{})
	go func() {
		second.Reserve(1 << 19)
		close(got)
	}()
	select {
	case <-got:
		t.Fatal("the budget was given out twice")
	case <-time.After(20 * time.Millisecond):
	}
	first.Reset()
	<-got
	second.Reset()
	if b.free != b.size {
		t.Errorf("%d of %d bytes came back", b.free, b.size)
	}
}

// More than there is counts as all there is: nobody waits for ever.
func TestReserveAll(t *testing.T) {
	b := NewBudget(1 << 20)
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			a := New(b)
			for range 100 {
				a.Reserve(1 << 30)
				a.Reset()
			}
		})
	}
	g.Wait()
	if b.free != b.size {
		t.Errorf("%d of %d bytes came back", b.free, b.size)
	}
}
