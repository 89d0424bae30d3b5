package launch

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Where hierarchies of cgroup v1 are in use, the workload stays in the caller's cgroups
// there: it has no right to make any. Its worker gets one below the caller's, called as
// the workload's top cgroup of v2, in each hierarchy that counts something and whose
// limits hold for what is below. So it is bound by what binds the workload, and what it
// uses, with the memory of the objects that it makes, can be seen by itself. In the others
// it stays where the workload is: a new cgroup of cpuset has no processors, one of blkio
// isn't bound by those above, one of cpu may refuse real-time threads, and the rest counts
// nothing.

// workerCgroupsV1 has the guardian make the worker's cgroups. Where that isn't permitted,
// as in a hierarchy that is mounted read-only, the worker stays in the caller's.
func (w *Workload) workerCgroupsV1(name string) error {
	parents, err := cgroups.OpenCounted(cgroups.Self)
	if err != nil {
		return err
	}
	for i, parent := range parents {
		if err := w.workerCgroupV1(&cgroup{parent: parent, name: name, v1: true}); err != nil {
			for _, f := range parents[i+1:] {
				f.Close()
			}
			return fmt.Errorf("worker's cgroup of v1: %w", err)
		}
	}
	return nil
}

func (w *Workload) workerCgroupV1(c *cgroup) error {
	if sys.CheckWritable(int(c.parent.Fd())) != nil {
		return c.parent.Close()
	}
	if err := w.guardian.makeCgroup(c); err != nil {
		c.parent.Close()
		return err
	}
	w.v1 = append(w.v1, c)
	tasks, err := cgroups.OpenTasks(c.path())
	if err != nil {
		return err
	}
	w.tasks = append(w.tasks, tasks)
	return nil
}
