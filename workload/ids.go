package workload

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// IDsOf are the pid and the user namespace of a process, by its id in /proc, as programs in
// the kernel need them; or why they can't be told: this process must be in the initial user
// namespace, or it would read the numbers of its own.
func IDsOf(pid int) *guard.IDs {
	ids, err := idsOf(pid)
	if err != nil {
		return &guard.IDs{Unknown: err.Error()}
	}
	return ids
}

func idsOf(pid int) (*guard.IDs, error) {
	if host, err := sys.InInitialUserNS(); err != nil || !host {
		return nil, fmt.Errorf("the host's user ids aren't seen from a user namespace (%v)", err)
	}
	ids := &guard.IDs{}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	id, e1 := sys.IDOf(int(ns.Fd()))
	dev, e2 := sys.Device(int(ns.Fd()))
	if e1 != 0 || e2 != 0 {
		return nil, fmt.Errorf("look at %q: %w", ns.Name(), errors.Join(e1, e2))
	}
	const initial = 0xeffffffc // PROC_PID_INIT_INO, include/linux/proc_ns.h
	if id.Ino != initial {
		if id.Ino == 0 || id.Ino > 1<<32-1 {
			return nil, fmt.Errorf("the pid namespace has the inode %d", id.Ino)
		}
		ids.PIDDev, ids.PIDIno = dev, uint32(id.Ino)
	}
	for name, to := range map[string]*[]guard.Extent{"uid_map": &ids.UIDs, "gid_map": &ids.GIDs} {
		var err error
		if *to, err = extents(fmt.Sprintf("/proc/%d/%s", pid, name)); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// extents reads a map of ids; nil: all are as they are.
func extents(path string) (all []guard.Extent, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var x guard.Extent
		if _, err := fmt.Sscan(lines.Text(), &x.Inside, &x.Host, &x.Count); err != nil || x.Count == 0 {
			return nil, fmt.Errorf("read %q: %q", path, lines.Text())
		}
		all = append(all, x)
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("%q has no ids", path)
	case len(all) > guard.MaxExtents:
		return nil, fmt.Errorf("%q has %d lines, more than %d", path, len(all), guard.MaxExtents)
	case all[0] == guard.Extent{Count: 1<<32 - 1}:
		return nil, nil
	}
	return all, nil
}
