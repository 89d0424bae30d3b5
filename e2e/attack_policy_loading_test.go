package e2e

import (
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
)

// What programs are that a policy doesn't want to be there, whatever they are called and
// wherever in them it is.

const (
	helperKtime     = 5   // bpf_ktime_get_ns
	helperPrintk    = 6   // bpf_trace_printk
	helperSignal    = 109 // bpf_send_signal
	helperProbeRead = 113 // bpf_probe_read_kernel
	helperSetRetval = 187 // bpf_set_retval

	flagSleepable = 1 << 4
	liveFrames    = 1 << 1
	cmdTestRun    = 10
)

func callInsn(src uint8, off int16, imm int32) []byte { return insn(0x85, 0, src, off, imm) }

// subprog is a program whose subprogram is insns.
func subprog(insns ...[]byte) []byte {
	return prog(append([][]byte{callInsn(1, 0, 1), exit}, insns...)...)
}

var (
	stackBuf = prog(insn(0xbf, 1, 10, 0, 0), insn(0x07, 1, 0, 0, -8), insn(0x7a, 10, 0, -8, 0)) // r1 = r10 - 8; *(u64 *)(r10 - 8) = 0
	// reads calls bpf_probe_read_kernel(fp - 8, 8, 0).
	reads = prog(stackBuf, insn(0xb7, 2, 0, 0, 8), insn(0xb7, 3, 0, 0, 0), callInsn(0, 0, helperProbeRead), movR0(0), exit)
	// prints calls bpf_trace_printk("", 8); 5 instructions and the end.
	prints = prog(stackBuf, insn(0xb7, 2, 0, 0, 8), callInsn(0, 0, helperPrintk), movR0(0), exit)
)

// loads is an attack of loading that.
func loads(typ string, insns []byte, more f) func(*attacker) error {
	return func(a *attacker) error { return a.loading(typ, insns, more) }
}

var attacksByLoading = []attack{
	{name: "a program at a tracepoint", denied: by{"network": `prog.type is "tracepoint"`, "container-devices": `prog.type is "tracepoint"`}, do: loads("tracepoint", ret0, nil)},
	{name: "an iterator over maps", denied: all3(`prog.type is "tracing"`), do: iterates("bpf_iter_bpf_map")},
	{name: "an iterator over programs", denied: all3(`prog.type is "tracing"`), do: iterates("bpf_iter_bpf_prog")},
	{name: "an iterator over links", denied: all3(`prog.type is "tracing"`), do: iterates("bpf_iter_bpf_link")},
	// It would make calls to bpf() where no filter sees them.
	{name: "a program of type syscall", denied: all3(`prog.type is "syscall"`), do: loads("syscall", prog(
		stackBuf, insn(0xbf, 2, 1, 0, 0), insn(0xb7, 1, 0, 0, cmdRawTracepoint), insn(0xb7, 3, 0, 0, 8),
		callInsn(0, 0, helperSysBPF), movR0(0), exit), f{"prog_flags": flagSleepable})},
	{name: "a sleepable program", denied: by{"observe": "prog.sleepable is true"}, rule: "BPF_F_SLEEPABLE", do: loads("kprobe", ret0, f{"prog_flags": flagSleepable})},
	{name: "a program that records the kernel's stacks", denied: by{"observe": "prog.kernel_stacks is true"}, rule: `"bpf_get_stackid"`, do: func(a *attacker) error {
		stacks := a.step("stack_trace", a.do("stack_trace", abi.MapCreate, f{"map_type": mapType("stack_trace"), "key_size": 4, "value_size": 8, "max_entries": 1}))
		const stackid, user = 27, 1 << 8
		return a.loading("kprobe", prog(insn(0xb7, 3, 0, 0, user), insn(0x55, 1, 0, 1, 0), insn(0xb7, 3, 0, 0, 0), // by which way is the verifier's to know
			insn(0x18, 2, 1, 0, int32(stacks)), insn(0, 0, 0, 0, 0), callInsn(0, 0, stackid), movR0(0), exit), nil)
	}},
	{name: "a program that writes at tracepoints", denied: all3(`prog.type is "raw_tracepoint_writable"`), do: loads("raw_tracepoint_writable", ret0, nil)},
	// freplace: it would run in another program's place, with what that one may do.
	{name: "a program in the place of a function of its own", denied: all3(`prog.type is "ext"`), mayLack: noTrampolines, do: func(a *attacker) error {
		return a.loading("ext", ret0, f{"attach_prog_fd": a.replaceable(), "attach_btf_id": mainFunc})
	}},
	{name: "a program in the place of a function of another's", denied: all3(`prog.type is "ext"`), mayLack: noTrampolines, do: func(a *attacker) error {
		return a.loading("ext", ret0, f{"attach_prog_fd": a.TC, "attach_btf_id": mainFunc})
	}},
	// Only what loaders probe with: setsockopt(SO_ATTACH_BPF) isn't intercepted, so whoever
	// has a socket filter's fd, its own or a passed one, may have it at its sockets.
	{name: "a socket filter under observe", denied: by{"observe": "prog.insns is 17"}, rule: `prog.type == "socket_filter"`,
		do: loads("socket_filter", prog(slices.Repeat(movR0(0), 16), exit), nil)},
	{name: "a socket filter with packets", denied: by{"observe": `prog.helpers has "bpf_skb_load_bytes"`}, rule: `"bpf_skb_load_bytes"`, do: loads("socket_filter",
		prog(insn(0xb7, 2, 0, 0, 0), insn(0xbf, 3, 10, 0, 0), insn(0x07, 3, 0, 0, -4), insn(0xb7, 4, 0, 0, 4), callInsn(0, 0, 26), movR0(0), exit), nil)},
	{name: "a sender's socket", denied: by{"network": "sockmap would take it over"}, rule: `"sockmap"`, do: func(a *attacker) error {
		socks := a.step("sockmap", a.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1}))
		const update, sk = 2, 168 // offsetof(struct __sk_buff, sk)
		return a.loading("socket_filter", prog(
			insn(0x79, 3, 1, sk, 0), // r3 = skb->sk
			insn(0x55, 3, 0, 2, 0),  // if r3 != 0 goto +2
			movR0(0), exit,
			insn(0x62, 10, 0, -4, 0),  // *(u32 *)(r10 - 4) = 0
			insn(0xbf, 2, 10, 0, 0),   // r2 = r10
			insn(0x07, 2, 0, 0, -4),   // r2 += -4
			ldMap(1, int32(socks), 0), // r1 = the map
			insn(0xb7, 4, 0, 0, 0),    // r4 = 0
			callInsn(0, 0, update), movR0(0), exit), nil)
	}},
}

const (
	noTrampolines = "programs that need a trampoline, which some kernels refuse to root, too"
	mainFunc      = 3 // in simpleBTF
)

// attacksByCalling are about what programs call, in a type that the policy allows.
var attacksByCalling = func() (all []attack) {
	add := func(policy, name, typ, said string, insns []byte) {
		all = append(all, attack{name: name + ": " + typ, denied: by{policy: said}, do: loads(typ, insns, nil)})
	}
	for policy, typ := range map[string]string{"observe": "tracepoint", "network": "socket_filter"} {
		add(policy, "a helper in a subprogram", typ, `prog.helpers has "bpf_probe_read_kernel"`, subprog(reads))
		// The verifier knows that no instruction comes there: but only the verifier.
		add(policy, "a helper behind a jump", typ, `prog.helpers has "bpf_trace_printk"`, prog(movR0(0), insn(0x15, 0, 0, 5, 0), prints))
		add(policy, "a helper where a pointer would be NULL", typ, `prog.helpers has "bpf_trace_printk"`, prog(movR0(0), insn(0x55, 1, 0, 5, 0), prints))
	}
	add("container-devices", "a helper in a subprogram", "cgroup_device", "prog.helpers.size() is 1, not 0", subprog(callInsn(0, 0, helperKtime), movR0(0), exit))
	add("observe", "a helper that does something to others", "tracepoint", `prog.helpers has "bpf_send_signal"`, prog(insn(0xb7, 1, 0, 0, 10), callInsn(0, 0, helperSignal), movR0(0), exit))
	for policy, typ := range map[string]string{"observe": "tracepoint", "network": "socket_filter", "container-devices": "cgroup_device"} {
		said := `prog.kfuncs has "bpf_rdonly_cast"`
		if policy == "container-devices" {
			said = "prog.kfuncs.size() is 1, not 0"
		}
		for where, in := range map[string]func(...[]byte) []byte{"": prog, " in a subprogram": subprog} {
			all = append(all, attack{name: "a kernel function" + where + ": " + typ, denied: by{policy: said}, rule: `"bpf_rdonly_cast"`, do: func(a *attacker) error {
				return a.loading(typ, in(insn(0xb7, 1, 0, 0, 0), insn(0xb7, 2, 0, 0, int32(a.Types["task_struct"])), callInsn(2, 0, int32(a.Types["bpf_rdonly_cast"])), movR0(0), exit),
					f{"fd_array": words(0, 0)})
			}})
		}
		said = "prog.foreign_map_ids.size() is 1, not 0"
		if policy == "container-devices" {
			said = "prog.map_types.size() is 1, not 0"
		}
		all = append(all, attack{name: "another's map in fd_array: " + typ, denied: by{policy: said}, rule: `prog.map_types.all(m, m in ["array"])`, do: func(a *attacker) error {
			return a.loading(typ, useMap(5, 0, 0), f{"fd_array": words(uint32(a.Map))}) // BPF_PSEUDO_MAP_IDX
		}})
	}
	return all
}()

// iterates loads an iterator's program.
func iterates(over string) func(*attacker) error {
	return func(a *attacker) error {
		return a.loading("tracing", ret0, f{"expected_attach_type": attachType("trace_iter"), "attach_btf_id": a.Types[over]})
	}
}

// replaceable is a program of its own whose function could be replaced, of a type that the
// policy allows; container-devices allows no types for it.
func (a *attacker) replaceable() int {
	switch a.policy {
	case "observe":
		return a.step("program", a.withMain("own", "tracepoint"))
	case "container-devices":
		return a.device()
	}
	return a.step("program", a.withMain("own", "socket_filter"))
}

// withMain loads a program whose function has a type.
func (s *script) withMain(name, typ string) int {
	b := s.must(s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}), "btf")
	return s.load(name, typ, ret0, f{"prog_btf_fd": b, "func_info": words(0, mainFunc), "func_info_cnt": 1, "func_info_rec_size": 8})
}
