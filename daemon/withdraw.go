package daemon

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Withdraw detaches what the workload has attached, but for what was attached by netlink
// and by calls on sockets, which aren't bpf()'s. Revoke first, or it attaches anew.
func (k *Keeper) Withdraw() (w perform.Withdrawn, err error) {
	k.one.Lock()
	defer k.one.Unlock()
	if k.ending() {
		return w, errWorkloadEnded
	}
	o, err := workload.OpenObjects(int(k.objects.Fd()), nil)
	if err != nil {
		return w, err
	}
	w = perform.Withdraw(o)
	root, err := cgroupRoot()
	if err != nil {
		return w, err
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it was removed
		}
		if !d.IsDir() {
			return nil
		}
		dir, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer dir.Close()
		w.FromCgroup(int(dir.Fd()), o)
		return nil
	})
	if err != nil {
		return w, fmt.Errorf("look at cgroups: %w", err)
	}
	err = sys.InNetNS(int(k.netNS.Fd()), func() error {
		all, err := net.Interfaces()
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		var interfaces []uint32
		for _, i := range all {
			interfaces = append(interfaces, uint32(i.Index))
		}
		w.FromNetNS(int(k.netNS.Fd()), interfaces, o)
		return nil
	})
	return w, err
}

// cgroupRoot is where the hierarchy of v2 is mounted.
func cgroupRoot() (string, error) {
	mounts, err := sys.Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.Type == "cgroup2" && m.Root == "/" {
			return m.Point, nil
		}
	}
	return "", fmt.Errorf("the cgroup v2 hierarchy isn't mounted")
}
