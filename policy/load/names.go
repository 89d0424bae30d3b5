package load

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/policy"
)

// nearest returns the name that was probably meant, "" for none.
func nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(name)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k), least); d < least {
			best, least = k, d
		}
	}
	return best
}

// suggest is what a message about an unknown name ends with.
func suggest(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	if len(known) <= 12 {
		return "; there are: " + strings.Join(known, ", ")
	}
	return ""
}

// distance counts what has to be inserted, removed, changed or swapped to make a into b;
// most or more is most.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], most)
}

// domain is the names that a fact can have.
type domain struct {
	what  string
	names []string
}

// helpersText lists all helpers of Linux 6.18, by number (include/uapi/linux/bpf.h,
// ___BPF_FUNC_MAPPER). No more will come: what is new is a kernel function.
//
//go:embed helpers.txt
var helpersText string

func enum(what string, v *abi.Values, more ...string) *domain {
	d := &domain{what: what}
	for i := range v.Names {
		name := v.Name(uint64(i))
		if _, ok := v.Value(name); ok {
			d.names = append(d.names, name)
		}
	}
	d.names = append(d.names, more...)
	return d
}

func flags(what string, v *abi.Values) *domain {
	d := &domain{what: what}
	for _, b := range v.Bits {
		d.names = append(d.names, b.Kernel)
	}
	return d
}

// domains are the facts that have names of a table's for their values.
var domains = sync.OnceValue(func() map[string]*domain {
	maps, progs, attachs := enum("map type", abi.MapTypes), enum("program type", abi.ProgTypes), enum("attach type", abi.AttachTypes, "")
	return map[string]*domain{
		"command":          {"command", policy.Commands()},
		"map.type":         maps,
		"map.flags":        flags("map flag", abi.MapFlags),
		"prog.type":        progs,
		"prog.attach_type": attachs,
		"prog.flags":       flags("program flag", abi.ProgFlags),
		"prog.helpers":     {"helper", strings.Fields(helpersText)},
		"prog.map_types":   maps,
		"prog.target_kind": {"kind of target", []string{"kernel", "module", "program", ""}},
		"attach.type":      attachs,
		"attach.prog_type": enum("program type", abi.ProgTypes, ""),
		"attach.protocol":  {"protocol", []string{"ipv4", "ipv6", ""}},
		"attach.hook":      {"netfilter hook", []string{"prerouting", "input", "forward", "output", "postrouting", ""}},
		"perf_event.type":  enum("event type", abi.EventTypes, "kprobe", "uprobe"),
		"object.kind":      {"kind of object", []string{"map", "prog", "link", "btf", "token", ""}},
	}
})

func (d *domain) has(name string) bool { return slices.Contains(d.names, name) }

// native are the commands that the filter leaves to the kernel on every kernel and under
// every policy.
var native = sync.OnceValue(func() (out []string) {
	for _, row := range abi.Rows() {
		if row.Native && row.NativeSince == "" && row.Command != abi.ProgTestRun {
			out = append(out, row.Name)
		}
	}
	return out
})
