package cgroups

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// TestRemoveEmpty: a cgroup goes only if nobody is in it, and none is below.
func TestRemoveEmpty(t *testing.T) {
	if os.Geteuid() != 0 || testing.Short() {
		t.Skip("needs root, not run with -short")
	}
	own, err := Open(Self)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	dir, err := os.MkdirTemp(fmt.Sprintf("/proc/self/fd/%d", own.Fd()), "bpfbroker-test-")
	if err != nil {
		t.Fatal(err)
	}
	there := func() bool { _, err := os.Stat(dir); return err == nil }
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if RemoveEmpty(dir); !there() {
		t.Fatal("one with another below is gone")
	}
	if err := Remove(below); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(c.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if RemoveEmpty(dir); !there() {
		t.Error("one that somebody is in is gone")
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	done := make(chan struct{})
	go func() { RemoveEmpty(dir); close(done) }() // while it is a zombie
	_ = c.Wait()                                  // it was killed
	<-done
	if there() {
		RemoveEmpty(dir)
		if there() {
			t.Error("an empty one stays")
		}
	}
	paths, err := Paths(Self)
	if err != nil || paths[""] == "" {
		t.Errorf("own cgroups: %v, %v", paths, err)
	}
}
