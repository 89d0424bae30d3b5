package ledger

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// Denied counts the denials of one kind of operation.
type Denied struct {
	Command string // "prog_load"
	Kind    string // "xdp": map, program or attach type; "" where it has none
	Rule    string
	Count   int
}

// Summary is what a ledger counted.
type Summary struct {
	Served uint64   // calls received
	Denied []Denied // what the policy denied, most frequent first
	Faults []string // internal errors
}

const (
	maxDenied = 1024 // kinds of denials
	maxFaults = 16
)

// text is a string in shared memory, cut to fit; NUL ends it.
type text [256]byte

func (t *text) set(s string) { clear(t[copy(t[:len(t)-1], s):]) }

// get reads one: it may be in the hands of a workload that has taken its worker
// over, and is printed to a terminal.
func (t *text) get() string {
	b := t[:]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, string(b))
}

// denial is an entry of the table. The count is set last: an entry without one
// isn't there.
type denial struct {
	count               uint64
	command, kind, rule text
}

// counter finds the entries again.
type counter struct {
	mu    sync.Mutex
	index map[Denied]int
	next  int
	full  bool
}

// Deny counts a denial. What is kept is bounded, whatever the workload does.
func (l *Ledger) Deny(command, kind, rule string) {
	c := &l.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index == nil {
		c.index = map[Denied]int{}
		for ; c.next < maxDenied && atomic.LoadUint64(&l.book.denied[c.next].count) != 0; c.next++ {
			d := &l.book.denied[c.next] // of the worker before
			c.index[Denied{Command: d.command.get(), Kind: d.kind.get(), Rule: d.rule.get()}] = c.next
		}
		c.full = c.next == maxDenied
	}
	key := Denied{Command: command, Kind: kind, Rule: rule}
	i, known := c.index[key]
	if !known && c.next >= maxDenied-1 { // the last one is for all others
		key = Denied{Command: "other", Rule: rule}
		if i, known = c.index[key]; !known && c.full {
			i, known = maxDenied-1, true
		}
	}
	if !known {
		if c.next >= maxDenied {
			return
		}
		i = c.next
		c.next++
		c.full = c.next == maxDenied
		c.index[key] = i
		d := &l.book.denied[i]
		d.command.set(key.Command)
		d.kind.set(key.Kind)
		d.rule.set(key.Rule)
	}
	atomic.AddUint64(&l.book.denied[i].count, 1)
}

// Fault notes an error that isn't the workload's; those after the first few are
// lost.
func (l *Ledger) Fault(err error) {
	l.counter.mu.Lock()
	defer l.counter.mu.Unlock()
	for i := range l.book.faults {
		if f := &l.book.faults[i]; f[0] == 0 {
			f.set(err.Error())
			return
		}
	}
}

// Summary says what was counted so far.
func (l *Ledger) Summary() Summary {
	s := Summary{Served: atomic.LoadUint64(&l.book.served)}
	for i := range l.book.denied {
		d := &l.book.denied[i]
		if n := atomic.LoadUint64(&d.count); n != 0 {
			s.Denied = append(s.Denied, Denied{d.command.get(), d.kind.get(), d.rule.get(), int(n)})
		}
	}
	slices.SortFunc(s.Denied, func(a, b Denied) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Command, b.Command), cmp.Compare(a.Kind, b.Kind))
	})
	for i := range l.book.faults {
		if f := &l.book.faults[i]; f[0] != 0 {
			s.Faults = append(s.Faults, f.get())
		}
	}
	return s
}
