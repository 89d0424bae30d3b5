package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/btfnames"
)

// A list is made once, and what another build of the kernel has left goes.
func TestOpenList(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x-other", "y-other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		f, err := openList(dir, "x-", "this", func() ([]byte, error) {
			if i > 0 {
				t.Error("it is made again")
			}
			return []byte("list"), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		n, _ := f.Read(b)
		f.Close()
		if string(b[:n]) != "list" {
			t.Errorf("got %q", b[:n])
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("there are %v, wanted two files", files)
	}
	if _, err := openList(dir, "z-", "this", func() ([]byte, error) { return nil, errors.New("none") }); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("what can't be made: %v", err)
	}
}

func TestTypeNames(t *testing.T) {
	if _, err := os.Stat(kernelBTF); err != nil {
		t.Skip("needs the kernel's BTF: ", err)
	}
	index, err := typeNames(kernelBTF)
	if err == nil {
		_, err = btfnames.Open(index)
	}
	if err != nil {
		t.Error(err)
	}
}
