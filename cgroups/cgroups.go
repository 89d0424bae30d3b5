// Package cgroups finds the cgroups that a process is in, and what of them is mounted.
package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Self is the calling process, for those who take a process by its name in /proc.
const Self = "self"

// Paths are a process's paths in all hierarchies, by their controllers (cgroups(7)), as
// "cpu,cpuacct"; "" is v2's.
func Paths(process string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", process, "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("cgroups of process %s: %w", process, err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("cgroups of process %s: unexpected line %q", process, line)
		}
		all[f[1]] = strings.TrimSuffix(f[2], " (deleted)")
	}
	return all, nil
}

// Open opens the directory of a process's cgroup of v2.
func Open(process string) (*os.File, error) {
	all, err := Paths(process)
	if err != nil {
		return nil, err
	}
	own, ok := all[""]
	if !ok {
		return nil, errors.New("this kernel has no cgroup v2")
	}
	mounts, err := sys.Mounts()
	if err != nil {
		return nil, err
	}
	if f := open(own, mounts, func(m sys.MountLine) bool { return m.Type == "cgroup2" }); f != nil {
		return f, nil
	}
	fd, err := sys.MountCgroup2()
	if err != nil {
		return nil, fmt.Errorf("cgroup v2 is mounted nowhere, and can't be: %w", err)
	}
	defer sys.Close(fd)
	return os.Open(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", fd), own))
}

// counted are the controllers of v1 that count something, and whose limits hold for what is
// below.
var counted = []string{"memory", "pids", "hugetlb", "rdma", "misc"}

// OpenCounted opens the directories of a process's cgroups of v1 in those hierarchies that
// are mounted and count something: memory, processes, huge pages.
func OpenCounted(process string) (dirs []*os.File, err error) {
	all, err := Paths(process)
	if err != nil {
		return nil, err
	}
	mounts, err := sys.Mounts()
	if err != nil {
		return nil, err
	}
	for controllers, path := range all {
		list := strings.Split(controllers, ",")
		if slices.ContainsFunc(list, func(c string) bool { return !slices.Contains(counted, c) }) {
			continue
		}
		dir := open(path, mounts, func(m sys.MountLine) bool {
			options := strings.Split(m.Options, ",")
			return m.Type == "cgroup" && !slices.ContainsFunc(list, func(c string) bool { return !slices.Contains(options, c) })
		})
		if dir != nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// OpenTasks opens the file by which tasks come into a cgroup of v1 that is a worker's: it is
// empty between two workers, and no agent shall remove it then.
func OpenTasks(path string) (*os.File, error) {
	release, err := os.OpenFile(filepath.Join(path, "notify_on_release"), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = release.WriteString("0")
	release.Close()
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(path, "tasks"), os.O_WRONLY, 0)
}

// open opens a cgroup's directory below a mount of its hierarchy; nil: there is none that
// shows it.
func open(path string, mounts []sys.MountLine, of func(sys.MountLine) bool) *os.File {
	for _, m := range mounts {
		if !of(m) {
			continue
		}
		rel, err := filepath.Rel(m.Root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue // shows another part of the hierarchy
		}
		f, err := os.Open(filepath.Join(m.Point, rel))
		if err != nil {
			continue
		}
		if cgroups, err := sys.InHiddenFS(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil && cgroups {
			return f
		}
		f.Close() // something else is mounted there
	}
	return nil
}

// patience is how long a process that has ended may take to leave its cgroup.
const patience = 20 * time.Second

// Remove removes a cgroup without cgroups below, whose processes have ended.
func Remove(path string) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := syscall.Rmdir(path)
		// EBUSY: the last process is gone from cgroup.events a little before it
		// leaves the cgroup, and nothing tells when it has.
		if err != syscall.EBUSY || time.Now().After(end) {
			return err
		}
	}
}

// RemoveEmpty removes a cgroup, if nobody is in it and there is none below. A process that
// has ended, and that its parent hasn't waited for, is in it for a while.
func RemoveEmpty(path string) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := syscall.Rmdir(path); err != syscall.EBUSY {
			return
		}
		procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil || len(procs) > 0 {
			return
		}
		if below, err := filepath.Glob(filepath.Join(path, "*", "cgroup.procs")); err != nil || len(below) > 0 {
			return
		}
	}
}
