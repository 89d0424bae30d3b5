package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseIDMap(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []IDMap
		err  string
	}{
		{"0:100000:65536", []IDMap{{0, 100000, 65536}}, ""},
		{"0:1000:1,1:100000:65535", []IDMap{{0, 1000, 1}, {1, 100000, 65535}}, ""},
		{"0:4294967294:1", []IDMap{{0, 4294967294, 1}}, ""},
		{"", nil, `range "" isn't INSIDE:OUTSIDE:SIZE`},
		{"0:1000", nil, "isn't INSIDE:OUTSIDE:SIZE"},
		{"0:1:2:3", nil, "isn't INSIDE:OUTSIDE:SIZE"},
		{"0:x:1", nil, `"x" in range "0:x:1" isn't a number`},
		{"0:-1:1", nil, `"-1" in range`},
		{"0:4294967296:1", nil, "isn't a number"},
		{"0:100000:0", nil, "is empty"},
		{"0:0:1", nil, "maps the host's id 0"},
		{"1:100000:10", nil, "no range maps id 0"},
		{"0:4294967290:10", nil, "beyond the last id"},
		{"0:1000:10,5:2000:10", nil, "overlap"},
		{"0:1000:10,10:1009:10", nil, "overlap"},
	} {
		got, err := ParseIDMap(c.in)
		if c.err == "" && (err != nil || !slices.Equal(got, c.want)) ||
			c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: got %v, %v; want %v, %q", c.in, got, err, c.want, c.err)
		}
	}
}

func TestSubordinateMap(t *testing.T) {
	for _, c := range []struct {
		file string
		want []IDMap
		err  string
	}{
		{"", defaultMap, ""},
		{"alice:100000:65536\n", defaultMap, ""},
		{"alice:1:2\nroot:200000:1000\nroot:300000:5\n", []IDMap{{0, 200000, 1000}, {1000, 300000, 5}}, ""},
		{"0:200000:1000\n", []IDMap{{0, 200000, 1000}}, ""},
		{"root:200000\n", nil, ":1: \"root:200000\" isn't"},
		{"root:0:1000\n", nil, "--user-map"},
	} {
		name := filepath.Join(t.TempDir(), "subuid")
		os.WriteFile(name, []byte(c.file), 0o644)
		got, err := subordinateMap(name)
		if c.err == "" && (err != nil || !slices.Equal(got, c.want)) ||
			c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: got %v, %v; want %v, %q", c.file, got, err, c.want, c.err)
		}
	}
	if got, err := subordinateMap("/no/such/file"); err != nil || !slices.Equal(got, defaultMap) {
		t.Errorf("no file: %v, %v", got, err)
	}
}
