package audit

import (
	"fmt"
	"io"
	"slices"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Replay asks a policy what it would decide on the operations in a log.
type Replay struct {
	policy  policy.Policy
	decided int
	rules   int    // decided alike, by another rule
	lost    uint64 // records
	changes []*change
	byKey   map[changeKey]*change
}

// changeKey is the same for changes that are told as one.
type changeKey struct {
	command, kind string
	was           policy.Decision // but for its message
	now           policy.Decision
	answer        string // what the workload got
	untold        bool
}

// change is what would be another decision.
type change struct {
	changeKey
	count   int
	example *Entry
	why     string
}

// NewReplay returns one that has asked nothing.
func NewReplay(p policy.Policy) *Replay {
	return &Replay{policy: p, byKey: map[changeKey]*change{}}
}

// Add decides on a record anew.
func (r *Replay) Add(e *Entry) {
	if e.Lost > 0 {
		r.lost += e.Lost
		return
	}
	r.decided++
	f := e.Facts
	f.Unknown = slices.Clip(f.Unknown)
	needs := r.policy.Needs(f.Command)
	for i := range facts.Table {
		if name := facts.Table[i].Name; e.Cut.HasNumber(i) && needs.HasNumber(i) && f.Unknown.Why(name) == "" {
			f.Unknown = append(f.Unknown, struct{ Fact, Why string }{name, "the log has its beginning only"})
		}
	}
	now, was := r.policy.Decide(&f), e.Decision
	if now.Verdict == policy.Deny && now.Errno == 0 {
		now.Errno = uint32(sys.EPERM)
	}
	same := now.Verdict == was.Verdict
	if now.Verdict == policy.Deny { // what counts is what the workload gets
		same = e.Outcome == sys.ErrnoName(sys.Errno(now.Errno)) && was.Verdict != policy.Native
	}
	// What the record doesn't know, the workload's next operation may: then it can't be told.
	untold := now.Cause == policy.ByError && was.Cause != policy.ByError
	if same && !untold {
		if was.Rule != now.Rule || was.Cause != now.Cause || e.Policy != r.policy.Name() {
			r.rules++
		}
		return
	}
	why := now.Message
	was.Message, now.Message, was.Limits, now.Limits, now.All, was.Audit, now.Audit = "", "", nil, nil, nil, 0, 0
	key := changeKey{f.Command, f.Kind(), was, now, e.Outcome, untold}
	c := r.byKey[key]
	if c == nil {
		c = &change{changeKey: key, example: e, why: why}
		r.byKey[key] = c
		r.changes = append(r.changes, c)
	}
	c.count++
}

// Changes is how many operations would be decided otherwise, or may be.
func (r *Replay) Changes() (n int) {
	for _, c := range r.changes {
		n += c.count
	}
	return n
}

// Print tells what would change, most frequent first.
func (r *Replay) Print(w io.Writer) {
	fmt.Fprintf(w, "policy %s: %d operations, of which %d would change", word(r.policy.Name()), r.decided, r.Changes())
	if r.rules > 0 {
		fmt.Fprintf(w, "; %d more would be decided alike, by another rule", r.rules)
	}
	fmt.Fprintln(w)
	if r.lost > 0 {
		fmt.Fprintf(w, "%d records are missing in the log\n", r.lost)
	}
	slices.SortStableFunc(r.changes, func(a, b *change) int { return b.count - a.count })
	for _, c := range r.changes {
		would := c.now.Verdict.String()
		switch {
		case c.untold:
			would = "can't be told"
		case c.now.Verdict == policy.Deny:
			would += " " + sys.ErrnoName(sys.Errno(c.now.Errno))
		}
		e := c.example
		fmt.Fprintf(w, "\n%d times %s: %s → %s\n", c.count, what(&e.Facts), c.was.Verdict, would)
		fmt.Fprintf(w, "  was:      %s, policy %s, %s\n", word(c.answer), word(e.Policy), by(&c.was))
		fmt.Fprintf(w, "  would be: %s\n", by(&c.now))
		fmt.Fprintf(w, "  why:      %s\n", sentence(c.why))
		fmt.Fprintf(w, "  example:  number %d of workload %s\n", e.Seq, word(e.Workload))
		for _, line := range list(e) {
			fmt.Fprintf(w, "            %s\n", line)
		}
	}
}
