package worker

import (
	"cmp"
	"slices"
	"sync"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Denied counts the denials of one kind of operation.
type Denied struct {
	Command string // "prog_load"
	Kind    string // "xdp": map, program or attach type; "" where it has none
	Rule    string
	Count   int
}

// summary counts what was denied. What it keeps is bounded, whatever the
// workload does.
type summary struct {
	mu     sync.Mutex
	denied map[Denied]int
	faults []string
}

const (
	maxDenied = 1024 // kinds of denials
	maxFaults = 16
)

func (s *summary) record(f *facts.Facts, d policy.Decision) {
	if d.Verdict != policy.Deny || d.Cause == policy.ByError {
		return
	}
	key := Denied{Command: f.Command, Kind: f.Kind(), Rule: d.Rule}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.denied == nil {
		s.denied = map[Denied]int{}
	}
	if _, known := s.denied[key]; !known && len(s.denied) >= maxDenied {
		key = Denied{Command: "other", Rule: d.Rule}
	}
	s.denied[key]++
}

func (s *summary) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) < maxFaults {
		s.faults = append(s.faults, err.Error())
	}
}

func (s *summary) report(served uint64) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Report{Served: served, Errors: s.faults}
	for k, n := range s.denied {
		k.Count = n
		r.Denied = append(r.Denied, k)
	}
	slices.SortFunc(r.Denied, func(a, b Denied) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Command, b.Command), cmp.Compare(a.Kind, b.Kind))
	})
	return r
}
