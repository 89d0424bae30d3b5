//go:build attack

package policy

import (
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
)

// forTests are policies with narrow ceilings, for builds that are attacked.
func forTests(name string) Policy {
	for _, p := range []*narrow{arrays, loaders} {
		if p.name == name {
			return p
		}
	}
	if digest, ok := strings.CutPrefix(name, "test-digest-"); ok {
		return &oneProgram{digest}
	}
	return nil
}

// oneProgram allows to load one program, by its digest, and to look at it.
type oneProgram struct{ digest string }

func (p *oneProgram) Name() string { return "test-digest-" + p.digest }
func (p *oneProgram) Trusts() bool { return false }
func (p *oneProgram) Counts() bool { return false }
func (p *oneProgram) Ceiling() Ceiling {
	return Ceiling{Commands: Of("prog_load"), Progs: Of("socket_filter"), Attachs: Of("cgroup_inet_ingress")}
}

func (p *oneProgram) Needs(string) facts.Set {
	var s facts.Set
	s.Add("prog.digest")
	return s
}

func (p *oneProgram) Decide(f *facts.Facts) Decision {
	if f.Command == "obj_get_info_by_fd" || f.Command == "prog_load" && f.Prog.Digest == p.digest {
		return Decision{Verdict: Allow, Cause: ByRule, Rule: "one", Message: "it is that program"}
	}
	return Decision{Verdict: Deny, Cause: ByDefault, Message: "it isn't that program"}
}

// arrays allows array maps and socket filters, and to look at one's own objects.
var arrays = &narrow{
	name: "test-arrays",
	commands: []string{"map_create", "prog_load", "obj_pin", "obj_get", "obj_get_info_by_fd", "prog_query",
		"map_get_fd_by_id", "prog_get_fd_by_id", "link_get_fd_by_id", "btf_get_fd_by_id",
		"map_get_next_id", "prog_get_next_id", "link_get_next_id", "btf_get_next_id"},
	// A program whose attach type doesn't matter says 0, which is an ingress program's.
	ceiling: Ceiling{Commands: Of("map_create", "prog_load"), Maps: Of("array"), Progs: Of("socket_filter"), Attachs: Of("cgroup_inet_ingress")},
}

// loaders allows programs that make the calls of such a policy themselves.
var loaders = &narrow{
	name:     "test-loaders",
	commands: []string{"map_create", "prog_load", "map_get_fd_by_id", "btf_get_next_id", "btf_get_fd_by_id", "obj_get_info_by_fd"},
	ceiling: Ceiling{Commands: Of("map_create", "prog_load"), Maps: Of("array"), Progs: Of("socket_filter", "syscall"), Attachs: Of("cgroup_inet_ingress"),
		KernelMemory: true}, // without which the kernel loads none
}

// narrow allows some commands, within its ceiling.
type narrow struct {
	name     string
	commands []string
	ceiling  Ceiling
}

func (p *narrow) Name() string     { return p.name }
func (p *narrow) Trusts() bool     { return false }
func (p *narrow) Counts() bool     { return false }
func (p *narrow) Ceiling() Ceiling { return p.ceiling }

func (p *narrow) Needs(string) facts.Set {
	var s facts.Set
	s.Add("map.type")
	s.Add("prog.type")
	return s
}

func (p *narrow) Decide(f *facts.Facts) Decision {
	if !slices.Contains(p.commands, f.Command) ||
		f.Map.Type != "" && !p.ceiling.Maps.Has(f.Map.Type) || f.Prog.Type != "" && !p.ceiling.Progs.Has(f.Prog.Type) {
		return Decision{Verdict: Deny, Cause: ByDefault, Message: "outside of " + p.name}
	}
	return Decision{Verdict: Allow, Cause: ByRule, Rule: p.name, Message: "within " + p.name, Audit: AuditFull}
}
