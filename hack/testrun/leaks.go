package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// snapshot names what a test could leave behind, each with a description.
type snapshot map[string]string

// ours is how everything that bpfbroker makes on the host is called.
const ours = "bpfbroker"

func takeSnapshot() (snapshot, error) {
	s := make(snapshot)
	for _, part := range []func(snapshot) error{programs, bpfMaps, btfs, links, mounts, processes} {
		if err := part(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// leftovers returns what is there now and wasn't in s. BPF objects die some time
// after their last reference (RCU, work queues), so it looks again until patience
// is at its end.
func (s snapshot) leftovers(patience time.Duration) ([]string, error) {
	deadline := time.Now().Add(patience)
	for {
		now, err := takeSnapshot()
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(now, func(name, _ string) bool { _, old := s[name]; return old })
		if len(now) == 0 || time.Now().After(deadline) {
			return slices.Sorted(maps.Values(now)), nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func programs(s snapshot) error {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list programs: %w", err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone meanwhile
		}
		info, err := p.Info()
		p.Close()
		if err != nil || strings.HasPrefix(info.Name, "sd_") {
			continue // systemd's, which come and go with its units
		}
		s[fmt.Sprint("prog ", id)] = fmt.Sprintf("program %d: %s %q", id, info.Type, info.Name)
	}
}

func bpfMaps(s snapshot) error {
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list maps: %w", err)
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		info, err := m.Info()
		m.Close()
		if err != nil || strings.HasPrefix(info.Name, "sd_") {
			continue
		}
		s[fmt.Sprint("map ", id)] = fmt.Sprintf("map %d: %s %q", id, info.Type, info.Name)
	}
}

func btfs(s snapshot) error {
	it := new(btf.HandleIterator)
	defer func() { it.Handle.Close() }()
	for it.Next() {
		info, err := it.Handle.Info()
		if err != nil || info.IsKernel {
			continue
		}
		s[fmt.Sprint("btf ", info.ID)] = fmt.Sprintf("BTF %d", info.ID)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list BTF: %w", err)
	}
	return nil
}

func links(s snapshot) error {
	// A link that is just being made, by somebody else, can't be opened yet: EAGAIN.
	for tries := 0; ; tries++ {
		it := new(link.Iterator)
		for it.Next() {
			s[fmt.Sprint("link ", it.ID)] = fmt.Sprintf("link %d", it.ID)
		}
		err := it.Err()
		it.Close()
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EAGAIN) || tries == 100 {
			return fmt.Errorf("list links: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// mounts lists the mounts, and bpfbroker's cgroups below each mounted hierarchy.
func mounts(s snapshot) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 5 || dash+2 >= len(fields) {
			return fmt.Errorf("mountinfo: unexpected line %q", line)
		}
		point, fsType := fields[4], fields[dash+1]
		s[fmt.Sprint("mount ", fields[0], " ", point)] = fmt.Sprintf("mount of %s on %s", fsType, point)
		if fsType == "cgroup" || fsType == "cgroup2" {
			if err := cgroups(s, point); err != nil {
				return err
			}
		}
	}
	return nil
}

func cgroups(s snapshot, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("list cgroups: %w", err)
		case d.IsDir() && strings.HasPrefix(d.Name(), ours):
			s["cgroup "+path] = "cgroup " + path
			return fs.SkipDir
		}
		return nil
	})
}

// processes lists running processes of bpfbroker, by name or executable, and those
// of test binaries, which may act as bpfbroker.
func processes(s snapshot) error {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, file := range comms {
		dir := filepath.Dir(file)
		comm, err := os.ReadFile(file)
		if err != nil {
			continue // gone meanwhile
		}
		exe, _ := os.Readlink(filepath.Join(dir, "exe")) // a kernel thread or a zombie has none
		if !strings.HasPrefix(string(comm), ours) && !strings.HasPrefix(filepath.Base(exe), ours) && !strings.HasPrefix(exe, filepath.Join(os.TempDir(), "go-build")) {
			continue
		}
		s["process "+filepath.Base(dir)] = fmt.Sprintf("process %s: %s, %s", filepath.Base(dir), strings.TrimSpace(string(comm)), exe)
	}
	return nil
}
