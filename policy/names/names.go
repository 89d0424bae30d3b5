// Package names knows which values facts can have: those of the kernel's enums and flags.
// A policy that compares such a fact with another value has a mistake in it.
package names

import (
	_ "embed"
	"slices"
	"strings"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Domain is the names that a fact can have.
type Domain struct {
	What  string // "map type"
	Names []string
}

// Has says whether a name is among them.
func (d *Domain) Has(name string) bool { return slices.Contains(d.Names, name) }

// Of returns the names that the fact can have, nil for any.
func Of(fact string) *Domain { return domains()[fact] }

// helpersText lists all helpers of Linux 6.18, by number (include/uapi/linux/bpf.h,
// ___BPF_FUNC_MAPPER). No more will come: what is new is a kernel function.
//
//go:embed helpers.txt
var helpersText string

func enum(what string, v *abi.Values, more ...string) *Domain {
	d := &Domain{What: what}
	for i := range v.Names {
		name := v.Name(uint64(i))
		if _, ok := v.Value(name); ok {
			d.Names = append(d.Names, name)
		}
	}
	d.Names = append(d.Names, more...)
	return d
}

func flags(what string, v *abi.Values) *Domain {
	d := &Domain{What: what}
	for _, b := range v.Bits {
		d.Names = append(d.Names, b.Kernel)
	}
	return d
}

// domains are the facts that have names of a table's for their values.
var domains = sync.OnceValue(func() map[string]*Domain {
	maps, progs, attachs := enum("map type", abi.MapTypes), enum("program type", abi.ProgTypes), enum("attach type", abi.AttachTypes, "")
	return map[string]*Domain{
		"command":           {"command", policy.Commands()},
		"map.type":          maps,
		"map.flags":         flags("map flag", abi.MapFlags),
		"prog.type":         progs,
		"prog.attach_type":  attachs,
		"prog.flags":        flags("program flag", abi.ProgFlags),
		"prog.helpers":      {"helper", strings.Fields(helpersText)},
		"prog.map_types":    maps,
		"prog.target_kind":  {"kind of target", []string{"kernel", "module", "program", ""}},
		"attach.type":       attachs,
		"attach.prog_type":  enum("program type", abi.ProgTypes, ""),
		"attach.protocol":   {"protocol", []string{"ipv4", "ipv6", ""}},
		"attach.hook":       {"netfilter hook", []string{"prerouting", "input", "forward", "output", "postrouting", ""}},
		"perf_event.sample": flags("sample flag", abi.PerfSampleFlags),
		"perf_event.type":   enum("event type", abi.EventTypes, "kprobe", "uprobe"),
		"object.kind":       {"kind of object", []string{"map", "prog", "link", "btf", "token", ""}},
	}
})

// Native are the commands that the filter leaves to the kernel on every kernel and under
// every policy. (BPF_PROG_TEST_RUN it leaves to the broker where there may be loaders, whose
// calls are decided, each by itself.)
var Native = sync.OnceValue(func() (out []string) {
	for _, row := range abi.Rows() {
		if row.Native && row.NativeSince == "" {
			out = append(out, row.Name)
		}
	}
	return out
})
