package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/worker"
)

// TestWorkerAccess lets the root of a workload that sees the worker's process id
// try to get hold of it, while it is idle and while it loads a program: then the
// serving thread has the target's real uid.
func TestWorkerAccess(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		for _, state := range []string{"idle", "busy"} {
			t.Run(kind+"/"+state, func(t *testing.T) {
				s := start(t, brokered(probe("access", kind, state), "--worker="+kind))
				s.expect("which")
				s.say(strconv.Itoa(s.findWorker()))
				for line := s.hear(); line != "ok"; line = s.hear() {
					if line == "killed" {
						eventually(t, "another worker", func() bool { return s.process("worker") != s.worker })
						s.say("another serves")
					}
				}
				s.end(false)
				if s.err != nil {
					t.Errorf("%v\n%s", s.err, s.stderr.String())
				}
			})
		}
	}
}

// access is what may be tried of a worker.
type access struct {
	name string
	try  func(id int) error // of a thread
	may  may
}

// may says when it may work.
type may int

const (
	never may = iota
	// To a token worker, which has the workload's ids; and for as long as a thread of a
	// capability worker has the target's real uid.
	byRealUID
	// To a token worker.
	sameIDs
)

// accesses lists what doesn't end a worker.
func accesses(pid int) (all []access) {
	add := func(name string, m may, f func(id int) error) { all = append(all, access{name, f, m}) }
	var page [4096]byte
	local := unix.Iovec{Base: &page[0], Len: uint64(len(page))}
	remote := []unix.RemoteIovec{{Base: goText, Len: len(page)}}
	add("attach", never, unix.PtraceAttach)
	add("seize", never, unix.PtraceSeize)
	add("read", never, func(id int) error { _, err := unix.ProcessVMReadv(id, []unix.Iovec{local}, remote, 0); return err })
	add("write", never, func(id int) error {
		_, err := unix.ProcessVMWritev(id, []unix.Iovec{local}, remote, 0)
		if err == unix.EFAULT { // text; but who may not at all hears that first
			return nil
		}
		return err
	})
	for _, f := range []string{"mem", "environ", "maps", "auxv", "syscall", "stack", "pagemap", "fdinfo", "fd", "map_files", "io", "personality"} {
		add("read "+f, never, func(id int) error {
			if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", id, f)); err == nil {
				return nil
			}
			h, err := os.Open(fmt.Sprintf("/proc/%d/%s", id, f))
			if err != nil {
				return err
			}
			defer h.Close()
			n, err := h.Read(page[:])
			if n == 0 && err == nil {
				return unix.EPERM
			}
			return err
		})
	}
	for _, f := range []string{"fd/3", "fd/1000", "fd/1002", "exe", "cwd", "root", "ns/user", "ns/mnt", "ns/net"} {
		add("follow "+f, never, func(id int) error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", id, f)); return err })
		add("open "+f, never, func(id int) error {
			h, err := os.Open(fmt.Sprintf("/proc/%d/%s", id, f))
			if err == nil {
				h.Close()
			}
			return err
		})
	}
	for _, f := range []string{"oom_score_adj", "comm", "timers", "clear_refs", "coredump_filter", "uid_map", "mem"} {
		add("open for writing "+f, never, func(id int) error {
			h, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", id, f), os.O_WRONLY, 0)
			if err == nil {
				defer h.Close()
				_, err = h.WriteString("1")
			}
			return err
		})
	}
	byPidfd := func(f func(fd int) error) func(int) error {
		return func(id int) error {
			fd, err := unix.PidfdOpen(id, unix.O_EXCL) // PIDFD_THREAD
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return f(fd)
		}
	}
	add("take an fd", never, byPidfd(func(fd int) error {
		for n := range 1100 {
			if _, err := unix.PidfdGetfd(fd, n, 0); err == nil {
				return nil
			}
		}
		return unix.EPERM
	}))
	for name, flag := range map[string]int{"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "network": unix.CLONE_NEWNET, "IPC": unix.CLONE_NEWIPC, "cgroup": unix.CLONE_NEWCGROUP} {
		add("enter its "+name+" namespace", never, byPidfd(func(fd int) error { return unix.Setns(fd, flag) }))
	}
	for nr := range 11 { // PIDFD_GET_CGROUP_NAMESPACE, …
		add(fmt.Sprintf("open a namespace, ioctl %d", nr+1), never, byPidfd(func(fd int) error {
			ns, err := unix.IoctlRetInt(fd, uint(0xff01+nr))
			if err == nil {
				unix.Close(ns)
			}
			return err
		}))
	}
	// Of its mount namespace, which belongs to the workload's user namespace where it is
	// a token worker's, the kernel tells nobody but the host's root (from 6.12 on; those
	// without "nsfs: tighten permission checks for ns iteration ioctls" tell it).
	for name, nr := range map[string]uint{"next": 0x8010b70b, "previous": 0x8010b70c} {
		add("open the "+name+" mount namespace", never, func(int) error {
			own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(own)
			ns, err := unix.IoctlRetInt(own, nr)
			if err == nil {
				unix.Close(ns)
			}
			return err
		})
	}
	add("signal 0", byRealUID, func(id int) error { return unix.Tgkill(pid, id, 0) })
	add("signal 0 by pidfd", byRealUID, byPidfd(func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) }))
	add("priority", byRealUID, func(id int) error { return unix.Setpriority(unix.PRIO_PROCESS, id, 19) })
	add("processors", byRealUID, func(id int) error { return unix.SchedSetaffinity(id, &unix.CPUSet{1}) })
	add("read limits", sameIDs, func(id int) error { return unix.Prlimit(id, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) })
	add("set limits", sameIDs, func(id int) error { return unix.Prlimit(id, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) })
	return all
}

func init() {
	probes["access"] = okay(func() error {
		kind, busy := os.Args[1], os.Args[2] == "busy"
		runtime.LockOSThread()
		pid, _ := strconv.Atoi(ask("which"))
		allowed := func(a access) bool {
			switch a.may {
			case sameIDs:
				return kind == string(worker.Token)
			case byRealUID:
				return kind == string(worker.Token) || busy
			}
			return false
		}
		var loads atomic.Int64
		var stop atomic.Bool
		if busy {
			go func() {
				for !stop.Load() {
					fd, e := load(progTypeSocket, "access", slow(100000), 0, nil)
					if e != 0 {
						fail("prog_load: %v", e)
					}
					unix.Close(fd)
					loads.Add(1)
				}
			}()
		}
		worked := map[string]bool{}
		all := accesses(pid)
		for round := 0; round < 3 || busy && loads.Load() < 3; round++ {
			for _, a := range all {
				// Threads come and go.
				tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
				if err != nil || len(tasks) == 0 {
					return fmt.Errorf("the worker can't be seen: %v", err)
				}
				for _, task := range tasks {
					id, _ := strconv.Atoi(task.Name())
					if err := a.try(id); err != nil {
						continue
					}
					if worked[a.name] = true; !allowed(a) {
						return fmt.Errorf("%s of worker %d, thread %d: it worked", a.name, pid, id)
					}
				}
			}
		}
		stop.Store(true)
		if kind == string(worker.Token) {
			for _, a := range all {
				if allowed(a) && !worked[a.name] {
					return fmt.Errorf("%s of a worker with the same ids: it didn't work", a.name)
				}
			}
		}
		// Nothing of it came with us.
		fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.Contains(to, "seccomp") || strings.Contains(to, "bpf-token") {
				return fmt.Errorf("%s is %s", fd, to)
			}
		}
		if err := someMaps(5); err != nil {
			return err
		}
		// To end it is to make another one serve.
		err := unix.Kill(pid, unix.SIGKILL)
		switch {
		case kind == string(worker.Token) && err != nil:
			return fmt.Errorf("kill a worker with the same ids: %w", err)
		case kind == string(worker.Capability) && err == nil:
			return fmt.Errorf("kill worker %d: it worked", pid)
		case err == nil:
			ask("killed")
		}
		return someMaps(5)
	})
}
