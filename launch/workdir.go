package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// blockedPrefix returns the topmost directory on the way to dir, dir included,
// that this process may not search, and "" if it may search all.
func blockedPrefix(dir string) string {
	const searchable = 1 // X_OK
	for i := 1; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		if syscall.Access(dir[:i], searchable) == syscall.EACCES {
			return dir[:i]
		}
	}
	return ""
}

// openDir makes dir usable for the workload, which may not search blocked, dir
// itself or above it: in the workload's mount namespace alone, dir is mounted
// over itself with its owners mapped (what the host's root owns there is the
// workload's root's), and if blocked is above, blocked becomes a directory that
// is empty but for the way down to dir.
//
// So the whole tree at dir is handed to the workload, as natively it is to CMD:
// what it creates there belongs to the host's root on disk.
func openDir(mountNS, userNS *os.File, blocked, dir string) error {
	if rel, err := filepath.Rel(blocked, dir); err != nil || blocked == "/" || strings.HasPrefix(rel, "..") {
		return fmt.Errorf("the workload's root may not search %q; run from another directory", blocked)
	}
	tree, err := sys.CloneTreeMapped(dir, int(userNS.Fd()))
	if errors.Is(err, syscall.EINVAL) {
		// Its file system has no mapped owners, such as overlayfs. What all may do
		// there is left, if that includes to search it.
		if st, e := os.Stat(dir); e == nil && st.Mode()&0o001 != 0 {
			tree, err = sys.CloneTree(dir)
		}
	}
	if err != nil {
		return fmt.Errorf("the workload's root may not search %q, and working directory %q can't be mounted with mapped owners: %w; "+
			"allow all to search the former (chmod o+x), or run from another directory", blocked, dir, err)
	}
	defer sys.Close(tree)
	return sys.InMountNS(int(mountNS.Fd()), func() error {
		if blocked == dir {
			return sys.AttachMount(tree, dir)
		}
		if err := sys.Mount("tmpfs", blocked, "mode=0755,size=64k"); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make way to working directory: %w", err)
		}
		// The umask may have taken away what the workload needs.
		for p := dir; p != blocked; p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o755); err != nil {
				return fmt.Errorf("make way to working directory: %w", err)
			}
		}
		if err := sys.MountReadOnly(blocked); err != nil {
			return err
		}
		return sys.AttachMount(tree, dir)
	})
}
