package workload

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
)

// newHoldings are empty ones, and another worker's view of them.
func newHoldings(t *testing.T) (h *Holdings, next func() *Holdings) {
	t.Helper()
	f, err := CreateHoldings()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	next = func() *Holdings {
		h, err := TakeHoldings(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	return next(), next
}

func aMap(id uint32, rule string, bytes int64) Held {
	return Held{Kind: abi.Map, ID: id, Rule: RuleNumber(rule), Bytes: bytes}
}

// living answers which of the objects live: those of these ids.
func living(ids ...uint32) func([]Held) ([]bool, error) {
	return func(asked []Held) (out []bool, _ error) {
		for _, o := range asked {
			lives := false
			for _, id := range ids {
				lives = lives || o.ID == id
			}
			out = append(out, lives)
		}
		return out, nil
	}
}

func TestHoldings(t *testing.T) {
	h, next := newHoldings(t)
	make := func(o Held, rule, all *facts.Counts, want string) {
		t.Helper()
		f := h.Claim(o, rule, all)
		got := ""
		if f != nil {
			got = fmt.Sprint(*f)
		} else {
			h.Keep(o)
		}
		if got != want {
			t.Errorf("map %d: %q, wanted %q", o.ID, got, want)
		}
	}
	two, three := &facts.Counts{Maps: 2}, &facts.Counts{Maps: 3, Bytes: 100}
	make(aMap(1, "a", 10), two, three, "")
	make(aMap(2, "a", 10), two, three, "")
	make(aMap(3, "a", 10), two, three, "{true maps 2 2}")
	make(aMap(3, "b", 81), two, three, "{false bytes of maps and types 100 20}")
	make(aMap(3, "b", 80), two, three, "")
	make(aMap(4, "c", 0), nil, three, "{false maps 3 3}")
	make(Held{Kind: abi.Prog, ID: 1, Rule: RuleNumber("b")}, two, three, "") // of what isn't limited
	make(Held{Kind: abi.Link, ID: 1}, &facts.Counts{Links: 1}, nil, "")
	make(Held{Kind: abi.Link, ID: 2}, &facts.Counts{Links: 1}, nil, "{true links 1 1}")
	make(Held{Kind: abi.Prog, ID: 2}, nil, &facts.Counts{Progs: 1}, "{false programs 1 1}")
	if got := fmt.Sprint(h.Counts()); got != "{3 1 1 100}" {
		t.Errorf("held: %s", got)
	}
	make(Held{Kind: abi.BTF, ID: 1, Bytes: 1}, nil, three, "{false bytes of maps and types 100 100}")
	h = next()
	if got := fmt.Sprint(h.Counts()); got != "{3 1 1 100}" {
		t.Errorf("held, for the next worker: %s", got)
	}
	make(aMap(5, "a", 0), two, nil, "{true maps 2 2}")

	// What is claimed and not made leaves nothing.
	if f := h.Claim(aMap(0, "d", 1<<62), nil, nil); f != nil {
		t.Error(*f)
	}
	h.Drop(aMap(0, "d", 1<<62))
	if got := fmt.Sprint(h.Counts()); got != "{3 1 1 100}" {
		t.Errorf("held, after one that failed: %s", got)
	}

	if err := h.Forget(func([]Held) ([]bool, error) { return nil, errors.New("nobody knows") }); err == nil {
		t.Error("no error")
	}
	if err := h.Forget(living(3)); err != nil { // the map, there are no others
		t.Error(err)
	}
	if got := fmt.Sprint(h.Counts()); got != "{1 0 0 80}" {
		t.Errorf("held, after all but one died: %s", got)
	}
	make(aMap(6, "a", 0), two, nil, "")
	h = next()
	if got := fmt.Sprint(h.Counts(), len(h.rules)); got != "{2 0 0 80} 2" {
		t.Errorf("held, for the next worker: %s", got)
	}
	if got := fmt.Sprint(h.Living(func(o Held) bool { return o.ID == 3 })); got != "{1 0 0 80}" {
		t.Errorf("lives: %s", got)
	}
}

// A worker that is killed while it forgets leaves some twice.
func TestHoldingsTwice(t *testing.T) {
	h, next := newHoldings(t)
	for id := range uint32(4) {
		h.Claim(aMap(id, "a", 1), nil, nil)
		h.Keep(aMap(id, "a", 1))
	}
	h.put(1, aMap(3, "a", 1)) // 0, 3, 2, 3: 1 was dead, and the last has moved
	if got := next().Counts(); got.Maps != 3 || got.Bytes != 3 {
		t.Errorf("held: %+v", got)
	}
	if n := len(next().List()); n != 3 {
		t.Errorf("%d are listed", n)
	}
}

// Whatever a workload writes there that has taken over its worker, nothing of ours breaks.
func TestHoldingsHostile(t *testing.T) {
	h, next := newHoldings(t)
	h.shared.n = 1 << 63
	for i := range h.shared.held {
		e := &h.shared.held[i]
		e.bytes, e.kind, e.id = -1<<62, uint32(i), uint32(i)
		if i%2 == 0 {
			e.bytes, e.kind = 1<<62, uint32(abi.Map)
		}
	}
	h = next()
	if c := h.Counts(); c.Bytes < 0 || c.Maps != MaxHeld/2 && c.Maps != MaxHeld/2+1 {
		t.Errorf("held: %+v", c)
	}
	if err := h.Forget(living()); err != nil || h.Counts() != (facts.Counts{}) {
		t.Errorf("held: %+v, %v", h.Counts(), err)
	}
}

func TestHoldingsFull(t *testing.T) {
	h, _ := newHoldings(t)
	for id := range uint32(MaxHeld) {
		if f := h.Claim(aMap(id, "a", 1), nil, nil); f != nil {
			t.Fatalf("%d: %+v", id, *f)
		}
		h.Keep(aMap(id, "a", 1))
	}
	if f := h.Claim(aMap(0, "a", 1), nil, nil); f == nil || f.What != "objects" {
		t.Errorf("one too many: %+v", f)
	}
	if err := h.Forget(living(7)); err != nil {
		t.Error(err)
	}
	if f := h.Claim(aMap(0, "a", 1), nil, nil); f != nil {
		t.Errorf("after they died: %+v", *f)
	}
}

// Threads at the limit never exceed it together, while others forget.
func TestHoldingsConcurrently(t *testing.T) {
	h, _ := newHoldings(t)
	const limit = 10
	var ids, alive, most atomic.Int64
	var lives sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				o := aMap(uint32(ids.Add(1)), "a", 1)
				if h.Claim(o, &facts.Counts{Maps: limit}, nil) != nil {
					if err := h.Forget(func(asked []Held) (out []bool, _ error) {
						for _, o := range asked {
							_, is := lives.Load(o.ID)
							out = append(out, is)
						}
						return out, nil
					}); err != nil {
						t.Error(err)
					}
					continue
				}
				if o.ID%3 == 0 {
					h.Drop(o)
					continue
				}
				lives.Store(o.ID, true)
				if n := alive.Add(1); n > most.Load() {
					most.Store(n)
				}
				h.Keep(o)
				if o.ID%2 == 0 {
					alive.Add(-1)
					lives.Delete(o.ID)
				}
			}
		})
	}
	all.Wait()
	if most.Load() > limit {
		t.Errorf("%d at once, of %d", most.Load(), limit)
	}
	if most.Load() < limit {
		t.Errorf("the limit of %d was never reached", limit)
	}
}

func BenchmarkClaim(b *testing.B) {
	f, err := CreateHoldings()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	h, err := TakeHoldings(int(f.Fd()))
	if err != nil {
		b.Fatal(err)
	}
	o := aMap(1, "a", 1)
	b.ReportAllocs()
	for b.Loop() {
		h.Claim(o, &facts.Counts{Maps: 10}, &facts.Counts{Maps: 10})
		h.Drop(o)
	}
}
