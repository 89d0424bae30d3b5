package policy

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/policy/expr"
)

// The ceiling of rules: for each value that the kernel can enforce, whether any rule could
// allow it, whatever else is true of an operation. What can't be told is allowed.

// derive finds the ceiling.
func (r *Rules) derive() Ceiling {
	var c Ceiling
	for _, name := range []string{"map_create", "prog_load", "btf_load"} {
		if r.could(name, expr.Assume{Is: map[string]string{"command": name}}) {
			c.Commands.Names = append(c.Commands.Names, name)
		}
	}
	if c.Commands.Has("map_create") {
		c.Maps = r.values("map_create", "map.type", abi.MapTypes)
	}
	if !c.Commands.Has("prog_load") {
		return c
	}
	c.Progs = r.values("prog_load", "prog.type", abi.ProgTypes)
	c.Attachs = r.values("prog_load", "prog.attach_type", abi.AttachTypes)
	if c.Progs.Has("struct_ops") && !c.Attachs.Empty() {
		c.Attachs = Any // of those it is a member's number, which a token takes for an attach type
	}
	for _, t := range tracing {
		c.KernelMemory = c.KernelMemory || c.Progs.Has(t)
	}
	for fact, names := range readers {
		for _, n := range names {
			c.KernelMemory = c.KernelMemory ||
				r.could("prog_load", expr.Assume{Is: map[string]string{"command": "prog_load"}, Has: map[string]string{fact: n}})
		}
	}
	return c
}

// values are those of an enum for which a command could be allowed.
func (r *Rules) values(command, fact string, table *abi.Values) Set {
	could := func(v string) bool {
		return r.could(command, expr.Assume{Is: map[string]string{"command": command, fact: v}})
	}
	names := map[string]bool{}
	all := true
	for i := range table.Names {
		n := table.Name(uint64(i))
		if _, ok := table.Value(n); !ok {
			continue // a gap
		}
		ok := could(n)
		all = all && ok
		if ok {
			names[n] = true
		}
	}
	if fact == "prog.attach_type" && could("") {
		names[attachBit("")] = true
	}
	// A value that no rule names is allowed by rules that don't look at it.
	if all && could(fmt.Sprintf("%d /* %s? */", len(table.Names), table.Kernel)) {
		return Any
	}
	return Set{Names: sorted(names, table)}
}

// attachBit is the attach type that the kernel looks up for a program that has none: the
// program says 0 (kernel/bpf/syscall.c, bpf_prog_load).
func attachBit(name string) string {
	if name == "" {
		return abi.AttachTypes.Name(0)
	}
	return name
}

// could says whether any rule could allow the command under the assumptions. A rule that
// denies for certain hides those behind it.
func (r *Rules) could(command string, a expr.Assume) bool {
	for _, u := range r.byName[command].rules {
		o := expr.Always
		if u.cond != nil {
			o = u.cond.Given(a)
		}
		switch {
		case o == expr.Never:
		case u.Verdict == Allow:
			return true
		case o == expr.Always && u.Expires.IsZero():
			return false // denied, or the kernel's
		}
	}
	return false
}

// tracing are the types of programs that the kernel gives addresses of its own, or its
// memory (kernel/bpf/syscall.c, is_perfmon_prog_type), and the loaders, which make calls
// that it decides on by the caller's capabilities.
var tracing = []string{"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm", "struct_ops", "ext", "syscall"}

// readers are the helpers and kernel functions by which programs of any type read the
// kernel's memory or find addresses there: the kernel gives them for CAP_PERFMON
// (kernel/bpf/helpers.c, bpf_base_func_proto).
var readers = map[string][]string{
	"prog.helpers": {"bpf_probe_read", "bpf_probe_read_str", "bpf_probe_read_kernel", "bpf_probe_read_kernel_str",
		"bpf_probe_read_user", "bpf_probe_read_user_str", "bpf_get_current_task", "bpf_get_current_task_btf",
		"bpf_task_pt_regs", "bpf_snprintf_btf", "bpf_snprintf", "bpf_trace_printk", "bpf_trace_vprintk"},
	"prog.kfuncs": {"bpf_rdonly_cast", "bpf_probe_read_kernel_dynptr", "bpf_probe_read_kernel_str_dynptr"},
}
