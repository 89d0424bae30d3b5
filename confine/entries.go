package confine

// is matches one number.
func is(name string, n uint64) Value { return Value{name, 1<<64 - 1, n} }

// only matches any of these bits, alone or together, and none.
func only(name string, bits uint64) Value { return Value{"no flag but " + name, ^bits, 0} }

// with matches a bit, alone or with any of the others.
func with(name string, bit uint64, others string, bits uint64) Value {
	return Value{name + " and no other but " + others, ^bits, bit}
}

// none is for flags that aren't used.
var none = is("0", 0)

// arg is a rule for argument n, which the kernel declares as typ name.
func arg(n int, typ, name string, any ...Value) Rule {
	return Rule{Arg: n, Type: typ, Name: name, Any: any}
}

// threadFlags are cloneFlags of the runtime's os_linux.go.
const threadFlags = _CLONE_VM | _CLONE_FS | _CLONE_FILES | _CLONE_SIGHAND | _CLONE_SYSVSEM | _CLONE_THREAD

// entries is the list. Who names functions: of the Go runtime and library as in
// go1.26, of package internal/sys as sys.Thread.Place. A function there that runs
// only before the worker confines itself needs no entry.
//
// How it was made, and is to be made again for a new release of Go: read what
// calls the kernel (runtime/sys_linux_*.s, os_linux.go, mem_linux.go,
// netpoll_epoll.go, internal/runtime/syscall/linux; internal/sys), and compare with
// strace -f of a worker. TestKernel has the runtime do what it can.
var entries = []Entry{
	{
		Name: "bpf", AMD64: 321, ARM64: 280,
		Rules: []Rule{{Arg: 0, Type: "int", Name: "cmd", From: FromCommands}},
		Who:   []string{"sys.BPF"},
		Why:   "what the workload asked for; native commands are none of the worker's",
	},
	{
		Name: "capget", AMD64: 125, ARM64: 90,
		Who: []string{"sys.Isolate"},
		Why: "a new serving thread notes its capabilities, to return to them",
	},
	{
		Name: "capset", AMD64: 126, ARM64: 91,
		Who: []string{"sys.Thread.ActPlain", "sys.Thread.BeSelf"},
		Why: "to open files without capabilities, as the caller may; it can't get one that it hasn't",
	},
	{
		Name: "chroot", AMD64: 161, ARM64: 51,
		Who: []string{"sys.Thread.EnterRoot", "sys.Thread.LeaveRoot"},
		Why: "a path is looked up from the target's root",
	},
	{
		Name: "clock_gettime", AMD64: 228, ARM64: 113,
		Who: []string{"runtime.nanotime", "runtime.walltime"},
		Why: "where the vDSO can't tell the time, by the host's clock source",
	},
	{
		Name: "clone", AMD64: 56, ARM64: 220,
		Rules: []Rule{{
			Arg: 0, Type: "unsigned long", Name: "clone_flags",
			Any:   []Value{is("the runtime's, of a thread", threadFlags|_CLONE_SETTLS)},
			ARM64: []Value{is("the runtime's, of a thread", threadFlags)},
		}},
		Who: []string{"runtime.newosproc"},
		Why: "threads; no process, and no namespace",
	},
	{
		Name: "close", AMD64: 3, ARM64: 57,
		Who: []string{"sys.Close"},
		Why: "all that was opened",
	},
	{
		Name: "close_range", AMD64: 436, ARM64: 436,
		Rules: []Rule{arg(2, "unsigned int", "flags", none)},
		Who:   []string{"sys.Isolate"},
		Why:   "a new serving thread empties its fd table",
	},
	{
		Name: "dup3", AMD64: 292, ARM64: 24,
		Rules: []Rule{arg(2, "int", "flags", is("O_CLOEXEC", _O_CLOEXEC))},
		Who:   []string{"sys.Isolate", "sys.Thread.Place", "sys.Thread.Clear", "sys.Thread.StandIn"},
		Why:   "a target's file gets its number",
	},
	{
		Name: "epoll_ctl", AMD64: 233, ARM64: 21,
		Rules: []Rule{arg(1, "int", "op", is("EPOLL_CTL_ADD", _EPOLL_CTL_ADD), is("EPOLL_CTL_DEL", _EPOLL_CTL_DEL))},
		Who:   []string{"runtime.netpollopen", "runtime.netpollclose"},
		Why:   "files of package os that can be waited for",
	},
	{
		Name: "epoll_pwait", AMD64: 281, ARM64: 22,
		Who: []string{"runtime.netpoll"},
		Why: "the scheduler waits there, for timers as well",
	},
	{
		Name: "exit", AMD64: 60, ARM64: 93,
		Who: []string{"runtime.exitThread"},
		Why: "a serving thread ends with its goroutine",
	},
	{
		Name: "exit_group", AMD64: 231, ARM64: 94,
		Who: []string{"runtime.exit"},
		Why: "the worker's end",
	},
	{
		Name: "fchdir", AMD64: 81, ARM64: 50,
		Who: []string{"sys.Thread.EnterRoot", "sys.Thread.LeaveRoot"},
		Why: "before chroot(\".\"): a root is an fd, not a name",
	},
	{
		Name: "fcntl", AMD64: 72, ARM64: 25,
		Rules: []Rule{arg(1, "unsigned int", "cmd", is("F_DUPFD_CLOEXEC", _F_DUPFD_CLOEXEC), is("F_GETFL", _F_GETFL),
			is("F_SETSIG", _F_SETSIG), is("F_GETSIG", _F_GETSIG))},
		Who: []string{"sys.Thread.NewFD", "sys.Thread.Place", "os.NewFile", "sys.Mark", "sys.MarkOf"},
		Why: "fds of ours make room for a target's; package os asks whether a file blocks; a file that is handed over is marked",
	},
	{
		Name: "fstat", AMD64: 5, ARM64: 80,
		Who: []string{"sys.Inode", "sys.OpenPath", "sys.Isolate"},
		Why: "which namespace it is; what a step of a path is; whether fd 0 is /dev/null",
	},
	{
		Name: "fstatfs", AMD64: 138, ARM64: 44,
		Who: []string{"sys.OpenPath"},
		Why: "whether a path has come to proc",
	},
	{
		Name: "futex", AMD64: 202, ARM64: 98,
		Rules: []Rule{arg(1, "int", "op",
			is("FUTEX_WAIT_PRIVATE", _FUTEX_WAIT|_FUTEX_PRIVATE_FLAG), is("FUTEX_WAKE_PRIVATE", _FUTEX_WAKE|_FUTEX_PRIVATE_FLAG),
			is("FUTEX_WAKE", _FUTEX_WAKE))},
		Who: []string{"runtime.futexsleep", "runtime.futexwakeup", "sys.Park", "sys.Unpark", "sys.Wake"},
		Why: "locks, and idle threads; the daemon, which a call waits for",
	},
	{
		Name: "getdents64", AMD64: 217, ARM64: 61,
		Who: []string{"sys.PIDFromTarget", "sys.FindFDs"},
		Why: "to look for an fd in a target's table; and before kernel 6.11 through /proc for a process",
	},
	{
		Name: "geteuid", AMD64: 107, ARM64: 175,
		Who: []string{"sys.OpenMemory", "sys.FindFDs"},
		Why: "the file system uid to return to",
	},
	{
		Name: "getgid", AMD64: 104, ARM64: 176,
		Who: []string{"sys.Isolate"},
		Why: "a new serving thread notes its ids, to return to them",
	},
	{
		Name: "getpid", AMD64: 39, ARM64: 172,
		Who: []string{"runtime.signalM", "runtime.raise"},
		Why: "the first argument of tgkill",
	},
	{
		Name: "getrandom", AMD64: 318, ARM64: 278,
		Who: []string{"crypto/rand.Read"},
		Why: "where the vDSO has no getrandom; without it crypto/rand ends the process",
	},
	{
		Name: "gettid", AMD64: 186, ARM64: 178,
		Who: []string{"runtime.minit", "runtime.raise"},
		Why: "threads know their ids",
	},
	{
		Name: "getuid", AMD64: 102, ARM64: 174,
		Who: []string{"sys.Isolate"},
		Why: "as getgid",
	},
	{
		Name: "ioctl", AMD64: 16, ARM64: 29,
		Rules: []Rule{arg(1, "unsigned int", "cmd", // the frequent ones first
			is("SECCOMP_IOCTL_NOTIF_RECV", _SECCOMP_IOCTL_NOTIF_RECV),
			is("SECCOMP_IOCTL_NOTIF_ID_VALID", _SECCOMP_IOCTL_NOTIF_ID_VALID),
			is("SECCOMP_IOCTL_NOTIF_SEND", _SECCOMP_IOCTL_NOTIF_SEND),
			is("SECCOMP_IOCTL_NOTIF_ADDFD", _SECCOMP_IOCTL_NOTIF_ADDFD),
			is("PIDFD_GET_INFO", _PIDFD_GET_INFO),
			is("PROCMAP_QUERY", _PROCMAP_QUERY),
			is("PIDFD_GET_NET_NAMESPACE", _PIDFD_GET_NET_NAMESPACE),
			is("PIDFD_GET_CGROUP_NAMESPACE", _PIDFD_GET_CGROUP_NAMESPACE),
			is("PIDFD_GET_PID_NAMESPACE", _PIDFD_GET_PID_NAMESPACE),
			is("NS_GET_PID_FROM_PIDNS", _NS_GET_PID_FROM_PIDNS),
			is("NS_GET_PID_IN_PIDNS", _NS_GET_PID_IN_PIDNS),
			is("NS_GET_USERNS", _NS_GET_USERNS),
			is("NS_GET_PARENT", _NS_GET_PARENT),
			is("SIOCGIFNAME", _SIOCGIFNAME),
			is("SECCOMP_IOCTL_NOTIF_SET_FLAGS", _SECCOMP_IOCTL_NOTIF_SET_FLAGS),
			is("PERF_EVENT_IOC_ID", _PERF_EVENT_IOC_ID),
			is("PERF_EVENT_IOC_SET_BPF", _PERF_EVENT_IOC_SET_BPF))},
		Who: []string{"sys.NotifRecv", "sys.NotifValid", "sys.NotifSend", "sys.NotifAddFD", "sys.NotifSyncWakeUp",
			"sys.PidfdCreds", "sys.PIDOf", "sys.OpenNS", "sys.PIDFromTarget", "sys.PIDInTarget", "sys.Memory.Write", "sys.PerfEventID", "sys.PerfSetBPF",
			"sys.OwnedBelow", "sys.InterfaceName"},
		Why: "the listener; the target's ids, namespaces and mappings; whose a network namespace is, and its interfaces' names; perf events that the daemon has opened; programs on perf events",
	},
	{
		Name: "kcmp", AMD64: 312, ARM64: 272,
		Rules: []Rule{arg(2, "int", "type", is("KCMP_FILES", _KCMP_FILES))},
		Who:   []string{"sys.PidfdOpen"},
		Why:   "whether a thread has its process's fd table; before kernel 6.9",
	},
	{
		Name: "lseek", AMD64: 8, ARM64: 62,
		Rules: []Rule{arg(2, "unsigned int", "whence", is("SEEK_SET", _SEEK_SET))},
		Who:   []string{"sys.Memory.Write"},
		Why:   "/proc/TID/maps is read again; before kernel 6.11",
	},
	{
		Name: "madvise", AMD64: 28, ARM64: 233,
		Rules: []Rule{arg(2, "int", "behavior",
			is("MADV_DONTNEED", _MADV_DONTNEED), is("MADV_FREE", _MADV_FREE), is("MADV_HUGEPAGE", _MADV_HUGEPAGE),
			is("MADV_NOHUGEPAGE", _MADV_NOHUGEPAGE), is("MADV_COLLAPSE", _MADV_COLLAPSE))},
		Who: []string{"runtime.sysUnused", "runtime.sysHugePage", "runtime.sysNoHugePage", "runtime.sysHugePageCollapse", "runtime.sysFault"},
		Why: "memory is given back, and arranged",
	},
	{
		Name: "mmap", AMD64: 9, ARM64: 222,
		Rules: []Rule{
			arg(2, "unsigned long", "prot", only("PROT_READ|PROT_WRITE", _PROT_READ|_PROT_WRITE)),
			arg(3, "unsigned long", "flags", with("MAP_ANONYMOUS", _MAP_ANONYMOUS,
				"MAP_PRIVATE|MAP_FIXED|MAP_NORESERVE|MAP_DROPPABLE", _MAP_PRIVATE|_MAP_FIXED|_MAP_NORESERVE|_MAP_DROPPABLE)),
		},
		Who: []string{"runtime.sysReserve", "runtime.sysMap", "runtime.sysAlloc", "runtime.vgetrandomGetState", "sys.MapGuarded"},
		Why: "memory; no file is mapped, and nothing that can be executed",
	},
	{
		Name: "mprotect", AMD64: 10, ARM64: 226,
		Rules: []Rule{arg(2, "unsigned long", "prot", is("PROT_NONE", _PROT_NONE))},
		Who:   []string{"sys.MapGuarded", "runtime.sysFault"},
		Why:   "a page that can't be touched behind a copy",
	},
	{
		Name: "munmap", AMD64: 11, ARM64: 215,
		Who: []string{"runtime.sysFree", "sys.Mapping.Unmap"},
		Why: "memory is given back",
	},
	{
		Name: "nanosleep", AMD64: 35, ARM64: 101,
		Who: []string{"runtime.usleep", "sys.Pause"},
		Why: "the scheduler's watchdog (sysmon), and spinning threads",
	},
	{
		Name: "newfstatat", AMD64: 262, ARM64: 79,
		Who: []string{"sys.OpenMemory", "sys.FindFDs", "sys.PathExists"},
		Why: "whose /proc/TID/mem is",
	},
	{
		Name: "openat", AMD64: 257, ARM64: 56,
		Rules: []Rule{{
			Arg: 2, Type: "int", Name: "flags",
			Any:   openFlags(_O_DIRECTORY),
			ARM64: openFlags(_O_DIRECTORY_ARM64),
		}},
		Who: []string{"sys.OpenMemory", "sys.OpenNS", "sys.OpenCWD", "sys.OpenPath", "sys.CallerOf", "sys.Groups", "sys.Isolate", "sys.Thread.EnterRoot", "sys.Thread.NetNS", "sys.Comm", "sys.Argv", "sys.TGID"},
		Why: "what /proc says of the target, its root and working directory; for writing, its memory alone",
	},
	{
		Name: "openat2", AMD64: 437, ARM64: 437,
		Who: []string{"sys.OpenPath", "sys.WalkCgroup"},
		Why: "a path of the target's, without a magic link being followed; a cgroup's parent, within its mount; flags are in memory",
	},
	{
		Name: "pidfd_getfd", AMD64: 438, ARM64: 438,
		Rules: []Rule{arg(2, "unsigned int", "flags", none)},
		Who:   []string{"sys.PidfdGetFD"},
		Why:   "the target's files",
	},
	{
		Name: "pidfd_open", AMD64: 434, ARM64: 434,
		Rules: []Rule{arg(1, "unsigned int", "flags", none, is("PIDFD_THREAD", _PIDFD_THREAD))},
		Who:   []string{"sys.PidfdOpen"},
		Why:   "the target, whoever gets its number later",
	},
	{
		Name: "ppoll", AMD64: 271, ARM64: 73,
		Who: []string{"sys.WaitHangUp", "sys.WaitReadable", "sys.NotifPending"},
		Why: "until the workload ends; until the daemon answers; whether more calls wait",
	},
	{
		Name: "prctl", AMD64: 157, ARM64: 167,
		Rules: []Rule{
			arg(0, "int", "option", is("PR_SET_VMA", _PR_SET_VMA)),
			arg(1, "unsigned long", "arg2", is("PR_SET_VMA_ANON_NAME", _PR_SET_VMA_ANON_NAME)),
		},
		Who: []string{"runtime.setVMAName"},
		Why: "the names of mappings in /proc/PID/maps",
	},
	{
		Name: "pread64", AMD64: 17, ARM64: 67,
		Who: []string{"runtime.sysmonUpdateGOMAXPROCS"},
		Why: "the limit of its cgroup; where GOMAXPROCS isn't set",
	},
	{
		Name: "process_vm_readv", AMD64: 310, ARM64: 270,
		Rules: []Rule{arg(5, "unsigned long", "flags", none)},
		Who:   []string{"sys.ReadMemory", "sys.ReadSegments"},
		Why:   "the request, from the target's memory",
	},
	{
		Name: "pwrite64", AMD64: 18, ARM64: 68,
		Who: []string{"sys.Memory.Write"},
		Why: "outputs, to the target's memory",
	},
	{
		Name: "read", AMD64: 0, ARM64: 63,
		Who: []string{"runtime.netpoll", "sys.CallerOf", "sys.Groups", "sys.Memory.Write", "sys.Timer.Wait"},
		Why: "the poller's eventfd; files of /proc; the timer that passes the turn to receive on",
	},
	{
		Name: "readlinkat", AMD64: 267, ARM64: 78,
		Who: []string{"sys.KindOf", "sys.OpenPath", "sys.CallerOf", "sys.UIDInTarget", "sys.FileName", "sys.Exe", "sys.UserNS"},
		Why: "what a file is, and a namespace; links on a path",
	},
	{
		Name: "recvmsg", AMD64: 47, ARM64: 212,
		Rules: []Rule{arg(2, "unsigned int", "flags", is("MSG_CMSG_CLOEXEC", _MSG_CMSG_CLOEXEC))},
		Who:   []string{"sys.RecvWithFDs"},
		Why:   "the daemon's answers, and its fds",
	},
	{
		Name: "restart_syscall", AMD64: 219, ARM64: 128,
		Who: []string{"the kernel"},
		Why: "goes on with a sleep or a wait after SIGSTOP and SIGCONT; the program is asked anew",
	},
	{
		Name: "rt_sigaction", AMD64: 13, ARM64: 134,
		Who: []string{"runtime.dieFromSignal"},
		Why: "to die by a signal, it is made to do what it does by default",
	},
	{
		Name: "rt_sigprocmask", AMD64: 14, ARM64: 135,
		Who: []string{"runtime.newosproc", "runtime.minit", "sys.Isolate"},
		Why: "new threads; a serving thread has all blocked",
	},
	{
		Name: "rt_sigreturn", AMD64: 15, ARM64: 139,
		Who: []string{"runtime.sigreturn__sigaction"},
		Why: "the end of a signal handler",
	},
	{
		Name: "sched_getaffinity", AMD64: 204, ARM64: 123,
		Rules: []Rule{arg(0, "pid_t", "pid", is("0 (the caller)", 0))},
		Who:   []string{"runtime.sysmonUpdateGOMAXPROCS"},
		Why:   "the number of CPUs; where GOMAXPROCS isn't set",
	},
	{
		Name: "sched_yield", AMD64: 24, ARM64: 124,
		Who: []string{"runtime.osyield"},
		Why: "spinning threads",
	},
	{
		Name: "seccomp", AMD64: 317, ARM64: 277,
		Rules: []Rule{arg(0, "unsigned int", "op", is("SECCOMP_GET_NOTIF_SIZES", _SECCOMP_GET_NOTIF_SIZES))},
		Who:   []string{"sys.CheckNotifSizes"},
		Why:   "when the broker starts",
	},
	{
		Name: "sendmsg", AMD64: 46, ARM64: 211,
		Rules: []Rule{arg(2, "unsigned int", "flags", is("MSG_NOSIGNAL", _MSG_NOSIGNAL))},
		Who:   []string{"sys.SendWithFDs"},
		Why:   "to the daemon: calls that it performs, what was made, the report",
	},
	{
		Name: "setfsgid", AMD64: 123, ARM64: 152,
		Who: []string{"sys.Thread.ActAs", "sys.Thread.ActPlain", "sys.Thread.Lift", "sys.Thread.EnterRoot", "sys.Thread.BeSelf"},
		Why: "files are looked up as the caller may",
	},
	{
		Name: "setfsuid", AMD64: 122, ARM64: 151,
		Who: []string{"sys.Thread.ActAs", "sys.Thread.Lift", "sys.Thread.EnterRoot", "sys.OpenMemory", "sys.FindFDs"},
		Why: "as setfsgid; /proc/TID/mem opens for its owner alone",
	},
	{
		Name: "setgroups", AMD64: 116, ARM64: 159,
		Who: []string{"sys.Thread.ActPlain"},
		Why: "as setfsgid",
	},
	{
		Name: "setns", AMD64: 308, ARM64: 268,
		Rules: []Rule{arg(1, "int", "flags", is("CLONE_NEWNET", _CLONE_NEWNET), is("CLONE_NEWCGROUP", _CLONE_NEWCGROUP))},
		Who:   []string{"sys.SetNS"},
		Why:   "interfaces and cgroups are the target's",
	},
	{
		Name: "setresuid", AMD64: 117, ARM64: 147,
		Rules: []Rule{arg(2, "uid_t", "suid", is("-1 (it stays)", 1<<32-1))},
		Who:   []string{"sys.Thread.ActAs", "sys.Thread.ActPlain", "sys.Thread.BeSelf"},
		Why:   "a program shows the uid of who made it; the saved uid is the way back",
	},
	{
		Name: "sigaltstack", AMD64: 131, ARM64: 132,
		Who: []string{"runtime.minit"},
		Why: "the signal stack of a new thread",
	},
	{
		Name: "socket", AMD64: 41, ARM64: 198,
		Rules: []Rule{
			arg(0, "int", "family", is("AF_UNIX", _AF_UNIX)),
			arg(1, "int", "type", is("SOCK_STREAM|SOCK_CLOEXEC", _SOCK_STREAM|_SOCK_CLOEXEC)),
			arg(2, "int", "protocol", none),
		},
		Who: []string{"sys.InterfaceName"},
		Why: "to ask for an interface's name takes a socket; this one can't be connected",
	},
	{
		Name: "statx", AMD64: 332, ARM64: 291,
		Rules: []Rule{arg(2, "unsigned int", "flags", is("AT_EMPTY_PATH|AT_STATX_DONT_SYNC", _AT_EMPTY_PATH|_AT_STATX_DONT_SYNC))},
		Who:   []string{"sys.KindOf", "sys.IDOf"},
		Why:   "the type of a file, and which it is, by what the kernel has cached: no file system is asked",
	},
	{
		Name: "tgkill", AMD64: 234, ARM64: 131,
		Rules: []Rule{{Arg: 0, Type: "pid_t", Name: "tgid", From: FromTGID}},
		Who:   []string{"runtime.signalM", "runtime.raise"},
		Why:   "threads are interrupted for the scheduler and the garbage collector; to die by a signal",
	},
	{
		Name: "timerfd_settime", AMD64: 286, ARM64: 86,
		Rules: []Rule{arg(1, "int", "flags", none)},
		Who:   []string{"sys.Timer.Set"},
		Why:   "a thread that is busy for long passes the turn to receive on",
	},
	{
		Name: "unshare", AMD64: 272, ARM64: 97,
		Rules: []Rule{arg(0, "unsigned long", "unshare_flags", is("CLONE_FILES|CLONE_FS", _CLONE_FILES|_CLONE_FS))},
		Who:   []string{"sys.Isolate"},
		Why:   "a serving thread has an fd table, a root and a working directory of its own",
	},
	{
		Name: "write", AMD64: 1, ARM64: 64,
		Who: []string{"runtime.netpollBreak", "runtime.write"},
		Why: "the poller's eventfd; standard error",
	},
}

// openFlags are openat's. O_RDONLY is 0.
func openFlags(directory uint64) []Value {
	return []Value{
		only("O_CLOEXEC|O_PATH|O_DIRECTORY", _O_CLOEXEC|_O_PATH|directory),
		is("O_WRONLY|O_CLOEXEC", _O_WRONLY|_O_CLOEXEC),
	}
}
