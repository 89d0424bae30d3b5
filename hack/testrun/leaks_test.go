package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// TestLeftovers leaves a map and a process behind, and takes them away again.
func TestLeftovers(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root: -short")
	}
	before, err := takeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "testrun_left", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), ours+"-sleep")
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	left, err := before.leftovers(0)
	cmd.Process.Kill()
	cmd.Wait()
	m.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"testrun_left", ours + "-sleep"} {
		if !slices.ContainsFunc(left, func(l string) bool { return strings.Contains(l, want) }) {
			t.Errorf("got %q, wanted one with %q", left, want)
		}
	}
	left, err = before.leftovers(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		if strings.Contains(l, "testrun_left") || strings.Contains(l, ours+"-sleep") {
			t.Errorf("still there: %s", l)
		}
	}
}
