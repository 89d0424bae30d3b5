package worker

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

func TestSummary(t *testing.T) {
	var s summary
	deny := policy.Decision{Verdict: policy.Deny, Cause: policy.ByRule, Rule: "r"}
	s.record(&facts.Facts{Command: "map_create", MapType: "hash"}, deny)
	for range 2 {
		s.record(&facts.Facts{Command: "prog_load", ProgType: "xdp"}, deny)
	}
	s.record(&facts.Facts{Command: "obj_pin"}, policy.Decision{Verdict: policy.Allow})
	s.record(&facts.Facts{Command: "obj_pin"}, policy.Decision{Cause: policy.ByError}) // no denial by policy
	got := s.report(5)
	want := Report{Served: 5, Denied: []Denied{{"prog_load", "xdp", "r", 2}, {"map_create", "hash", "r", 1}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwanted %+v", got, want)
	}
}

// A workload that makes up kinds can't make the summary grow, and no denial is lost.
func TestSummaryBounded(t *testing.T) {
	var s summary
	for i := range 10 * maxDenied {
		s.record(&facts.Facts{Command: "map_create", MapType: fmt.Sprint(i)}, policy.Decision{})
		s.fault(fmt.Errorf("fault %d", i))
	}
	r := s.report(0)
	total := 0
	for _, d := range r.Denied {
		total += d.Count
	}
	if len(r.Denied) > maxDenied+1 || total != 10*maxDenied || len(r.Errors) != maxFaults {
		t.Errorf("%d kinds, %d denials, %d errors", len(r.Denied), total, len(r.Errors))
	}
}
