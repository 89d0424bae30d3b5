package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/poller"
)

// Spawn describes a process that is executed elsewhere than its parent: in a
// cgroup, and in a user namespace that the parent isn't in. Package os/exec can
// make a user namespace and can't enter one: that takes a process of one thread,
// and every Go process has several (setns(2), EINVAL). So the child makes the
// calls itself, between fork and exec, as a list.
type Spawn struct {
	Exe       *os.File // the binary; executed by fd, whatever the child can reach
	Args, Env []string
	Files     []*os.File   // the child's fds 0, 1, …; it has no others
	Cgroup    *os.File     // directory (v2) in which it is born; nil: the parent's
	Tasks     []*os.File   // files "tasks" of cgroups (v1) that it enters
	UserNS    *os.File     // nil: the parent's
	Keep      []Capability // its bounding set
}

// forkStep is a system call that the child makes before it executes.
type forkStep struct {
	what string
	nr   uintptr
	args [3]uintptr
}

// steps lists what the child does, in this order. Until the exec its memory is a
// copy of ours: it must be out of reach before it comes to where others may look
// at it.
func (s *Spawn) steps(files []int, caps *[2]unix.CapUserData) []forkStep {
	steps := []forkStep{
		{"set not dumpable", unix.SYS_PRCTL, [3]uintptr{unix.PR_SET_DUMPABLE, 0, 0}},
		{"begin a session", unix.SYS_SETSID, [3]uintptr{}},
		// Who has the parent's possesses its keys.
		{"begin a session keyring", unix.SYS_KEYCTL, [3]uintptr{unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0}},
		{"go to /", unix.SYS_CHDIR, [3]uintptr{uintptr(unsafe.Pointer(&rootPath[0]))}},
		{"drop supplementary groups", unix.SYS_SETGROUPS, [3]uintptr{0, 0, 0}},
		// What is inheritable comes back at exec, whatever the bounding set is.
		{"clear ambient capabilities", unix.SYS_PRCTL, [3]uintptr{unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0}},
		{"clear inheritable capabilities", unix.SYS_CAPSET, [3]uintptr{uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&caps[0]))}},
	}
	for _, f := range s.Tasks {
		steps = append(steps, forkStep{"enter cgroup", unix.SYS_WRITE, [3]uintptr{f.Fd(), uintptr(unsafe.Pointer(&myself[0])), 1}})
	}
	if len(files) > 0 {
		// As large as PlacePoller needs it. Later, where threads share the table, each
		// step by which it grows waits for all processors (fs/file.c,
		// expand_fdtable, synchronize_rcu): 10 ms or more.
		steps = append(steps, forkStep{"grow the fd table", unix.SYS_DUP3, [3]uintptr{uintptr(files[0]), uintptr(min(poller.MaxFiles(), poller.Top)) - 1, unix.O_CLOEXEC}})
	}
	if s.UserNS != nil {
		steps = append(steps,
			forkStep{"enter user namespace", unix.SYS_SETNS, [3]uintptr{s.UserNS.Fd(), unix.CLONE_NEWUSER, 0}},
			// Ids that aren't mapped would lose all capabilities at exec.
			forkStep{"become the namespace's group 0", unix.SYS_SETRESGID, [3]uintptr{0, 0, 0}},
			forkStep{"become the namespace's user 0", unix.SYS_SETRESUID, [3]uintptr{0, 0, 0}},
			// Another user would have made it what fs.suid_dumpable says.
			forkStep{"set not dumpable again", unix.SYS_PRCTL, [3]uintptr{unix.PR_SET_DUMPABLE, 0, 0}},
		)
	}
	for c := range lastCapability() + 1 {
		if !contains(s.Keep, c) {
			steps = append(steps, forkStep{fmt.Sprintf("drop capability %d from the bounding set", c),
				unix.SYS_PRCTL, [3]uintptr{unix.PR_CAPBSET_DROP, uintptr(c), 0}})
		}
	}
	steps = append(steps, forkStep{"set no_new_privs", unix.SYS_PRCTL, [3]uintptr{unix.PR_SET_NO_NEW_PRIVS, 1, 0}})
	for to, from := range files {
		steps = append(steps, forkStep{fmt.Sprintf("place fd %d", to), unix.SYS_DUP3, [3]uintptr{uintptr(from), uintptr(to), 0}})
	}
	const closeRangeCloexec = 4 // CLOSE_RANGE_CLOEXEC
	return append(steps, forkStep{"close all other fds at exec", unix.SYS_CLOSE_RANGE,
		[3]uintptr{uintptr(len(files)), 1<<32 - 1, closeRangeCloexec}})
}

func contains(list []Capability, c Capability) bool {
	for _, k := range list {
		if k == c {
			return true
		}
	}
	return false
}

// lastCapability is the highest that this kernel has.
func lastCapability() Capability {
	last := Capability(0)
	for c := range Capability(64) {
		if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, uintptr(c), 0); e != 0 {
			break
		}
		last = c
	}
	return last
}

// Start forks and executes, on the calling thread, whose network and mount
// namespaces the child inherits. It returns once the child has been executed,
// with its process id and a pidfd (O_CLOEXEC).
func (s *Spawn) Start() (pid, pidfd int, err error) {
	fail := func(what string, err error) (int, int, error) {
		return 0, -1, fmt.Errorf("%s: %w", what, err)
	}
	argv, err := syscall.SlicePtrFromStrings(s.Args)
	if err != nil {
		return fail("arguments", err)
	}
	envv, err := syscall.SlicePtrFromStrings(s.Env)
	if err != nil {
		return fail("environment", err)
	}
	// Copies above what the child's own fds will be: no step overwrites another's.
	files := make([]int, len(s.Files))
	for i, f := range s.Files {
		if files[i], err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, len(files)); err != nil {
			return fail("copy fd", err)
		}
		defer unix.Close(files[i])
	}
	exe, err := unix.FcntlInt(s.Exe.Fd(), unix.F_DUPFD_CLOEXEC, len(files))
	if err != nil {
		return fail("copy fd", err)
	}
	defer unix.Close(exe)
	var low, pipe [2]int
	if err := unix.Pipe2(low[:], unix.O_CLOEXEC); err != nil {
		return fail("make pipe", err)
	}
	for i := range low {
		if pipe[i], err = unix.FcntlInt(uintptr(low[i]), unix.F_DUPFD_CLOEXEC, len(files)); err != nil {
			return fail("copy fd", err)
		}
		unix.Close(low[i])
	}
	defer unix.Close(pipe[0])

	args := forkArgs{cloneArgs: cloneArgs{flags: unix.CLONE_PIDFD, exitSignal: uint64(unix.SIGCHLD)}}
	if s.Cgroup != nil {
		args.flags |= cloneIntoCgroup
		args.cgroup = uint64(s.Cgroup.Fd())
	}
	caps := new([2]unix.CapUserData)
	if err := unix.Capget(&capHeader, &caps[0]); err != nil {
		return fail("own capabilities", err)
	}
	caps[0].Inheritable, caps[1].Inheritable = 0, 0
	steps := s.steps(files, caps)
	syscall.ForkLock.Lock()
	id, e := forkExec(&args, steps, uintptr(exe), &argv[0], &envv[0], uintptr(pipe[1]))
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(s)
	runtime.KeepAlive(caps)
	unix.Close(pipe[1])
	if e != 0 {
		return fail("fork", e)
	}
	// In its user namespace the child can be stopped by whom it is to serve.
	if ok, _ := WaitReadable(pipe[0], startTime); !ok {
		_ = SignalProcess(int(args.fd), unix.SIGKILL) // or it has ended
		_ = Reap(int(id))
		unix.Close(int(args.fd))
		return fail("start child", fmt.Errorf("it wasn't executed within %v", startTime))
	}
	var report [2]uint32
	n, err := unix.Read(pipe[0], unsafe.Slice((*byte)(unsafe.Pointer(&report)), unsafe.Sizeof(report)))
	for err == unix.EINTR {
		n, err = unix.Read(pipe[0], unsafe.Slice((*byte)(unsafe.Pointer(&report)), unsafe.Sizeof(report)))
	}
	if n == 0 && err == nil {
		return int(id), int(args.fd), nil
	}
	_ = Reap(int(id))
	unix.Close(int(args.fd))
	if n != int(unsafe.Sizeof(report)) {
		return fail("start child", errors.Join(errors.New("it died before it was executed"), err))
	}
	if int(report[0]) < len(steps) {
		return fail(steps[report[0]].what, Errno(report[1]))
	}
	if Errno(report[1]) == unix.ENOENT { // not the binary: its dynamic loader
		return fail("execute", errors.New("the binary isn't static; build it with CGO_ENABLED=0, as make does"))
	}
	return fail("execute", Errno(report[1]))
}

// cloneArgs is struct clone_args of include/uapi/linux/sched.h, version 2.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// forkArgs are cloneArgs and where the kernel puts the pidfd.
type forkArgs struct {
	cloneArgs
	fd int32
}

const cloneIntoCgroup = 0x200000000 // CLONE_INTO_CGROUP, 5.7

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// forkExec forks; in the child it makes the steps and executes. The child has one
// thread and no Go runtime: nothing here may allocate, grow the stack or call
// what does (as syscall.forkAndExecInChild, which see).
//
//go:noinline
//go:norace
//go:nocheckptr
func forkExec(args *forkArgs, steps []forkStep, exe uintptr, argv, envv **byte, pipe uintptr) (uintptr, Errno) {
	runtimeBeforeFork()
	args.pidfd = uint64(uintptr(unsafe.Pointer(&args.fd))) // here, where the stack can't move any more
	pid, _, e := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args.cloneArgs)), unsafe.Sizeof(args.cloneArgs), 0)
	if e != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, e
	}
	runtimeAfterForkInChild()
	report := [2]uint32{}
	for i := range steps {
		s := &steps[i]
		if _, _, e := syscall.RawSyscall(s.nr, s.args[0], s.args[1], s.args[2]); e != 0 {
			report = [2]uint32{uint32(i), uint32(e)}
			goto failed
		}
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, exe, uintptr(unsafe.Pointer(&noPath)),
		uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)), unix.AT_EMPTY_PATH, 0)
	report = [2]uint32{uint32(len(steps)), uint32(e)}
failed:
	syscall.RawSyscall(unix.SYS_WRITE, pipe, uintptr(unsafe.Pointer(&report)), unsafe.Sizeof(report))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

var (
	noPath   byte // an empty C string
	rootPath = [2]byte{'/'}
	myself   = [1]byte{'0'} // for a file "tasks"
)

// startTime is how long a child may take until it is executed.
const startTime = 5 * time.Second

// WaitExit waits until the process that a pidfd is open at has ended: its last
// thread has closed all that it had open.
func WaitExit(pidfd int) {
	for {
		p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, -1); n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// Reap takes the exit status of a child that has ended; an error says how it ended,
// if not well, and wraps the signal that ended it. What isn't our child has none.
func Reap(pid int) error {
	var ws unix.WaitStatus
	for {
		got, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || got != pid:
			return nil
		case ws.Signaled():
			return endedBy(ws.Signal())
		case ws.ExitStatus() != 0:
			return fmt.Errorf("exit status %d", ws.ExitStatus())
		}
		return nil
	}
}

// endedBy is the error of a process that a signal has ended.
type endedBy unix.Signal

func (e endedBy) Error() string { return "ended by " + unix.SignalName(unix.Signal(e)) }

// Is makes errors.Is(err, SIGKILL) work.
func (e endedBy) Is(target error) bool { return target == error(Signal(e)) }

// Signal is a signal's number as an error.
type Signal unix.Signal

func (s Signal) Error() string { return unix.SignalName(unix.Signal(s)) }
