package workload

import (
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"sync/atomic"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Holdings are what a workload was allowed to make and what lives of it, as limits count
// it: maps, programs, links, types (BTF). They are in shared memory, which outlives the worker that
// writes there; a daemon reads it. It is safe for use by many goroutines.
//
// An object that has died is counted until somebody asks what lives: see Forget. So
// counts are never too low.
type Holdings struct {
	mu     sync.Mutex
	shared *holdings
	all    facts.Counts
	rules  map[uint64]*facts.Counts
	claims int // that are neither kept nor dropped yet

	asking sync.Mutex // of Forget
}

// Held is an object that a workload holds.
type Held struct {
	Kind  abi.Object // Map, Prog, Link or BTF
	ID    uint32
	Rule  uint64 // RuleNumber of the rule that allowed it
	Bytes int64  // of a map, as the fact map.bytes has it; of a BTF, its size
}

// MaxHeld is how many objects are counted. More a workload with limits can't have.
const MaxHeld = 1 << 17

// holdings is the memory, as it is laid out (ledger.Layout is its version, too). Pages that
// aren't used cost nothing.
type holdings struct {
	n    uint64
	held [MaxHeld]struct {
		rule  uint64
		bytes int64
		kind  uint32
		id    uint32
	}
}

// RuleNumber stands for a rule's name.
func RuleNumber(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return h.Sum64()
}

// CreateHoldings makes shared memory for holdings, of which there are none.
func CreateHoldings() (*os.File, error) {
	f, err := sys.SharedMemory[holdings]("bpfbroker-holdings")
	if err != nil {
		return nil, fmt.Errorf("make memory for what the workload holds: %w", err)
	}
	return f, nil
}

// OpenHoldings returns those in the shared memory at fd, as one who only reads them:
// List and Living.
func OpenHoldings(fd int) (*Holdings, error) {
	s, _, err := sys.MapShared[holdings](fd)
	if err != nil {
		return nil, fmt.Errorf("map what the workload holds: %w", err)
	}
	return &Holdings{shared: s, rules: map[uint64]*facts.Counts{}}, nil
}

// TakeHoldings is OpenHoldings for the one who writes there from now on.
func TakeHoldings(fd int) (*Holdings, error) {
	h, err := OpenHoldings(fd)
	if err != nil {
		return nil, err
	}
	// A worker that was killed while it forgot has left some twice.
	type object struct {
		kind abi.Object
		id   uint32
	}
	seen := map[object]bool{}
	n := uint64(0)
	for _, o := range h.List() {
		if key := (object{o.Kind, o.ID}); !seen[key] {
			seen[key] = true
			h.put(n, o)
			h.count(o, 1)
			n++
		}
	}
	atomic.StoreUint64(&h.shared.n, n)
	return h, nil
}

// List is all that is counted. What a worker in the hands of its workload wrote may be
// in it.
func (h *Holdings) List() []Held {
	n := min(atomic.LoadUint64(&h.shared.n), MaxHeld)
	out := make([]Held, 0, n)
	for i := range n {
		e := &h.shared.held[i]
		o := Held{abi.Object(e.kind), e.id, e.rule, min(max(e.bytes, 0), maxBytes)}
		if o.Kind == abi.Map || o.Kind == abi.Prog || o.Kind == abi.Link || o.Kind == abi.BTF {
			out = append(out, o)
		}
	}
	return out
}

func (h *Holdings) put(i uint64, o Held) {
	e := &h.shared.held[i]
	e.rule, e.bytes, e.kind, e.id = o.Rule, o.Bytes, uint32(o.Kind), o.ID
}

// count adds an object n times.
func (h *Holdings) count(o Held, n int64) {
	r := h.rules[o.Rule]
	if r == nil {
		r = &facts.Counts{}
		h.rules[o.Rule] = r
	}
	for _, c := range []*facts.Counts{&h.all, r} {
		add(c, o, n)
	}
	if *r == (facts.Counts{}) {
		delete(h.rules, o.Rule)
	}
}

func add(c *facts.Counts, o Held, n int64) {
	switch o.Kind {
	case abi.Map:
		c.Maps += n
		c.Bytes += n * o.Bytes // MaxHeld maps of 2^46 bytes don't overflow; see Claim
	case abi.BTF: // which nobody else bounds: the kernel charges it to no cgroup
		c.Bytes += n * o.Bytes
	case abi.Prog:
		c.Progs += n
	case abi.Link:
		c.Links += n
	}
}

// maxBytes is as large as a map is counted.
const maxBytes = 1 << 45

// Full says which limit leaves no room.
type Full struct {
	OfRule bool // else of the whole workload
	What   string
	Limit  int64
	Held   int64
}

// Claim takes room for an object that is to be made, without its id: Keep or Drop follows.
// Limits of 0 are none. nil: there is room.
func (h *Holdings) Claim(o Held, ofRule, ofAll *facts.Counts) *Full {
	o.Bytes = min(o.Bytes, maxBytes)
	h.mu.Lock()
	defer h.mu.Unlock()
	var held facts.Counts
	if r := h.rules[o.Rule]; r != nil {
		held = *r
	}
	if f := full(o, &held, ofRule); f != nil {
		f.OfRule = true
		return f
	}
	if f := full(o, &h.all, ofAll); f != nil {
		return f
	}
	if n := int64(h.shared.n) + int64(h.claims); n >= MaxHeld {
		return &Full{What: "objects", Limit: MaxHeld, Held: n}
	}
	h.count(o, 1)
	h.claims++
	return nil
}

// full says whether o is too much, beside what is held.
func full(o Held, held, limit *facts.Counts) *Full {
	if limit == nil {
		return nil
	}
	after := *held
	add(&after, o, 1)
	for _, l := range [...]struct {
		what               string
		is, after, allowed int64
	}{
		{"maps", held.Maps, after.Maps, limit.Maps},
		{"bytes of maps and types", held.Bytes, after.Bytes, limit.Bytes},
		{"programs", held.Progs, after.Progs, limit.Progs},
		{"links", held.Links, after.Links, limit.Links},
	} {
		if l.allowed > 0 && l.after > l.is && l.after > l.allowed {
			return &Full{What: l.what, Limit: l.allowed, Held: l.is}
		}
	}
	return nil
}

// Keep notes that a claimed object was made, and has this id.
func (h *Holdings) Keep(o Held) {
	o.Bytes = min(o.Bytes, maxBytes)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claims--
	n := h.shared.n
	if n >= MaxHeld { // Claim has seen to it, unless the workload writes here, too
		return
	}
	h.put(n, o)
	atomic.StoreUint64(&h.shared.n, n+1) // last: what is half there isn't
}

// Drop gives the room of a claimed object back, which wasn't made.
func (h *Holdings) Drop(o Held) {
	o.Bytes = min(o.Bytes, maxBytes)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claims--
	h.count(o, -1)
}

// Counts are all that are counted.
func (h *Holdings) Counts() facts.Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all
}

// Forget asks which objects live, and doesn't count the others any more. lives answers
// for each of a list.
func (h *Holdings) Forget(lives func([]Held) ([]bool, error)) error {
	h.asking.Lock()
	defer h.asking.Unlock()
	h.mu.Lock()
	asked := h.List() // more may come behind these, nothing goes
	h.mu.Unlock()
	alive, err := lives(asked)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n := uint64(0)
	for i, o := range h.List() {
		if i < len(asked) && !alive[i] {
			h.count(o, -1)
			continue
		}
		h.put(n, o)
		n++
	}
	atomic.StoreUint64(&h.shared.n, n)
	return nil
}

// Living counts what lives, as one who doesn't write here.
func (h *Holdings) Living(lives func(Held) bool) (c facts.Counts) {
	for _, o := range h.List() {
		if lives(o) {
			o.Bytes = min(o.Bytes, maxBytes)
			add(&c, o, 1)
		}
	}
	return c
}
