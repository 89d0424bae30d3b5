// Package loader interprets loader programs: the BPF programs of type
// BPF_PROG_TYPE_SYSCALL by which light skeletons (bpftool gen skeleton -L) make their
// bpf() calls from inside the kernel. Natively such a run has the rights of whoever runs
// it, and nobody decides its calls. Interpreted, each bpf_sys_bpf is a call like any
// other, which the caller decides and performs (Env).
//
// The package makes no system call and needs no kernel. It takes hostile input: what is
// wrong with a program ends in an error, at Parse or at Run.
//
// # Use
//
// Parse takes the instructions of BPF_PROG_LOAD. It fails for whatever Run could not
// interpret, so that a program which will never run can be refused when it is loaded.
// It is no verifier: the caller has the kernel verify the program. The maps that the
// program names (Maps) are found by the caller, when the program is loaded, as the kernel
// does. Run takes what BPF_PROG_TEST_RUN has as ctx_in, changes it in place, and returns
// the retval.
//
// # What is supported
//
//   - Instructions: all of the standardised set (RFC 9669) and what Linux added, up to
//     v4 of the instruction set (movsx, ldsx, bswap, sdiv, smod, gotol), atomic
//     operations, load_acquire and store_release, may_goto, calls of functions.
//     Little-endian programs only.
//   - 64-bit immediates: plain ones, BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE,
//     BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX.
//   - Helpers: those that tools/lib/bpf/gen_loader.c emits (bpf_sys_bpf, bpf_sys_close,
//     bpf_btf_find_by_name_kind, bpf_kallsyms_lookup_name, bpf_copy_from_user,
//     bpf_probe_read_kernel, bpf_trace_printk), and bpf_map_lookup_elem.
//
// bpf_trace_printk (a loader made by bpftool -d calls it) prints nothing and returns 0: the
// host's trace_pipe is no place of the workload's. bpf_probe_read_kernel reads the
// program's own memory, as loaders do to clear their stack; the kernel's is unreadable.
// bpf_map_lookup_elem finds the element 0 of a map that has no other.
//
// # What is not, and why
//
//   - Kfuncs, other helpers, tail calls, callbacks (BPF_PSEUDO_FUNC), the kernel's
//     variables (BPF_PSEUDO_BTF_ID), arenas, indirect jumps: loaders have none of it, and
//     each would be a piece of the kernel to imitate. So a syscall program which is no
//     loader is mostly refused by Parse.
//   - LD_ABS and LD_IND, which are for packets.
//   - What the kernel does about a context that is shorter than the program's accesses
//     (max_ctx_offset, EINVAL before it runs): only the verifier knows. Here the access is
//     an error.
//   - Undefined things are defined: registers that were never written are 0, and so is
//     each new stack frame.
//
// # Memory
//
// A program sees virtual addresses. Each region (the context, stack frames, the value of
// a map, the readable part of a struct bpf_map) has a range of 4 GiB to itself, and an
// access must lie within one region. So there is no address of the broker's to be
// learned, nothing of the broker's to be reached, and arithmetic on pointers is plain
// arithmetic on numbers. The addresses are the same in each run. None can be mistaken for
// an address of user space, and on x86-64 for none of the kernel's either.
//
// Addresses in an attribute are such addresses. Memory reads and writes behind them as
// one reads a target's memory (it has the methods of request.Target and reply.Memory).
// Some fields hold addresses of user space also here, as the kernel has it: log_buf, which
// the context brings along, raw_tracepoint.name, and the arrays of link_create.
//
// # Bounds
//
// A run executes at most MaxSteps instructions, calls at most MaxCalls helpers, of which
// at most MaxSysBPF are bpf_sys_bpf, and copies at most MaxCopied bytes with helpers. Its
// own memory is MaxFrames stack frames; that of the context and the values is the caller's.
// A program has at most MaxInsns instructions and names at most MaxMaps maps. How long a
// call of Env takes is up to Env.
package loader
