package load_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

// TestCeiling shows ceilings of single conditions.
func TestCeiling(t *testing.T) {
	for _, c := range []struct{ command, when, want string }{
		{"map_create", `map.type == "array"`, "array"},
		{"map_create", `map.type in ["array", "hash"] && map.max_entries < 8`, "hash array"},
		{"map_create", `map.max_entries < 8`, "any"},
		{"map_create", `map.type == "array" || map.max_entries < 8`, "any"},
		{"map_create", `!(map.type != "array")`, "array"},
		{"map_create", `map.type == "array" && map.type == "hash"`, ""},
		{"map_create", `map.type.startsWith("percpu_")`, "percpu_hash percpu_array percpu_cgroup_storage"},
		{"map_create", `map.max_entries < 8 ? map.type == "hash" : map.type == "array"`, "hash array"},
		{"map_create", `map.type == map.name`, "any"},
		{"map_create", `"x" == map.name ? map.type == "hash" : map.type == "hash"`, "hash"},
		{"prog_load", `prog.type == "xdp"`, "xdp memory"},
		{"prog_load", `prog.type == "xdp" && prog.helpers == [] && size(prog.kfuncs) == 0`, "xdp"},
		{"prog_load", `prog.type == "xdp" && !(size(prog.helpers) > 0) && prog.kfuncs == []`, "xdp"},
		{"prog_load", `prog.type == "xdp" && size(prog.helpers) < 1 && prog.kfuncs == []`, "xdp memory"}, // more than needed, and so safe
		{"prog_load", `prog.type == "xdp" && prog.helpers.all(h, h in ["bpf_loop"]) && !prog.kfuncs.exists(k, k != "bpf_iter_num_new")`, "xdp"},
		{"prog_load", `prog.type == "xdp" && prog.helpers.all(h, h in ["bpf_loop", "bpf_probe_read"]) && prog.kfuncs.all(k, k in ["a"])`, "xdp memory"},
		{"prog_load", `prog.type == "kprobe" && prog.helpers.all(h, h in ["bpf_loop"]) && prog.kfuncs.all(k, k in ["a"])`, "kprobe memory"},
		{"prog_load", `prog.type in ["xdp"] && prog.attach_type in ["", "xdp"]`, "xdp: cgroup_inet_ingress xdp memory"},
		{"prog_load", `prog.type == "struct_ops" && prog.attach_type == ""`, "struct_ops memory"}, // of members of any number
		{"obj_pin", `object.own`, ""},
	} {
		p, err := load.Parse("p.yaml", fmt.Appendf(nil, `{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [{name: r, commands: [%s], verdict: allow, when: %q}]}}`, c.command, c.when))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		got := ""
		show := func(s policy.Set) string {
			if s.Any {
				return "any"
			}
			return strings.Join(s.Names, " ")
		}
		k := p.Ceiling()
		if c.command == "map_create" {
			got = show(k.Maps)
		} else {
			got = show(k.Progs)
			if !k.Attachs.Any && len(k.Attachs.Names) > 0 {
				got += ": " + show(k.Attachs)
			}
		}
		if k.KernelMemory {
			got += " memory"
		}
		if got != c.want {
			t.Errorf("%s: got %q, wanted %q", c.when, got, c.want)
		}
	}
}

// random makes random policies of conditions that ceilings are made of.
type random struct{ *rand.Rand }

func (r random) pick(s ...string) string { return s[r.IntN(len(s))] }

var (
	mapTypes    = []string{"hash", "array", "struct_ops", "ringbuf"}
	progTypes   = []string{"xdp", "kprobe", "socket_filter", "tracing"}
	attachTypes = []string{"", "xdp", "cgroup_inet_ingress", "trace_fentry"}
	helpers     = []string{"bpf_loop", "bpf_probe_read", "bpf_probe_read_kernel", "bpf_map_lookup_elem", "bpf_trace_printk"}
	kfuncs      = []string{"bpf_rdonly_cast", "bpf_iter_num_new"}
)

func (r random) list(from []string) string {
	var out []string
	for _, s := range from {
		if r.IntN(2) == 0 {
			out = append(out, fmt.Sprintf("%q", s))
		}
	}
	if len(out) == 0 {
		return fmt.Sprintf("[%q]", from[0])
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func (r random) cond(command string, depth int) string {
	if depth > 0 {
		switch r.IntN(6) {
		case 0, 1:
			return "(" + r.cond(command, depth-1) + " && " + r.cond(command, depth-1) + ")"
		case 2:
			return "(" + r.cond(command, depth-1) + " || " + r.cond(command, depth-1) + ")"
		case 3:
			return "!(" + r.cond(command, depth-1) + ")"
		case 4:
			return "(" + r.cond(command, depth-1) + " ? " + r.cond(command, depth-1) + " : " + r.cond(command, depth-1) + ")"
		}
	}
	enum := func(fact string, from []string) string {
		switch r.IntN(3) {
		case 0:
			return fact + r.pick(" == ", " != ") + fmt.Sprintf("%q", from[r.IntN(len(from))])
		case 1:
			return fact + " in " + r.list(from)
		}
		return fact + r.pick(`.startsWith("s")`, `.contains("a")`, `.endsWith("y")`)
	}
	if command == "map_create" {
		if r.IntN(3) == 0 {
			return "map.max_entries " + r.pick("<", ">") + " 4"
		}
		return enum("map.type", mapTypes)
	}
	switch r.IntN(6) {
	case 5:
		return r.pick("size(prog.helpers) == 0", "prog.kfuncs != []", "[] == prog.helpers", "size(prog.kfuncs) > 0", "prog.insns == 0")
	case 0:
		return enum("prog.attach_type", attachTypes)
	case 1:
		return "prog.helpers." + r.pick("all", "exists") + "(h, " + r.pick("", "!") + "(h in " + r.list(helpers) + "))"
	case 2:
		return "prog.kfuncs." + r.pick("all", "exists") + "(k, " + r.pick("", "!") + "(k in " + r.list(kfuncs) + "))"
	case 3:
		return fmt.Sprintf("%q in prog.helpers", helpers[r.IntN(len(helpers))])
	}
	return enum("prog.type", progTypes)
}

// some picks some of a list.
func (r random) some(from []string) []string {
	var out []string
	for _, s := range from {
		if r.IntN(3) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// Whatever a policy allows is within its ceiling, for random policies and operations.
func TestCeilingHolds(t *testing.T) {
	r := random{rand.New(rand.NewPCG(7, 7))}
	n, allowed, policies := 2000, 0, 0
	if testing.Short() {
		n = 200
	}
	for range n {
		var rules []string
		for i := range 1 + r.IntN(4) {
			command := r.pick("map_create", "prog_load")
			rules = append(rules, fmt.Sprintf("{name: r%d, commands: [%s], verdict: %s, when: %q}", i, command, r.pick("allow", "allow", "deny", "native"), r.cond(command, 2)))
		}
		text := "{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [" + strings.Join(rules, ",\n") + "]}}"
		p, err := load.Parse("p.yaml", []byte(text))
		if err != nil {
			continue // the same condition twice
		}
		policies++
		c := p.Ceiling()
		for range 50 {
			f := facts.Facts{Command: r.pick("map_create", "prog_load", "btf_load")}
			switch f.Command {
			case "map_create":
				f.Map.Type, f.Map.MaxEntries = r.pick(append(mapTypes, "99 /* bpf_map_type? */")...), int64(r.IntN(9))
			case "prog_load":
				f.Prog.Type, f.Prog.AttachType = r.pick(append(progTypes, "99 /* bpf_prog_type? */")...), r.pick(attachTypes...)
				f.Prog.Helpers, f.Prog.Kfuncs = r.some(helpers), r.some(kfuncs)
			}
			d := p.Decide(&f)
			known := !strings.HasPrefix(f.Map.Type, "99") && !strings.HasPrefix(f.Prog.Type, "99")
			if known && strings.Contains(d.Message, "none that bpfbroker knows") {
				t.Errorf("the ceiling lacks what a rule allows: %s\n%s\n%+v", text, d.Message, f)
			}
			if d.Verdict != policy.Allow {
				continue
			}
			allowed++
			attach := f.Prog.AttachType
			if attach == "" {
				attach = abi.AttachTypes.Name(0)
			}
			reads := slices.Contains([]string{"kprobe", "tracing"}, f.Prog.Type) || slices.ContainsFunc(f.Prog.Helpers, func(h string) bool {
				return strings.HasPrefix(h, "bpf_probe_read") || h == "bpf_trace_printk"
			}) || slices.Contains(f.Prog.Kfuncs, "bpf_rdonly_cast")
			within := c.Commands.Has(f.Command)
			switch f.Command {
			case "map_create":
				within = within && c.Maps.Has(f.Map.Type)
			case "prog_load":
				within = within && c.Progs.Has(f.Prog.Type) && c.Attachs.Has(attach) && (c.KernelMemory || !reads)
			}
			if !within {
				t.Errorf("allowed beyond the ceiling %+v:\n%s\n%+v", c, text, f)
			}
		}
	}
	if policies < n/2 || allowed < n {
		t.Errorf("%d policies, %d operations allowed: too few to show anything", policies, allowed)
	}
}
