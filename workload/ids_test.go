package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func TestExtents(t *testing.T) {
	lines := strings.Repeat("5 6 7\n", guard.MaxExtents)
	for text, want := range map[string]string{
		"         0     100000      65536\n": "[{0 100000 65536}] <nil>",
		"0 0 4294967295\n":                   "[] <nil>",
		"0 1000 1\n1 100000 4294867295\n":    "[{0 1000 1} {1 100000 4294867295}] <nil>",
		"":                                   "[] FILE has no ids",
		"0 0\n":                              "[] read FILE: \"0 0\"",
		"0 0 0\n":                            "[] read FILE: \"0 0 0\"",
		"0 4294967296 1\n":                   "[] read FILE: \"0 4294967296 1\"",
		"root\n":                             "[] read FILE: \"root\"",
		lines:                                fmt.Sprint(make16(), " <nil>"),
		lines + "1 2 3\n":                    "[] FILE has 17 lines, more than 16",
		"0 0 4294967295\n0 0 4294967295\n1 1 1\n": "[] <nil>",
	} {
		file := filepath.Join(t.TempDir(), "map")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := extents(file)
		if err != nil {
			got = nil
		}
		if said := strings.ReplaceAll(fmt.Sprint(got, " ", err), fmt.Sprintf("%q", file), "FILE"); said != want {
			t.Errorf("%q: %s, wanted %s", text, said, want)
		}
	}
}

func make16() (all []guard.Extent) {
	for range guard.MaxExtents {
		all = append(all, guard.Extent{Inside: 5, Host: 6, Count: 7})
	}
	return all
}

// TestIDsOf: this process is in the host's namespaces, and there is none of the number 0.
func TestIDsOf(t *testing.T) {
	if host, err := sys.InInitialUserNS(); err != nil || !host {
		t.Skip("not in the initial user namespace")
	}
	if ids := IDsOf(os.Getpid()); ids.Unusable() != "" || len(ids.UIDs)+len(ids.GIDs) > 0 {
		t.Errorf("%+v", ids)
	}
	if why := IDsOf(0).Unusable(); !strings.Contains(why, "/proc/0/ns/pid") {
		t.Errorf("of none: %q", why)
	}
}
