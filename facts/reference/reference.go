// Package reference prints the table of facts, for people (text, or a document in
// Markdown) and for programs (JSON).
package reference

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Formats are what Write can write.
var Formats = []string{"text", "json", "markdown"}

// Write writes the facts in one of Formats. Where names are given, those alone that are
// called so or begin so ("prog", "map.type"), or that a command of that name has.
func Write(w io.Writer, format string, names []string) error {
	var rows []*facts.Fact
	found := map[string]bool{}
	for i := range facts.Table {
		f := &facts.Table[i]
		ok := len(names) == 0
		for _, n := range names {
			if f.Name == n || strings.HasPrefix(f.Name, n+".") || slices.Contains(f.On, n) {
				ok, found[n] = true, true
			}
		}
		if ok {
			rows = append(rows, f)
		}
	}
	for _, n := range names {
		if !found[n] {
			return fmt.Errorf("no fact %q", n)
		}
	}
	switch format {
	case "text":
		return text(w, rows)
	case "json":
		return document(w, rows)
	case "markdown":
		return markdown(w, rows)
	}
	return fmt.Errorf("format %q: not one of %s", format, strings.Join(Formats, ", "))
}

// notes say what to know of a fact beside what it is.
func notes(f *facts.Fact) (out []string) {
	if f.Says {
		out = append(out, "the workload itself sets it")
	}
	if f.Costs {
		out = append(out, "found out only where it is asked for")
	}
	return out
}

func text(w io.Writer, rows []*facts.Fact) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range rows {
		about := f.About
		if f.Says {
			about += " (the workload itself sets it)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, f.Type, about)
	}
	return t.Flush()
}

func document(w io.Writer, rows []*facts.Fact) error {
	type row struct {
		Name     string   `json:"name"`
		Type     string   `json:"type"`
		Commands []string `json:"commands"` // null: all
		About    string   `json:"about"`
		Says     bool     `json:"set_by_workload,omitempty"`
		Costs    bool     `json:"on_demand,omitempty"`
	}
	var out struct {
		Facts []row `json:"facts"`
	}
	for _, f := range rows {
		out.Facts = append(out.Facts, row{f.Name, f.Type.String(), f.On, f.About, f.Says, f.Costs})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

const head = `# Facts

<!-- Made from the table in package facts: edit that, then run "bpfbroker facts -o markdown". -->

What the conditions of a policy may speak of. Names of types, commands, helpers are the
kernel's: types and commands in lower case without prefix (` + "`xdp`, `map_create`" + `), helpers and
kernel functions in full (` + "`bpf_map_lookup_elem`" + `). A rule may speak of a fact if all
commands that it is for have it.

`

func markdown(w io.Writer, rows []*facts.Fact) error {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("| fact | type | commands | what it is |\n|---|---|---|---|\n")
	for _, f := range rows {
		on := "all"
		if f.On != nil {
			on = strings.Join(f.On, ", ")
		}
		about := f.About
		if n := notes(f); n != nil {
			about += "; " + strings.Join(n, "; ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, on, about)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
