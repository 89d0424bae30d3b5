package confine

// The kernel's numbers, under the kernel's names, written out as in package filter:
// a program for arm64 is also made, and tested, on x86-64. Those of system calls are
// in the list.

// Offsets in struct seccomp_data, include/uapi/linux/seccomp.h. An argument is two
// words, the low one first.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// include/uapi/linux/seccomp.h
const (
	_SECCOMP_RET_KILL_PROCESS = 0x80000000
	_SECCOMP_RET_ERRNO        = 0x00050000
	_SECCOMP_RET_ALLOW        = 0x7fff0000

	_SECCOMP_GET_NOTIF_SIZES = 3

	_SECCOMP_IOCTL_NOTIF_RECV      = 0xc0502100
	_SECCOMP_IOCTL_NOTIF_SEND      = 0xc0182101
	_SECCOMP_IOCTL_NOTIF_ID_VALID  = 0x40082102
	_SECCOMP_IOCTL_NOTIF_ADDFD     = 0x40182103
	_SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104
)

// include/uapi/asm-generic/errno-base.h, errno.h
const (
	_EPERM  = 1
	_ENOSYS = 38
)

// include/uapi/linux/audit.h
const (
	_AUDIT_ARCH_X86_64  = 0xc000003e
	_AUDIT_ARCH_AARCH64 = 0xc00000b7
)

const (
	_X32_SYSCALL_BIT   = 0x40000000 // __X32_SYSCALL_BIT, arch/x86/include/uapi/asm/unistd.h
	_NR_clone3         = 435        // the same on all architectures
	_BPF_MAXINSNS      = 4096       // include/uapi/linux/bpf_common.h
	_BPF_COMMON_ATTRS  = 1 << 16    // include/uapi/linux/bpf.h of kernels after 6.18
	maxConditionalJump = 255        // struct sock_filter holds jt and jf in a byte each
	maxPID             = 1 << 22    // PID_MAX_LIMIT, include/linux/threads.h
)

// Instruction codes, include/uapi/linux/bpf_common.h. All are ones that the kernel's
// action cache can evaluate (seccomp_is_const_allow in kernel/seccomp.c).
const (
	opLoad = 0x20 // BPF_LD | BPF_W | BPF_ABS
	opAnd  = 0x54 // BPF_ALU | BPF_AND | BPF_K
	opJa   = 0x05 // BPF_JMP | BPF_JA
	opJeq  = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	opJge  = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	opRet  = 0x06 // BPF_RET | BPF_K
)

// include/uapi/linux/sched.h
const (
	_CLONE_VM        = 0x00000100
	_CLONE_FS        = 0x00000200
	_CLONE_FILES     = 0x00000400
	_CLONE_SIGHAND   = 0x00000800
	_CLONE_THREAD    = 0x00010000
	_CLONE_SYSVSEM   = 0x00040000
	_CLONE_SETTLS    = 0x00080000
	_CLONE_NEWCGROUP = 0x02000000
	_CLONE_NEWNET    = 0x40000000
)

// include/uapi/asm-generic/fcntl.h; O_DIRECTORY of x86-64, and arm64's own of
// arch/arm64/include/uapi/asm/fcntl.h.
const (
	_O_WRONLY          = 0x1
	_O_EXCL            = 0x80
	_O_CLOEXEC         = 0x80000
	_O_PATH            = 0x200000
	_O_DIRECTORY       = 0x10000
	_O_DIRECTORY_ARM64 = 0x4000

	_F_GETFL         = 3
	_F_SETSIG        = 10
	_F_GETSIG        = 11
	_F_DUPFD_CLOEXEC = 1030 // include/uapi/linux/fcntl.h
)

const (
	_AT_EMPTY_PATH      = 0x1000  // include/uapi/linux/fcntl.h
	_AT_STATX_DONT_SYNC = 0x4000  // include/uapi/linux/stat.h
	_PIDFD_THREAD       = _O_EXCL // include/uapi/linux/pidfd.h
	_SEEK_SET           = 0       // include/uapi/linux/fs.h
	_KCMP_FILES         = 2       // include/uapi/linux/kcmp.h

	_EPOLL_CTL_ADD = 1 // include/uapi/linux/eventpoll.h
	_EPOLL_CTL_DEL = 2

	_AF_UNIX          = 1 // include/linux/socket.h
	_SOCK_STREAM      = 1 // include/linux/net.h
	_SOCK_CLOEXEC     = _O_CLOEXEC
	_MSG_NOSIGNAL     = 0x4000 // include/linux/socket.h
	_MSG_CMSG_CLOEXEC = 0x40000000

	_PR_SET_VMA           = 0x53564d41 // include/uapi/linux/prctl.h
	_PR_SET_VMA_ANON_NAME = 0

	_FUTEX_WAIT         = 0 // include/uapi/linux/futex.h
	_FUTEX_WAKE         = 1
	_FUTEX_PRIVATE_FLAG = 128
)

// include/uapi/asm-generic/mman-common.h, mman.h, include/uapi/linux/mman.h; the same
// on both.
const (
	_PROT_NONE  = 0
	_PROT_READ  = 0x1
	_PROT_WRITE = 0x2

	_MAP_PRIVATE   = 0x02
	_MAP_DROPPABLE = 0x08
	_MAP_FIXED     = 0x10
	_MAP_ANONYMOUS = 0x20
	_MAP_NORESERVE = 0x4000

	_MADV_DONTNEED   = 4
	_MADV_FREE       = 8
	_MADV_HUGEPAGE   = 14
	_MADV_NOHUGEPAGE = 15
	_MADV_COLLAPSE   = 25
)

// Requests of ioctl(), the same on both.
const (
	_PIDFD_GET_CGROUP_NAMESPACE = 0xff01 // include/uapi/linux/pidfd.h
	_PIDFD_GET_NET_NAMESPACE    = 0xff04
	_PIDFD_GET_PID_NAMESPACE    = 0xff05
	_PIDFD_GET_INFO             = 0xc040ff0b // with struct pidfd_info of 64 bytes, PIDFD_INFO_SIZE_VER0
	_NS_GET_USERNS              = 0xb701     // include/uapi/linux/nsfs.h
	_NS_GET_PARENT              = 0xb702
	_NS_GET_PID_FROM_PIDNS      = 0x8004b706
	_NS_GET_PID_IN_PIDNS        = 0x8004b708
	_PROCMAP_QUERY              = 0xc0686611 // include/uapi/linux/fs.h
	_SIOCGIFNAME                = 0x8910     // include/uapi/linux/sockios.h
	_PERF_EVENT_IOC_SET_BPF     = 0x40042408
	_PERF_EVENT_IOC_ID          = 0x80082407 // include/uapi/linux/perf_event.h
)
