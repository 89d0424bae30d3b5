package broker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// decide asks the policy, and where it limits what the workload holds, takes room for
// what the call makes: unclaimed follows.
func (t *thread) decide(q *request.Request, f *facts.Facts) policy.Decision {
	d := t.cfg.Policy.Decide(f)
	if d.Verdict == policy.Allow {
		t.readOnly(q, &d)
	}
	if d.Verdict == policy.Allow && d.Scope == policy.ScopeWorkload {
		t.scope(q, f, &d)
	}
	if t.cfg.Holdings == nil || d.Verdict != policy.Allow || !q.Row.Makes() {
		return d
	}
	o := workload.Held{Kind: q.Row.Returns.FD, Rule: workload.RuleNumber(d.Rule)}
	switch o.Kind {
	case abi.Map:
		o.Bytes = f.Map.Bytes
	case abi.BTF:
		o.Bytes = int64(q.Field("btf_size"))
	case abi.Prog, abi.Link:
	default:
		return d
	}
	h := t.cfg.Holdings
	full := h.Claim(o, counts(d.Limits), counts(d.All))
	if full != nil && h.Forget(t.host.Lives) == nil { // some may have died
		full = h.Claim(o, counts(d.Limits), counts(d.All))
	}
	if full != nil {
		return d.Exceeds(full.OfRule, full.What, full.Limit, full.Held)
	}
	t.claim = o
	return d
}

// readOnly denies what would make a program that can write to a map which is shared to be
// read alone: the kernel doesn't ask how the fd was opened by which a program names a map,
// nor that by which the map was put into a map of maps, which nobody is asked about.
func (t *thread) readOnly(q *request.Request, d *policy.Decision) {
	shared := t.cfg.Known.ReadOnly
	if len(shared) == 0 || q.Command != abi.ProgLoad && q.Command != abi.LinkCreate && q.Command != abi.MapCreate {
		return
	}
	for _, f := range q.Files {
		if f.Kind != abi.Map || f.Err != 0 {
			continue
		}
		why := ""
		if id := perform.ObjectID(abi.Map, f.N); id == 0 || slices.Contains(shared, id) {
			why = fmt.Sprintf("the map of id %d to be read alone, and a program could write to it", id)
		} else if s, e := perform.ShapeOf(f.N); e != 0 || s.OfMaps() {
			why = fmt.Sprintf("maps to be read alone, and a program could write to what is in the map of maps of id %d", id)
		}
		if why != "" {
			*d = policy.Decision{Verdict: policy.Deny, Cause: policy.ByRule, Rule: d.Rule, Audit: d.Audit, Errno: uint32(sys.EACCES),
				Message: fmt.Sprintf("policy %q shares %s", t.cfg.Policy.Name(), why)}
			return
		}
	}
}

// counts are limits as they are compared with what is held.
func counts(l *policy.Limits) *facts.Counts {
	if l == nil {
		return nil
	}
	return &facts.Counts{Maps: l.Maps, Progs: l.Progs, Links: l.Links, Bytes: l.Bytes}
}

// made notes that what a call made, and room was taken for, is there. Only then may
// somebody get it: an object that isn't counted could be held for good.
func (t *thread) made(q *request.Request, id uint64) {
	if kind := q.Row.Returns.FD; q.Row.Makes() && (kind == abi.Map || kind == abi.Prog || kind == abi.BTF) {
		t.host.Own(kind, uint32(id))
	}
	if t.claim.Kind == 0 {
		return
	}
	t.claim.ID = uint32(id)
	t.cfg.Holdings.Keep(t.claim)
	t.claim = workload.Held{}
}

// unclaimed gives room back that wasn't needed.
func (t *thread) unclaimed() {
	if t.claim.Kind != 0 {
		t.cfg.Holdings.Drop(t.claim)
		t.claim = workload.Held{}
	}
}

// recorded are the facts that an audit log has: all but those that would have the daemon
// asked at each operation.
var recorded = func() (s facts.Set) {
	for i, f := range facts.Table {
		if !strings.HasPrefix(f.Name, "counts.") {
			s.AddNumber(i)
		}
	}
	return s
}()
