package confine

import (
	"fmt"
	"io"
	"strings"
)

const markdownHead = `| system call | only with | who needs it | why |
|---|---|---|---|
`

// Markdown writes the list as a table. Of an argument that is an int, unsigned int,
// pid_t or uid_t the low 32 bits count, of an unsigned long all 64, as in the kernel.
func Markdown(w io.Writer) error {
	var s strings.Builder
	s.WriteString(markdownHead)
	for i := range entries {
		e := &entries[i]
		rules := make([]string, len(e.Rules))
		for j := range e.Rules {
			rules[j] = e.Rules[j].String()
		}
		fmt.Fprintf(&s, "| `%s` | %s | %s | %s |\n", e.Name,
			cell(strings.Join(rules, "; ")), cell(strings.Join(e.Who, ", ")), cell(e.Why))
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// cell makes text fit into a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// WriteDocument writes docs/confine.md.
func WriteDocument(w io.Writer) error {
	if _, err := io.WriteString(w, `# The worker's seccomp filter

Made by `+"`make docs`"+` from package confine, whose doc comment says how the filter works and
what it can't do. What isn't listed, and arguments that no rule accepts, get EPERM.
A call by a foreign ABI ends the worker.

`); err != nil {
		return err
	}
	return Markdown(w)
}
