package filter

// The kernel's numbers, under the kernel's names. They are written out, and not
// taken from x/sys, because a program for arm64 is also made, and tested, on
// x86-64; x/sys has the numbers of one architecture at a time.

// Offsets in struct seccomp_data, include/uapi/linux/seccomp.h. A BPF load
// reads 32 bits, so args[0] is two words; both architectures are little-endian,
// and the low word comes first.
const (
	offNr       = 0
	offArch     = 4
	offArg0Low  = 16
	offArg0High = 20
	offArg1Low  = 24
	sizeofData  = 64
)

// include/uapi/linux/seccomp.h
const (
	_SECCOMP_RET_USER_NOTIF  = 0x7fc00000
	_SECCOMP_RET_ERRNO       = 0x00050000
	_SECCOMP_RET_ALLOW       = 0x7fff0000
	_SECCOMP_RET_ACTION_FULL = 0xffff0000
	_SECCOMP_RET_DATA        = 0x0000ffff
)

// include/uapi/asm-generic/errno.h
const _ENOSYS = 38

// include/uapi/linux/audit.h; EM_… of include/uapi/linux/elf-em.h,
// __AUDIT_ARCH_64BIT 0x80000000 and __AUDIT_ARCH_LE 0x40000000 or-ed in.
const (
	_AUDIT_ARCH_X86_64  = 0xc000003e // EM_X86_64, 64 bit, little-endian
	_AUDIT_ARCH_I386    = 0x40000003 // EM_386, little-endian
	_AUDIT_ARCH_AARCH64 = 0xc00000b7 // EM_AARCH64, 64 bit, little-endian
	_AUDIT_ARCH_ARM     = 0x40000028 // EM_ARM, little-endian
)

// The number of bpf() in each ABI.
const (
	_X86_64_NR_bpf     = 321        // arch/x86/entry/syscalls/syscall_64.tbl, "common": x86-64 and x32
	_I386_NR_bpf       = 357        // arch/x86/entry/syscalls/syscall_32.tbl
	_X32_SYSCALL_BIT   = 0x40000000 // __X32_SYSCALL_BIT, arch/x86/include/uapi/asm/unistd.h
	_AARCH64_NR_bpf    = 280        // include/uapi/asm-generic/unistd.h
	_ARM_NR_bpf        = 386        // arch/arm/tools/syscall.tbl
	_BPF_MAXINSNS      = 4096       // include/uapi/linux/bpf_common.h
	_BPF_COMMON_ATTRS  = 1 << 16    // include/uapi/linux/bpf.h of kernels after 6.18
	_BPF_MAP_LOOKUP    = 1          // BPF_MAP_LOOKUP_ELEM, enum bpf_cmd, include/uapi/linux/bpf.h
	maxConditionalJump = 255        // struct sock_filter holds jt and jf in a byte each
)

// The number of perf_event_open() in each native ABI, and of ioctl() in each, from the
// same tables.
const (
	_X86_64_NR_perf_event_open  = 298
	_AARCH64_NR_perf_event_open = 241

	_X86_64_NR_ioctl  = 16
	_X32_NR_ioctl     = _X32_SYSCALL_BIT | 514
	_I386_NR_ioctl    = 54
	_AARCH64_NR_ioctl = 29
	_ARM_NR_ioctl     = 54
)

// What ioctl() does with programs on a perf event, include/uapi/linux/perf_event.h.
const (
	_PERF_EVENT_IOC_SET_BPF   = 0x40042408 // _IOW('$', 8, __u32)
	_PERF_EVENT_IOC_QUERY_BPF = 0xc008240a // _IOWR('$', 10, struct perf_event_query_bpf *)
)

// Instruction codes, include/uapi/linux/bpf_common.h: class, size or operation,
// mode or source, or-ed. These four forms are all that a program is made of, and
// all are ones that the kernel's action cache can evaluate
// (seccomp_is_const_allow in kernel/seccomp.c).
const (
	opLoad = 0x20 // BPF_LD | BPF_W | BPF_ABS
	opJeq  = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	opJge  = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	opRet  = 0x06 // BPF_RET | BPF_K
)
