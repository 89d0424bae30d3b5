package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// try is an attempt.
type try struct {
	name  string
	do    func() string
	why   string // it may be possible, if it may
	token bool   // it makes use of a token
}

type section struct {
	name  string
	tries []try
}

// holds is the section of what isn't an attempt.
const holds = "what it has open"

// goText is the address at which a Go program's text begins, which is no
// position-independent one.
const goText = 0x400000

// tries lists all attempts: what t can do to v.
func tries(v *victims, t *taken) (all []section) {
	in := func(name string) { all = append(all, section{name: name}) }
	add := func(a try) {
		last := &all[len(all)-1]
		last.tries = append(last.tries, a)
	}
	try1 := func(name string, f func(*code), why ...string) {
		add(try{name: name, why: strings.Join(why, ""), do: func() string {
			c := t.code()
			f(c)
			return c.outcome()
		}})
	}
	const here, cloexec = unix.AT_FDCWD, unix.O_CLOEXEC
	workload := fmt.Sprintf("/proc/%d/root", os.Getpid())
	open := func(c *code, path string, flags int) of {
		return c.call(unix.SYS_OPENAT, here, path, flags|cloexec)
	}
	read := func(path string) func(*code) {
		return func(c *code) { c.call(unix.SYS_READ, open(c, path, unix.O_RDONLY), c.room(64), 64) }
	}

	in(holds)
	for _, table := range []string{"self", "thread-self"} {
		what := "files of the process"
		if table == "thread-self" {
			what = "files of a serving thread"
		}
		add(try{name: what, do: func() string { return t.files("/proc/" + table + "/fd") }})
	}

	in("files")
	for _, f := range []string{"/etc/passwd", "/proc/keys", "/proc/kallsyms"} {
		try1("read "+f, read(f))
	}
	for _, f := range []struct {
		name string
		pid  int
	}{{"the daemon", v.Daemon}, {"run", v.Run}} {
		try1("read /etc/passwd by the root of "+f.name, read(fmt.Sprintf("/proc/%d/root/etc/passwd", f.pid)))
		try1("open the working directory of "+f.name, func(c *code) { open(c, fmt.Sprintf("/proc/%d/cwd", f.pid), unix.O_PATH|unix.O_DIRECTORY) })
		try1("list the fds of "+f.name, func(c *code) { open(c, fmt.Sprintf("/proc/%d/fd", f.pid), unix.O_RDONLY|unix.O_DIRECTORY) })
	}
	try1("take the root of the daemon as root", func(c *code) { c.call(unix.SYS_CHROOT, fmt.Sprintf("/proc/%d/root", v.Daemon)) })
	try1("read /etc/shadow by the workload's root", read(workload+"/etc/shadow"))
	try1("write to /etc/passwd by the workload's root", func(c *code) { open(c, workload+"/etc/passwd", unix.O_WRONLY) })
	try1("read /etc/passwd by the root of the daemon in the workload's /proc", read(fmt.Sprintf("%s/proc/%d/root/etc/passwd", workload, v.Daemon)))
	try1("open a file by its handle", func(c *code) {
		handle := binary.NativeEndian.AppendUint32(nil, uint32(len(v.Handle)))
		handle = append(binary.NativeEndian.AppendUint32(handle, uint32(v.HandleType)), v.Handle...)
		c.call(unix.SYS_OPEN_BY_HANDLE_AT, open(c, workload, unix.O_RDONLY|unix.O_DIRECTORY), handle, unix.O_RDONLY|cloexec)
	})
	try1("make a file", func(c *code) {
		how := c.room(24)
		c.put(how, unix.O_CREAT|unix.O_WRONLY|cloexec, 8)
		c.put(how+8, 0o600, 8)
		c.call(unix.SYS_OPENAT2, here, "/new", how, 24)
	})
	try1("make a device here", func(c *code) { c.call(unix.SYS_MKNODAT, here, "/device", unix.S_IFCHR|0o600, 0x101) })
	try1("make a device in the workload's /dev/shm", func(c *code) {
		c.call(unix.SYS_MKNODAT, here, fmt.Sprintf("%s/dev/shm/attack-%d", workload, os.Getpid()), unix.S_IFCHR|0o600, 0x101)
	})
	try1("open a device that only root may open", func(c *code) { open(c, workload+v.Node, unix.O_RDONLY) })
	for _, f := range []string{"sys/kernel/core_pattern", "sys/vm/drop_caches"} {
		try1("open for writing /proc/"+f, func(c *code) { open(c, "/proc/"+f, unix.O_WRONLY) })
		try1("the same by the workload's /proc", func(c *code) { open(c, workload+"/proc/"+f, unix.O_WRONLY) })
	}
	for _, p := range []struct {
		name string
		pid  int
	}{{"the daemon", v.Daemon}, {"itself", int(t.PID)}} {
		try1("move "+p.name+" to the workload's cgroup", func(c *code) {
			n := strconv.Itoa(p.pid)
			c.call(unix.SYS_WRITE, open(c, workload+"/sys/fs/cgroup/cgroup.procs", unix.O_WRONLY), n, len(n))
		})
	}
	try1("make the ledger smaller", func(c *code) {
		how := c.room(24)
		c.put(how, unix.O_RDWR|unix.O_TRUNC|cloexec, 8)
		c.call(unix.SYS_OPENAT2, here, "/proc/self/fd/5", how, 24)
	})
	try1("open the worker's binary for writing", func(c *code) { open(c, "/proc/self/exe", unix.O_WRONLY) })
	try1("read the worker's binary", read("/proc/self/exe"), "it isn't secret")

	in("other processes")
	for _, p := range []struct {
		name string
		pid  int
	}{
		{"run", v.Run}, {"the daemon", v.Daemon}, {"the guardian", v.Guardian}, {"a process of root's", v.Host},
		{"another workload's process", v.Other}, {"another workload's worker", v.OtherWorker},
	} {
		proc := fmt.Sprintf("/proc/%d/", p.pid)
		try1("see "+p.name+" in /proc", read(proc+"stat"))
		try1("signal "+p.name, func(c *code) { c.call(unix.SYS_KILL, p.pid, 0) })
		try1("signal it by a pidfd", func(c *code) {
			c.call(unix.SYS_PIDFD_SEND_SIGNAL, c.call(unix.SYS_PIDFD_OPEN, p.pid, 0), 0, 0, 0)
		})
		try1("trace it", func(c *code) { c.call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, p.pid, 0, 0) })
		try1("read its memory", func(c *code) {
			local, remote := c.room(16), c.room(16)
			c.put(local, c.room(64), 8)
			c.put(local+8, 64, 8)
			c.put(remote, goText, 8)
			c.put(remote+8, 64, 8)
			c.call(unix.SYS_PROCESS_VM_READV, p.pid, local, 1, remote, 1, 0)
		})
		try1("write to its memory", func(c *code) {
			local, remote := c.room(16), c.room(16)
			c.put(local, c.room(64), 8)
			c.put(local+8, 64, 8)
			c.put(remote, goText, 8)
			c.put(remote+8, 64, 8)
			c.call(unix.SYS_PROCESS_VM_WRITEV, p.pid, local, 1, remote, 1, 0)
			c.done(unix.EFAULT) // text
		})
		try1("open its memory for writing", func(c *code) {
			if t.Token < 0 && p.pid == v.Other { // whose file it is
				c.call(unix.SYS_SETFSUID, v.UID)
			}
			open(c, proc+"mem", unix.O_WRONLY)
		})
		try1("take its standard input", func(c *code) { c.call(unix.SYS_PIDFD_GETFD, c.call(unix.SYS_PIDFD_OPEN, p.pid, 0), 0, 0) })
		try1("open its root", func(c *code) { open(c, proc+"root", unix.O_PATH|unix.O_DIRECTORY) })
		try1("change its limits", func(c *code) {
			old := c.room(16)
			c.call(unix.SYS_PRLIMIT64, p.pid, unix.RLIMIT_CORE, 0, old)
			c.call(unix.SYS_PRLIMIT64, p.pid, unix.RLIMIT_CORE, old, 0)
		})
	}

	in("namespaces and mounts")
	for _, ns := range []struct {
		name string
		flag int
	}{
		{"user", unix.CLONE_NEWUSER}, {"mount", unix.CLONE_NEWNS}, {"network", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID},
		{"IPC", unix.CLONE_NEWIPC}, {"UTS", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP},
	} {
		try1("enter the "+ns.name+" namespace of root's process", func(c *code) {
			c.call(unix.SYS_SETNS, c.call(unix.SYS_PIDFD_OPEN, v.Host, 0), ns.flag)
		})
	}
	try1("the same, by PIDFD_GET_NET_NAMESPACE", func(c *code) {
		c.call(unix.SYS_SETNS, c.call(unix.SYS_IOCTL, c.call(unix.SYS_PIDFD_OPEN, v.Host, 0), 0xff04, 0), unix.CLONE_NEWNET)
	})
	try1("the same, by /proc/PID/ns/net", func(c *code) {
		c.call(unix.SYS_SETNS, open(c, fmt.Sprintf("/proc/%d/ns/net", v.Host), unix.O_RDONLY), unix.CLONE_NEWNET)
	})
	try1("enter the workload's mount namespace", func(c *code) {
		c.call(unix.SYS_SETNS, c.call(unix.SYS_PIDFD_OPEN, os.Getpid(), 0), unix.CLONE_NEWNS)
	}, "it is the workload's")
	try1("make a user namespace", func(c *code) { c.call(unix.SYS_CLONE, unix.CLONE_NEWUSER|int(unix.SIGCHLD), 0, 0, 0, 0) }, "with rights in it alone")
	// What follows is in a copy of its mount namespace, so that the worker goes on.
	inCopy := func(name string, f func(*code), why ...string) {
		try1(name, func(c *code) {
			c.call(unix.SYS_UNSHARE, unix.CLONE_NEWNS)
			f(c)
		}, why...)
	}
	mount := func(c *code, fsType, where string, flags int) {
		c.call(unix.SYS_MOUNT, fsType, where, fsType, flags, 0)
	}
	inCopy("copy the mount namespace", func(*code) {}, "there is nothing in it")
	inCopy("mount tmpfs", func(c *code) { mount(c, "tmpfs", "/proc", 0) }, "there is nothing in it")
	for _, fs := range []string{"proc", "sysfs", "cgroup2", "cgroup", "mqueue", "debugfs", "tracefs", "devtmpfs", "bpf"} {
		inCopy("mount "+fs, func(c *code) { mount(c, fs, "/proc", 0) })
	}
	inCopy("unmount /proc", func(c *code) { c.call(unix.SYS_UMOUNT2, "/proc", unix.MNT_DETACH) })
	inCopy("make the root writable", func(c *code) {
		attrs := c.room(32)
		c.put(attrs+8, unix.MOUNT_ATTR_RDONLY, 8)
		c.call(unix.SYS_MOUNT_SETATTR, here, "/", 0, attrs, 32)
	})
	inCopy("exchange the root", func(c *code) { c.call(unix.SYS_PIVOT_ROOT, "/proc", "/proc") })
	inCopy("mount the workload's root here", func(c *code) { c.call(unix.SYS_MOUNT, workload, "/proc", 0, unix.MS_BIND|unix.MS_REC, 0) })
	inCopy("clone the workload's mounts", func(c *code) { c.call(unix.SYS_OPEN_TREE, here, workload, 1|cloexec|unix.AT_RECURSIVE) })
	inCopy("begin a bpffs that delegates more", func(c *code) {
		fs := c.call(unix.SYS_FSOPEN, "bpf", 1)
		c.call(unix.SYS_FSCONFIG, fs, 1, "delegate_cmds", "any", 0)
	})
	inCopy("create a bpffs", func(c *code) {
		c.call(unix.SYS_FSCONFIG, c.call(unix.SYS_FSOPEN, "bpf", 1), 6, 0, 0, 0)
	})
	try1("the next mount namespace (NS_MNT_GET_NEXT)", func(c *code) {
		c.call(unix.SYS_IOCTL, open(c, "/proc/self/ns/mnt", unix.O_RDONLY), 0x8010b70b, c.room(16))
	})

	in("rights")
	try1("take all capabilities", func(c *code) {
		header := c.room(8)
		c.put(header, unix.LINUX_CAPABILITY_VERSION_3, 4)
		c.call(unix.SYS_CAPSET, header, bytes.Repeat([]byte{0xff}, 24))
	})
	try1("become a uid that the workload hasn't", func(c *code) { c.call(unix.SYS_SETRESUID, 1<<30, 1<<30, 1<<30) })
	try1("become a uid that the workload has", func(c *code) { c.call(unix.SYS_SETRESUID, 1000, 1000, 1000) }, "the workload may")
	try1("join a group that the workload hasn't", func(c *code) {
		c.call(unix.SYS_SETGROUPS, 1, binary.NativeEndian.AppendUint32(nil, 1<<30))
	})
	try1("let itself be traced (PR_SET_DUMPABLE)", func(c *code) {
		c.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		c.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}, "by the workload, which has it anyway")
	try1("execute a program of the workload's", func(c *code) {
		c.call(unix.SYS_EXECVEAT, open(c, workload+"/bin/true", unix.O_PATH), "", 1, 0, unix.AT_EMPTY_PATH)
		c.done(unix.EFAULT) // the arguments
	}, "it runs with the worker's rights")
	try1("execute itself", func(c *code) {
		c.call(unix.SYS_EXECVE, "/proc/self/exe", 1, 0)
		c.done(unix.EFAULT)
	}, "it runs with the worker's rights")
	try1("make a process", func(c *code) { c.call(unix.SYS_CLONE, int(unix.SIGCHLD), 0, 0, 0, 0) }, "it has the worker's rights")
	try1("make executable memory", func(c *code) {
		c.call(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, 1<<32-1, 0)
	}, "it executes code anyway")
	try1("write to its own text (/proc/self/mem)", func(c *code) {
		text := c.room(8)
		c.call(unix.SYS_PREAD64, open(c, "/proc/self/mem", unix.O_RDONLY), text, 8, goText)
		c.call(unix.SYS_PWRITE64, open(c, "/proc/self/mem", unix.O_WRONLY), text, 8, goText)
	}, "it executes code anyway")
	if runtime.GOARCH == "amd64" {
		try1("make a system call of a foreign ABI (x32)", func(c *code) { c.call(1<<30 | unix.SYS_GETPID) })
	}
	try1("find a key of run's session", func(c *code) {
		key := c.call(unix.SYS_KEYCTL, unix.KEYCTL_SEARCH, unix.KEY_SPEC_SESSION_KEYRING, "user", secretKey, 0)
		c.call(unix.SYS_KEYCTL, unix.KEYCTL_READ, key, c.room(64), 64, 0)
	})
	try1("add a key", func(c *code) {
		c.call(unix.SYS_ADD_KEY, "user", "attack", "attack", 6, unix.KEY_SPEC_PROCESS_KEYRING)
	}, "to its own keyring")

	in("the rest of the kernel")
	for _, s := range []struct {
		name        string
		domain, typ int
		why         string
	}{
		{"AF_UNIX", unix.AF_UNIX, unix.SOCK_STREAM, "the workload may"},
		{"AF_INET", unix.AF_INET, unix.SOCK_STREAM, "the workload may"},
		{"AF_NETLINK", unix.AF_NETLINK, unix.SOCK_RAW, "the workload may"},
		{"AF_PACKET", unix.AF_PACKET, unix.SOCK_RAW, ""},
	} {
		try1("make a socket "+s.name, func(c *code) { c.call(unix.SYS_SOCKET, s.domain, s.typ|cloexec, 0) }, s.why)
	}
	try1("bind its channel to a name", func(c *code) {
		name := binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX)
		name = append(name, "\x00bpfbroker-attack"...)
		c.call(unix.SYS_BIND, t.Channel, name, len(name))
	}, "of its network namespace")
	try1("type into run's terminal (TIOCSTI)", func(c *code) { c.call(unix.SYS_IOCTL, 2, unix.TIOCSTI, "x") })
	try1("read shared memory of the host's that everybody may read", func(c *code) { c.call(unix.SYS_SHMAT, v.Shm, 0, unix.SHM_RDONLY) })
	try1("perf_event_open of a CPU", func(c *code) {
		c.call(unix.SYS_PERF_EVENT_OPEN, softwareClock(), -1, 0, -1, 8)
	})
	try1("io_uring_setup", func(c *code) { c.call(unix.SYS_IO_URING_SETUP, 8, c.room(120)) }, "the workload may")
	try1("userfaultfd", func(c *code) { c.call(unix.SYS_USERFAULTFD, cloexec) })
	try1("memfd_create", func(c *code) { c.call(unix.SYS_MEMFD_CREATE, "attack", 1) }, "the workload may")
	try1("reboot", func(c *code) { // but for what would do harm
		c.call(unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, unix.LINUX_REBOOT_CMD_CAD_OFF, 0)
	})
	try1("set the host's name", func(c *code) {
		c.call(unix.SYS_SETHOSTNAME, 1, 1)
		c.done(unix.EFAULT)
	})
	try1("set the clock", func(c *code) { c.call(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, c.room(16)) })

	in("bpf(), directly")
	attempt := func(name string, token bool, cmd, size int, f func(c *code, a at), why ...string) {
		add(try{name: name, token: token, why: strings.Join(why, ""), do: func() string {
			c := t.code()
			a := c.room(256)
			f(c, a)
			c.call(unix.SYS_BPF, cmd, a, size)
			return c.outcome()
		}})
	}
	const tokenFlag = 1 << 16 // BPF_F_TOKEN_FD
	makeMap := func(m [5]uint32, token bool) func(*code, at) {
		return func(c *code, a at) {
			for i, n := range m {
				c.put(a+at(4*i), n, 4)
			}
			if token {
				c.put(a+16, tokenFlag|m[4], 4)
				c.put(a+76, t.Token, 4)
			}
		}
	}
	loadProg := func(typ, attach, flags uint32, insns []byte, token bool) func(*code, at) {
		return func(c *code, a at) {
			c.put(a, typ, 4)
			c.put(a+44, flags, 4)
			c.put(a+68, attach, 4)
			c.put(a+4, len(insns)/8, 4)
			c.put(a+8, c.bytes(insns), 8)
			c.put(a+16, c.bytes(gpl), 8)
			if token {
				c.put(a+44, tokenFlag|flags, 4)
				c.put(a+144, t.Token, 4)
			}
		}
	}
	for _, m := range []struct {
		name string
		attr [5]uint32 // type, sizes of key and value, entries, flags
	}{
		{"array", [5]uint32{2, 4, 4, 1}}, {"hash", [5]uint32{1, 4, 4, 1}}, {"prog_array", [5]uint32{3, 4, 4, 1}},
		{"perf_event_array", [5]uint32{4, 4, 4, 1}}, {"stack_trace", [5]uint32{7, 4, 8, 1}}, {"cgroup_array", [5]uint32{8, 4, 4, 1}},
		{"lpm_trie", [5]uint32{11, 8, 4, 1, noPrealloc}}, {"sockmap", [5]uint32{15, 4, 4, 1}}, {"xskmap", [5]uint32{17, 4, 4, 1}},
		{"ringbuf", [5]uint32{27, 0, 0, 4096}},
	} {
		why := ""
		if m.name == "array" {
			why = "the policy allows it"
		}
		attempt("create a map of type "+m.name, false, cmdMapCreate, 72, makeMap(m.attr, false))
		attempt("the same, with the token", true, cmdMapCreate, 80, makeMap(m.attr, true), why)
	}
	for _, p := range []struct {
		name               string
		typ, attach, flags uint32
	}{
		{"socket_filter", 1, 0, 0}, {"kprobe", 2, 0, 0}, {"sched_cls", 3, 0, 0}, {"tracepoint", 5, 0, 0}, {"xdp", 6, 0, 0}, {"perf_event", 7, 0, 0},
		{"cgroup_skb", 8, 0, 0}, {"cgroup_device", 15, 6, 0}, {"raw_tracepoint", 17, 0, 0}, {"sk_lookup", 30, 36, 0},
		{"syscall", 31, 0, 1 << 4}, {"netfilter", 32, 45, 0},
	} {
		why := ""
		if p.name == "socket_filter" {
			why = "the policy allows it"
		}
		attempt("load a program of type "+p.name, false, cmdProgLoad, 144, loadProg(p.typ, p.attach, p.flags, returns(0), false))
		attempt("the same, with the token", true, cmdProgLoad, 152, loadProg(p.typ, p.attach, p.flags, returns(0), true), why)
	}
	attempt("load a socket filter that reads the kernel's memory", false, cmdProgLoad, 144, loadProg(1, 0, 0, readsKernel(), false))
	attempt("the same, with the token", true, cmdProgLoad, 152, loadProg(1, 0, 0, readsKernel(), true))
	btf := func(token bool) func(*code, at) {
		return func(c *code, a at) {
			b := smallBTF()
			c.put(a, c.bytes(b), 8)
			c.put(a+16, len(b), 4)
			if token {
				c.put(a+32, tokenFlag, 4)
				c.put(a+36, t.Token, 4)
			}
		}
	}
	attempt("load a BTF", false, cmdBTFLoad, 40, btf(false))
	attempt("the same, with the token", true, cmdBTFLoad, 40, btf(true))
	attempt("make a token from the workload's bpffs", false, 36, 8, func(c *code, a at) {
		c.put(a+4, open(c, workload+"/sys/fs/bpf", unix.O_RDONLY|unix.O_DIRECTORY), 4)
	})
	for _, o := range []struct {
		name       string
		next, byID int
		id         uint32
	}{{"map", cmdMapNextID, cmdMapByID, v.Map}, {"program", cmdProgNextID, cmdProgByID, v.Prog}, {"link", 31, 30, v.Link}, {"BTF", 23, 19, v.BTF}} {
		attempt("list the host's: "+o.name, false, o.next, 12, func(*code, at) {})
		attempt("open the host's by id: "+o.name, false, o.byID, 12, func(c *code, a at) { c.put(a, o.id, 4) })
	}
	attempt("open the host's BTF by id, with the token", true, 19, 16, func(c *code, a at) {
		c.put(a, v.BTF, 4)
		c.put(a+8, tokenFlag, 4)
		c.put(a+12, t.Token, 4)
	})
	attempt("open another workload's by id: map", false, cmdMapByID, 12, func(c *code, a at) { c.put(a, v.OtherMap, 4) })
	attempt("count run times of all programs", false, 32, 4, func(*code, at) {})

	in("the daemon, over the channel")
	talk := func(name string, f func(*code), why ...string) {
		add(try{name: name, why: strings.Join(why, ""), do: func() string {
			c := t.code()
			f(c)
			return c.answered()
		}})
	}
	byID := func(cmd int, id uint32) hostCall {
		return hostCall{command: uint32(cmd), attr: new(attr).u32(0, id)[:12]}
	}
	for _, o := range []struct {
		name string
		call hostCall
	}{
		{"open the host's by id: map", byID(cmdMapByID, v.Map)},
		{"open the host's by id: program", byID(cmdProgByID, v.Prog)},
		{"open the host's by id: link", byID(30, v.Link)},
		{"open the host's by id: BTF", byID(19, v.BTF)},
		{"open another workload's by id: map", byID(cmdMapByID, v.OtherMap)},
		{"list maps", byID(cmdMapNextID, 0)},
		{"list programs", byID(cmdProgNextID, 0)},
		{"list links", byID(31, 0)},
		{"the last BTF, if it is another's", byID(23, v.BTF-1)},
		{"what the policy denies: perf_event_open of all CPUs", hostCall{perf: true, command: math32, attr: softwareClock()}},
		{"what the policy denies: task_fd_query of run", hostCall{command: 20, attr: new(attr).u32(0, uint32(v.Run)).u32(4, 2)[:48]}},
		{"what the policy denies: enable_stats", hostCall{command: 32, attr: make([]byte, 4)}},
		{"what takes no help: map_create of an array", hostCall{command: cmdMapCreate, attr: new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1)[:72]}},
		{"what takes no help: prog_load", hostCall{command: cmdProgLoad, attr: new(attr).u32(0, 6)[:144]}},
		{"what takes no help: obj_get", hostCall{command: cmdObjGet, attr: make([]byte, 16)}},
		{"what is native: map_lookup_elem", hostCall{command: cmdMapLookup, attr: make([]byte, 32)}},
		{"a command that there isn't", hostCall{command: 9999, attr: make([]byte, 16)}},
		{"a call whose memory isn't with it", hostCall{command: cmdMapByID, attr: make([]byte, 12), segments: bytes.Repeat([]byte{0}, 12)}},
		{"of an interface, without a network namespace", hostCall{command: 16, attr: new(attr).u32(0, 1).u32(4, 37)[:72]}},
	} {
		talk(o.name, func(c *code) { c.packet(o.call.packet()) })
	}
	talk("open the kernel's BTF by id", func(c *code) { c.packet(byID(19, 1).packet()) }, "it is everybody's")
	null := func(c *code) of { return c.call(unix.SYS_FCNTL, t.Listener, unix.F_DUPFD_CLOEXEC, 0) }
	talk("of an interface, with a listener as network namespace", func(c *code) {
		h := hostCall{command: 16, attr: new(attr).u32(0, 1).u32(4, 37)[:72], netNS: true}
		c.packet(h.packet(), null(c))
	})
	talk("of an interface, with its mount namespace as network namespace", func(c *code) {
		h := hostCall{command: 16, attr: new(attr).u32(0, 1).u32(4, 37)[:72], netNS: true}
		c.packet(h.packet(), open(c, "/proc/self/ns/mnt", unix.O_RDONLY))
	})
	talk("a program query of a listener as cgroup", func(c *code) {
		h := hostCall{command: 16, attr: new(attr).u32(0, 7).u32(4, 0)[:72], numbers: []int32{7}}
		c.packet(h.packet(), null(c))
	})
	for _, fd := range []struct {
		name string
		fd   func(*code) of
	}{
		{"a listener", null},
		{"a pipe's end", func(c *code) of {
			p := c.room(8)
			c.call(unix.SYS_PIPE2, p, cloexec)
			return null(c)
		}},
		{"a file called bpf-map", func(c *code) of { return c.call(unix.SYS_MEMFD_CREATE, "bpf-map", 1) }},
		{"the channel itself", func(c *code) of { return c.call(unix.SYS_FCNTL, t.Channel, unix.F_DUPFD_CLOEXEC, 0) }},
	} {
		talk("claim "+fd.name+" as an object, then ask for the host's map", func(c *code) {
			c.packet([]byte{kindMade}, fd.fd(c))
			c.packet(byID(cmdMapByID, v.Map).packet())
		})
	}
	talk("claim 250 objects at once, then ask for the host's map", func(c *code) {
		fd := null(c)
		c.packet([]byte{kindMade}, slices.Repeat([]any{fd}, 250)...)
		c.packet(byID(cmdMapByID, v.Map).packet())
	})
	talk("claim nothing, then ask for the host's map", func(c *code) {
		c.packet([]byte{kindMade})
		c.packet([]byte{kindReady})
		c.packet(byID(cmdMapByID, v.Map).packet())
	})
	whole := byID(cmdMapByID, v.Map).packet()
	for _, p := range []struct {
		name string
		data []byte
		fds  int
	}{
		{"ask for a token once more", []byte{kindBPFFS}, 1},
		{"ask for a token without a bpffs", []byte{kindBPFFS}, 0},
		{"say that it can't serve", []byte{kindError, 'x'}, 0},
		{"an empty packet", nil, 0},
		{"a packet of no kind", []byte{0}, 0},
		{"a packet of another kind", []byte{255}, 0},
		{"a packet from the daemon", []byte{kindDone, 0, 0, 0, 0}, 0},
		{"a call that is cut off", whole[:len(whole)-1], 0},
		{"a call with something behind it", append(slices.Clone(whole), 0), 0},
		{"a call with 255 fds that aren't there", patched(whole, 79, 255), 0},
		{"a call with 255 pieces of memory", patched(whole, 80, 255), 0},
		{"a call with more memory than there is", patched(whole, 92, 0xff), 0},
		{"a call with unknown flags", patched(whole, 2, 0xff), 0},
		{"a call with fds that it doesn't name", whole, 3},
		{"a call with 250 fds", whole, 250},
		{"64 KiB of anything", bytes.Repeat([]byte{kindCall}, 64<<10), 0},
		{"100 KiB of anything", bytes.Repeat([]byte{kindCall}, 100<<10), 0},
	} {
		talk(p.name, func(c *code) {
			var fds []any
			if p.fds > 0 {
				fds = slices.Repeat([]any{null(c)}, p.fds)
			}
			c.packet(p.data, fds...)
		})
	}
	try1("ask 200 times, take no answer, and end", func(c *code) {
		for range 200 {
			c.packet(byID(cmdMapByID, v.Map).packet())
			c.done(unix.EAGAIN) // the daemon waits, too
		}
		c.call(unix.SYS_EXIT_GROUP, 0)
	})
	return all
}

const math32 = 1<<32 - 1

func patched(b []byte, i int, v byte) []byte {
	b = slices.Clone(b)
	b[i] = v
	return b
}

// softwareClock is a perf_event_attr: PERF_COUNT_SW_CPU_CLOCK.
func softwareClock() []byte {
	b := make([]byte, 128)
	b[0], b[4] = 1, 128
	return b
}

// readsKernel is a program that copies from any address, with
// bpf_probe_read_kernel().
func readsKernel() []byte {
	return prog(
		insn(0xbf, 1, 10, 0, 0),  // r1 = r10
		insn(0x07, 1, 0, 0, -8),  // r1 += -8
		insn(0xb7, 2, 0, 0, 8),   // r2 = 8
		insn(0xb7, 3, 0, 0, 0),   // r3 = 0
		insn(0x85, 0, 0, 0, 113), // call bpf_probe_read_kernel
		movR0(0), exit)
}
