// Package policy turns facts into decisions. It is pure: no system call, no state of its
// own, and no clock but for rules that expire. Package load reads policies from YAML.
package policy

import (
	"fmt"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Verdict is what happens to an operation. The zero value denies.
type Verdict uint8

const (
	Deny   Verdict = iota
	Allow          // the broker performs it
	Native         // the kernel decides, with the workload's own rights
)

func (v Verdict) String() string { return [...]string{"deny", "allow", "native"}[v] }

// Cause is why a verdict came about. It is apart from the verdict: an error
// denies, but is no denial by a rule.
type Cause uint8

const (
	ByDefault Cause = iota // no rule matched
	ByRule
	ByLimit // the rule matched, and what it allows is used up
	ByError // a fact isn't known, a condition couldn't be evaluated, or the broker itself failed
)

func (c Cause) String() string { return [...]string{"default", "rule", "limit", "error"}[c] }

// Audit is how much of an operation goes to the audit log.
type Audit uint8

const (
	AuditSummary Audit = iota // a record with the facts
	AuditFull                 // and the program's instructions
	AuditNone                 // nothing, but of what is denied
)

func (a Audit) String() string { return [...]string{"summary", "full", "none"}[a] }

// Scope is for whose tasks a program runs, and of whose a perf event tells.
type Scope uint8

const (
	ScopeHost     Scope = iota // all of the host's
	ScopeWorkload              // the workload's own
)

func (s Scope) String() string { return [...]string{"host", "workload"}[s] }

// Limits are how much of each a workload may hold by one rule, or by a whole policy;
// 0: any number.
type Limits struct {
	Maps, Progs, Links int64
	Bytes              int64 // of maps, as the fact map.bytes has it, and of types (BTF)
	Insns              int64 // of one program
}

// counted says whether there are limits of what a workload holds.
func (l *Limits) counted() bool { return l != nil && (l.Maps|l.Progs|l.Links|l.Bytes) != 0 }

// MaxLimit is the largest limit of maps, programs and links: what more a workload holds
// isn't counted.
const MaxLimit = 100_000

// Decision is a verdict with its reason.
type Decision struct {
	Verdict Verdict
	Cause   Cause
	Rule    string // the rule's name, ByRule
	Message string // one sentence for the operator
	Errno   uint32 // of a denial; 0: EPERM
	Audit   Audit
	Scope   Scope // of what is allowed
	PIDs    Scope // whose process ids and users programs are told; the workload's: with that Scope alone
	// Limits are those of the rule, and All those of the whole workload: of what it holds.
	// nil: there are none. Who performs looks at them, see Exceeds.
	Limits, All *Limits
}

// Exceeds is the denial of an operation that the decision allows, but for a limit of
// what: "maps". held is how many, or how much, the workload holds already.
func (d *Decision) Exceeds(ofRule bool, what string, limit, held int64) Decision {
	n := *d
	n.Verdict, n.Cause, n.Errno = Deny, ByLimit, 0
	by := strings.TrimSuffix(d.Message, allowsIt)
	whose := "to this workload"
	if ofRule {
		whose = "by this rule"
	}
	n.Message = fmt.Sprintf("%s allows no more than %d %s %s; it holds %d", by, limit, what, whose, held)
	return n
}

// Unscoped is the denial of an operation that the decision allows with a scope which it
// can't have.
func (d *Decision) Unscoped(why string) Decision {
	n := *d
	n.Verdict, n.Errno = Deny, 0
	n.Message = fmt.Sprintf("%s with scope: %v, which isn't possible: %s", d.Message, d.Scope, why)
	return n
}

// Unnumbered is the denial of one whose programs can't be told the workload's ids.
func (d *Decision) Unnumbered(why string) Decision {
	n := *d
	n.Verdict, n.Errno = Deny, 0
	n.Message = fmt.Sprintf("%s with pids: %v, which isn't possible: %s", d.Message, d.PIDs, why)
	return n
}

// Policy decides operations. Implementations are safe for use by many
// goroutines at once, and keep nothing of what they were asked.
type Policy interface {
	// Name is what users call it.
	Name() string
	// Decide says what happens to the operation that the facts describe.
	Decide(*facts.Facts) Decision
	// Ceiling is what Decide could ever allow.
	Ceiling() Ceiling
	// Needs are the facts that Decide looks at for a command. Others may be missing.
	Needs(command string) facts.Set
	// Counts says whether what the workload holds must be counted: for limits, or for
	// rules that look at it.
	Counts() bool
	// Trusts says that the workload is trusted with everything that root may do
	// with bpf().
	Trusts() bool
}
