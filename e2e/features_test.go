package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestFeatureProbes: what loaders find out about the kernel by trying is what they find
// as root. (That of cilium/ebpf is in its own test suite, hack/parity.)
func TestFeatureProbes(t *testing.T) {
	needRoot(t)
	t.Run("libbpf", func(t *testing.T) {
		probes := filepath.Join(bin, "features")
		if out, err := exec.Command("gcc", "-O1", "-o", probes, "testdata/features.c", "-lbpf").CombinedOutput(); err != nil {
			t.Fatalf("build it (make deps installs what it takes): %v\n%s", err, out)
		}
		want := strings.Split(output(t, exec.Command(probes)), "\n")
		if n := strings.Count(strings.Join(want, "\n"), ": 1\n"); n < 1000 {
			t.Fatalf("natively %d probes succeed; is this the whole list?", n)
		}
		for _, kind := range kinds(t) {
			got := strings.Split(output(t, brokered(exec.Command(probes), "--worker="+kind)), "\n")
			if len(got) != len(want) {
				t.Fatalf("%s: %d lines, wanted %d", kind, len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: got %q, wanted %q", kind, got[i], want[i])
				}
			}
		}
	})
	t.Run("bpftool", func(t *testing.T) {
		bpftool, err := exec.LookPath("bpftool")
		if err != nil {
			t.Fatal("no bpftool; make deps installs it")
		}
		features := func(flags ...string) map[string]any {
			c := exec.Command(bpftool, "--json", "feature", "probe", "kernel", "full")
			if len(flags) > 0 {
				c = brokered(c, flags...)
			}
			var all map[string]any
			if err := json.Unmarshal([]byte(output(t, c)), &all); err != nil {
				t.Fatal(err)
			}
			// Files of mode 0600, which belong to the host's root: no call of bpf().
			config := all["system_config"].(map[string]any)
			for _, name := range []string{"bpf_jit_enable", "bpf_jit_harden", "bpf_jit_kallsyms", "bpf_jit_limit"} {
				delete(config, name)
			}
			return all
		}
		want := features()
		for _, kind := range kinds(t) {
			got := features("--worker=" + kind)
			for part := range want {
				if !reflect.DeepEqual(got[part], want[part]) {
					t.Errorf("%s: %s differs: got %v, wanted %v", kind, part, got[part], want[part])
				}
			}
		}
	})
}
