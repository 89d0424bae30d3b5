package launch

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Where hierarchies of cgroup v1 are in use, the workload stays in the caller's cgroups
// there: it has no right to make any, and its own view has none. Its worker gets one
// below each of them, called as the workload's top cgroup of v2. So it is bound by what
// binds the workload, and what it uses, with the memory of the objects that it makes,
// counts there and can be seen by itself.

// workerCgroupsV1 has the guardian make the worker's cgroups. Where one can't be made, as
// in a hierarchy that is mounted read-only, the worker stays in the caller's.
func (w *Workload) workerCgroupsV1(name string) error {
	parents, err := callerCgroupsV1()
	if err != nil {
		return err
	}
	for _, parent := range parents {
		c := &cgroup{parent: parent, name: name, v1: true}
		if w.guardian.makeCgroup(c) != nil {
			parent.Close()
			continue
		}
		w.v1 = append(w.v1, c)
		// It is empty between two workers: no agent shall remove it then.
		if err := os.WriteFile(c.path("notify_on_release"), []byte("0"), 0); err != nil {
			return fmt.Errorf("worker's cgroup of v1: %w", err)
		}
		tasks, err := os.OpenFile(c.path("tasks"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("worker's cgroup of v1: %w", err)
		}
		w.tasks = append(w.tasks, tasks)
	}
	return nil
}

// callerCgroupsV1 opens the directories of the caller's cgroups, as far as a hierarchy is
// mounted and has controllers by which a worker is to be bound. A new cgroup of cpuset has
// no processors, and there is nothing to count.
func callerCgroupsV1() (dirs []*os.File, err error) {
	all, err := callerCgroups()
	if err != nil {
		return nil, err
	}
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	for controllers, path := range all {
		list := strings.Split(controllers, ",")
		if controllers == "" || strings.HasPrefix(controllers, "name=") || slices.Contains(list, "cpuset") {
			continue
		}
		dir := openCgroup(path, mounts, func(m mountLine) bool {
			options := strings.Split(m.options, ",")
			return m.fsType == "cgroup" && !slices.ContainsFunc(list, func(c string) bool { return !slices.Contains(options, c) })
		})
		if dir != nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}
