package audit

import (
	"fmt"
	"strings"

	"github.com/bpfbroker/bpfbroker/policy"
)

// Explain says why an operation was denied: what a loader prints where the verifier's
// log would be.
func Explain(policyName string, d *policy.Decision) string {
	by := "no rule allows it"
	switch d.Cause {
	case policy.ByRule:
		by = "rule " + d.Rule
	case policy.ByLimit:
		by = "rule " + d.Rule + ", whose limit is reached"
	case policy.ByError:
		by = "it couldn't be decided"
		if d.Rule != "" {
			by = "rule " + d.Rule + " couldn't be decided"
		}
	}
	return fmt.Sprintf("bpfbroker: denied by policy %s, %s: %s\n", policyName, by, strings.TrimSpace(d.Message))
}
