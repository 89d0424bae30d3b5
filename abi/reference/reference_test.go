package reference

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

func write(t *testing.T, format string, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, format, names); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDocument(t *testing.T) {
	want, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	if write(t, "markdown") != string(want) {
		t.Error("docs/commands.md isn't what the table says: run make docs")
	}
}

func TestTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(write(t, "table")), "\n")
	if len(lines) != len(abi.Rows())+1 {
		t.Errorf("got %d lines, wanted a head and %d rows", len(lines), len(abi.Rows()))
	}
	const want = `NUMBER  COMMAND          SINCE  HANDLED      RETURNS         FIELDS  WHY
22      map_freeze       5.2    native since 6.5       0               1       acts on a map that the caller holds an fd of, by the fd's own mode
19      btf_get_fd_by_id  4.18   intercepted  fd of btf       4       ids are kernel-wide: a workload sees its own objects' only
`
	// The widths depend on the rows: compare the words.
	got := write(t, "table", "map_freeze", "BPF_BTF_GET_FD_BY_ID")
	if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
}

func TestJSON(t *testing.T) {
	var d Document
	dec := json.NewDecoder(strings.NewReader(write(t, "json")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if len(d.Commands) != len(abi.Rows()) || d.Kernel != abi.Kernel || d.AttrSize != abi.AttrSize {
		t.Errorf("got %d commands of Linux %s, %d bytes", len(d.Commands), d.Kernel, d.AttrSize)
	}
	// What a field refers to is there.
	names := map[string]bool{"flags": true} // of which none is defined
	for _, s := range d.Structures {
		names[s.Name] = true
	}
	for _, e := range d.Enums {
		names[e.Name] = true
	}
	for _, f := range d.Flags {
		if names[f.Name] {
			t.Errorf("two sets called %s", f.Name)
		}
		names[f.Name] = true
	}
	check := func(what string, fields []Field) {
		for _, f := range fields {
			if f.Values != "" && !names[f.Values] {
				t.Errorf("%s.%s: no values %s", what, f.Name, f.Values)
			}
			if f.Buffer != nil && f.Buffer.Structure != "" && !names[f.Buffer.Structure] {
				t.Errorf("%s.%s: no structure %s", what, f.Name, f.Buffer.Structure)
			}
		}
	}
	for _, c := range d.Commands {
		check(c.Name, c.Fields)
	}
	for _, s := range d.Structures {
		check(s.Name, s.Fields)
	}
	// One command comes with what it refers to, and nothing else.
	d = Document{}
	if err := json.Unmarshal([]byte(write(t, "json", "enable_stats")), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Commands) != 1 || len(d.Enums) != 1 || d.Enums[0].Name != "bpf_stats_type" || len(d.Flags)+len(d.Structures) != 0 {
		t.Errorf("enable_stats alone: got %+v", d)
	}
}

func TestUnknown(t *testing.T) {
	for want, f := range map[string]func() error{
		`no command "prog_lode" in Linux ` + abi.Kernel:   func() error { return Write(&bytes.Buffer{}, "table", []string{"prog_lode"}) },
		`format "yaml": not one of table, json, markdown`: func() error { return Write(&bytes.Buffer{}, "yaml", nil) },
	} {
		if err := f(); err == nil || err.Error() != want {
			t.Errorf("got %v, wanted %s", err, want)
		}
	}
}
