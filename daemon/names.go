package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bpfbroker/bpfbroker/btfnames"
	"github.com/bpfbroker/bpfbroker/policy"
)

// The index of the names of the kernel's types is made once after a boot, by the first
// daemon that needs it, and shared by all workers of the host.
const (
	kernelBTF   = "/sys/kernel/btf/vmlinux"
	bootID      = "/proc/sys/kernel/random/boot_id"
	namesDir    = "/run/bpfbroker"
	namesPrefix = "btf-names-"
)

// needsNames says whether a policy looks at facts that take names of types.
func needsNames(p policy.Policy) bool {
	needs := p.Needs("prog_load")
	return needs.Has("prog.kfuncs") || needs.Any("prog.target")
}

// openNames opens the index in a directory; if there is none of this boot, it makes it.
func openNames(dir, btf string) (*os.File, error) {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, namesPrefix+strings.TrimSpace(string(boot)))
	f, err := os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := makeNames(path, btf); err != nil {
		return nil, fmt.Errorf("make the index of the kernel's types: %w", err)
	}
	return os.Open(path)
}

func makeNames(path, btf string) error {
	raw, err := os.ReadFile(btf)
	if err != nil {
		return err
	}
	index, err := btfnames.Index(raw)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, _ := filepath.Glob(filepath.Join(dir, namesPrefix+"*")) // of another boot
	tmp, err := os.CreateTemp(dir, ".names-")                    // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(index)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	for _, o := range old {
		if o != path {
			_ = os.Remove(o) // another daemon may have
		}
	}
	return nil
}
