package audit

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
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

// notSaid are facts that hardly tell one operation from another, though they may differ
// each time: numbers of objects, and what follows from other facts.
var notSaid = map[string]bool{
	"map.key_size": true, "map.value_size": true, "map.bytes": true, "prog.map_ids": true, "prog.target_prog": true, "prog.digest": true,
	"attach.prog_id": true, "attach.ifindex": true, "attach.offsets": true, "attach.pid": true, "perf_event.pid": true, "perf_event.cpu": true,
	"perf_event.offset": true, "object.id": true, "token": true,
}

// atMost are numbers that a rule bounds.
var atMost = map[string]bool{"map.max_entries": true, "prog.insns": true}

// SmallestRule is the rule, as YAML, that allows the operation, and others only if they
// are alike in all that a rule should be about: not what the workload says of itself,
// and no numbers of objects.
func SmallestRule(e *Entry) string {
	var when []string
	for _, i := range factsOf(e.Facts.Command) {
		fact := &facts.Table[i]
		if (fact.Name == "prog.helpers" || fact.Name == "prog.kfuncs") && !e.Has.HasNumber(int(i)) && e.Facts.Unknown.Why(fact.Name) == "" {
			when = append(when, "size("+fact.Name+") == 0") // what a program calls is what it can do
			continue
		}
		if !e.Has.HasNumber(int(i)) || e.Cut.HasNumber(int(i)) || fact.Says || fact.On == nil || notSaid[fact.Name] {
			continue
		}
		switch p := fact.At(&e.Facts).(type) {
		case *string:
			when = append(when, fact.Name+" == "+quote(*p))
		case *int64:
			op := " == "
			if atMost[fact.Name] {
				op = " <= "
			}
			when = append(when, fact.Name+op+strconv.FormatInt(*p, 10))
		case *bool:
			when = append(when, fact.Name) // only what is true is in a record
		case *[]string:
			var names []string
			for _, s := range *p {
				names = append(names, quote(s))
			}
			when = append(when, fact.Name+".all(x, x in ["+strings.Join(names, ", ")+"])")
		}
	}
	name := strings.TrimSuffix(strings.Join([]string{"allow", clean(e.Facts.Command), clean(e.Facts.Kind())}, "-"), "-")
	var b strings.Builder
	fmt.Fprintf(&b, "- name: %s\n  commands: [%s]\n", name, clean(e.Facts.Command))
	if len(when) > 0 {
		b.WriteString("  when: >-\n")
		for i, c := range when {
			if i < len(when)-1 {
				c += " &&"
			}
			fmt.Fprintf(&b, "    %s\n", c)
		}
	}
	b.WriteString("  verdict: allow\n")
	return b.String()
}

// quote is a string as CEL has it. It has no line of its own, and nothing that YAML
// would read otherwise in a folded block.
func quote(s string) string { return strconv.QuoteToASCII(s) }

// clean is a name without what YAML could take for something else.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}
