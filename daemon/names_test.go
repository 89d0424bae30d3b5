package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bpfbroker/bpfbroker/btfnames"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The index is made once a boot, and what other boots have left goes.
func TestOpenNames(t *testing.T) {
	if _, err := os.Stat(kernelBTF); err != nil {
		t.Skip("needs the kernel's BTF: ", err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, namesPrefix+"other")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openNames(dir, kernelBTF)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	index, err := sys.MapReadOnly(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := btfnames.Open(index); err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files, wanted the index alone", len(files))
	}
	again, err := openNames(dir, "none: it is there")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := openNames(filepath.Join(dir, "elsewhere"), "none"); err == nil {
		t.Error("an index of nothing")
	}
}
