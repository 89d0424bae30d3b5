package ledger

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func made(t *testing.T) (*Ledger, func() *Ledger) {
	t.Helper()
	f, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	open := func() *Ledger {
		l, err := Open(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	return open(), open
}

// What one worker counted, the next one goes on with.
func TestCounts(t *testing.T) {
	l, open := made(t)
	l.Deny("map_create", "hash", "r")
	l.Deny("prog_load", "xdp", "r")
	l.Count()
	next := open()
	next.Deny("prog_load", "xdp", "r")
	next.Count()
	next.Fault(fmt.Errorf("a fault"))
	want := Summary{Served: 2, Denied: []Denied{{"prog_load", "xdp", "r", 2}, {"map_create", "hash", "r", 1}}, Faults: []string{"a fault"}}
	if got := l.Summary(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwanted %+v", got, want)
	}
}

// A workload that makes up kinds can't make the table grow, and no denial is lost.
func TestCountsBounded(t *testing.T) {
	l, open := made(t)
	for round := range 2 {
		for i := range 10 * maxDenied {
			l.Deny("map_create", fmt.Sprint(i), "r")
			l.Fault(fmt.Errorf("fault %d", i))
		}
		s := l.Summary()
		total := 0
		for _, d := range s.Denied {
			total += d.Count
		}
		if len(s.Denied) > maxDenied || total != (round+1)*10*maxDenied || len(s.Faults) != maxFaults {
			t.Errorf("%d kinds, %d denials, %d faults", len(s.Denied), total, len(s.Faults))
		}
		l = open()
	}
}

// Whatever is in the table, a terminal isn't told what to do.
func TestText(t *testing.T) {
	l, _ := made(t)
	l.Deny("\x1b[2J", strings.Repeat("x", 1000), "\xff")
	d := l.Summary().Denied[0]
	if d.Command != "?[2J" || len(d.Kind) != len(text{})-1 || d.Rule != "?" {
		t.Errorf("got %+v", d)
	}
	for i := range l.book.denied[0].kind {
		l.book.denied[0].kind[i] = 'y' // no NUL
	}
	if got := l.Summary().Denied[0].Kind; got != strings.Repeat("y", len(text{})) {
		t.Errorf("got %q", got)
	}
}
