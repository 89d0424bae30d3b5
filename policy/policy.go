// Package policy turns facts into decisions. It is pure: no system call, no state of its
// own, and no clock but for rules that expire. Package load reads policies from YAML.
package policy

import (
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

// Limits are how much of each a workload may hold by one rule, or by a whole policy;
// 0: any number.
type Limits struct {
	Maps, Progs, Links int64
	Bytes              int64 // of maps, as the fact map.bytes has it
	Insns              int64 // of one program
}

// Decision is a verdict with its reason.
type Decision struct {
	Verdict Verdict
	Cause   Cause
	Rule    string // the rule's name, ByRule
	Message string // one sentence for the operator
	Errno   uint32 // of a denial; 0: EPERM
	Audit   Audit
	Limits  *Limits // of the rule, nil: none
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
	// Trusts says that the workload is trusted with everything that root may do
	// with bpf().
	Trusts() bool
}
