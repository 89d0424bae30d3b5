package audit

import (
	"fmt"
	"io"
	"strings"

	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/learn"
)

// Explain says why an operation was denied: what a loader prints where the verifier's
// log would be.
func Explain(policyName string, d *policy.Decision) string {
	return fmt.Sprintf("bpfbroker: denied by policy %s, %s: %s\n", word(policyName), by(d), strings.TrimSpace(d.Message))
}

// ExplainRecord tells of a record who wanted what, what was decided and why, and if it
// was denied, which rule would allow just that.
func ExplainRecord(w io.Writer, e *Entry) {
	f := &e.Facts
	was := map[policy.Verdict]string{policy.Deny: "was denied", policy.Allow: "was allowed", policy.Native: "was left to the kernel"}[e.Decision.Verdict]
	fmt.Fprintf(w, "%s %s: %s.\n", what(f), was, word(e.Outcome))
	fmt.Fprintf(w, "  who:    workload %s, thread %d\n", word(e.Workload), f.Workload.Thread)
	fmt.Fprintf(w, "  when:   %s, number %d of the workload\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Seq)
	fmt.Fprintf(w, "  policy: %s, %s\n", word(e.Policy), by(&e.Decision))
	if m := e.Decision.Message; m != "" {
		fmt.Fprintf(w, "  why:    %s\n", sentence(m))
	}
	for i, line := range list(e) {
		head := "        "
		if i == 0 {
			head = "facts:  "
		}
		fmt.Fprintf(w, "  %s%s\n", head, line)
	}
	if e.Decision.Verdict != policy.Deny {
		return
	}
	switch e.Decision.Cause {
	case policy.ByLimit:
		fmt.Fprintf(w, "\nRule %s allows it. To allow more of it, raise the rule's limits.\n", word(e.Decision.Rule))
	case policy.ByError:
		fmt.Fprintf(w, "\nNo rule that needs what isn't known can allow it.\n")
	default:
		fmt.Fprintf(w, "\nThis rule allows it, and little else. Put it before the others:\n\n%s", SmallestRule(e))
	}
}

// SmallestRule is the rule, as YAML, that allows the operation, and others only if they
// are alike in all that a rule should be about: not what the workload says of itself,
// and no numbers of objects.
func SmallestRule(e *Entry) string { return learn.Smallest(&e.Facts, e.Cut) }
