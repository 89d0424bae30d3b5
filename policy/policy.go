// Package policy turns facts into decisions. It is pure: no system call, no
// clock, no state of its own.
package policy

import (
	"fmt"
	"slices"
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

// builtin is a policy that says the same to every operation.
type builtin struct {
	name, about string
	trusts      bool
	decision    Decision
	ceiling     Ceiling
}

func (b *builtin) Name() string                 { return b.name }
func (b *builtin) Trusts() bool                 { return b.trusts }
func (b *builtin) Ceiling() Ceiling             { return b.ceiling }
func (b *builtin) Decide(*facts.Facts) Decision { return b.decision }
func (b *builtin) Needs(string) facts.Set       { return facts.Set{} }

var builtins = []*builtin{
	{"deny", "allows nothing, and shows at the end what the command would have needed", false,
		Decision{Verdict: Deny, Cause: ByRule, Rule: "deny", Message: "policy deny allows nothing"}, Ceiling{}},
	{"trusted", "allows everything, host-wide effects included: for programs that you would run as root", true,
		Decision{Verdict: Allow, Cause: ByRule, Rule: "trusted", Message: "policy trusted allows everything"},
		Ceiling{Commands: Any, Maps: Any, Progs: Any, Attachs: Any, KernelMemory: true, HostAdmin: "everything that root may do with bpf()"}},
}

// Builtin returns the built-in policy called name. The error of an unknown name
// lists those that there are.
func Builtin(name string) (Policy, error) {
	if p := forTests(name); p != nil { // in builds for tests alone
		return p, nil
	}
	i := slices.IndexFunc(builtins, func(b *builtin) bool { return b.name == name })
	if i < 0 {
		return nil, fmt.Errorf("no policy %q; there are:\n%s", name, Describe())
	}
	return builtins[i], nil
}

// Names lists the built-in policies.
func Names() []string {
	var out []string
	for _, b := range builtins {
		out = append(out, b.name)
	}
	return out
}

// Describe says in a line each what the built-in policies do.
func Describe() string {
	var b strings.Builder
	for _, p := range builtins {
		fmt.Fprintf(&b, "  %-8s %s\n", p.name, p.about)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
