package load

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Errors are all mistakes of one policy, in the order of its text.
type Errors struct {
	File string
	List []Error
	More int // that aren't listed
}

// Error is one mistake.
type Error struct {
	Line, Column int // from 1; the column counts characters
	Message      string
	text         string // the line
}

// maxErrors is how many mistakes are listed.
const maxErrors = 50

// Error lists the mistakes, each with its line and a caret below the place.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, x := range e.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s", e.File, x.Line, x.Column, x.Message)
		if x.text != "" {
			b.WriteString("\n" + caret(x.text, x.Column))
		}
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// shown is how much of a long line is shown, characters.
const shown = 120

// caret shows a line, and where in it. Tabs stay tabs, so that the caret stands right.
func caret(line string, column int) string {
	text := []rune(line)
	column = min(max(column, 1), len(text)+1)
	from := 0
	if column > shown {
		from = column - shown/2
	}
	to := min(len(text), from+shown)
	var pad strings.Builder
	for _, r := range text[from : column-1] {
		if r == '\t' {
			pad.WriteByte('\t')
		} else {
			pad.WriteByte(' ')
		}
	}
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r != '\t' && r < ' ' || r == 0x7f {
			return '?' // a terminal might obey it
		}
		return r
	}, string(text[from:to]))
	return "    " + clean + "\n    " + pad.String() + "^"
}

// source is a file's text, and what is wrong with it.
type source struct {
	file   string
	lines  []string
	errors []Error
}

func newSource(file string, text []byte) *source {
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return &source{file: file, lines: lines}
}

// at notes a mistake at a line and column.
func (s *source) at(line, column int, format string, args ...any) {
	e := Error{Line: line, Column: max(column, 1), Message: fmt.Sprintf(format, args...)}
	if line >= 1 && line <= len(s.lines) {
		e.text = s.lines[line-1]
	}
	s.errors = append(s.errors, e)
}

// node notes a mistake at a node of the YAML.
func (s *source) node(n *yaml.Node, format string, args ...any) {
	s.at(n.Line, n.Column, format, args...)
}

// err is all that was noted, nil for nothing.
func (s *source) err() error {
	if len(s.errors) == 0 {
		return nil
	}
	slices.SortStableFunc(s.errors, func(a, b Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	list := slices.CompactFunc(s.errors, func(a, b Error) bool { return a == b })
	e := &Errors{File: s.file, List: list}
	if len(list) > maxErrors {
		e.List, e.More = list[:maxErrors], len(list)-maxErrors
	}
	return e
}

// place is a position in the file.
type place struct{ line, column int }

// places finds for each character of a scalar's value where it stands in the file, and
// one more for the end: YAML folds lines, and has quotes and escapes. It goes through the
// text with the value, taking blanks for blanks.
func (s *source) places(n *yaml.Node) []place {
	line, column := n.Line, n.Column // from 1
	switch n.Style &^ yaml.TaggedStyle {
	case yaml.LiteralStyle, yaml.FoldedStyle:
		line, column = line+1, 1
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		column++
	}
	lines := make(map[int][]rune)
	text := func(line int) []rune {
		if line < 1 || line > len(s.lines) {
			return nil
		}
		t, ok := lines[line]
		if !ok {
			t = []rune(s.lines[line-1])
			lines[line] = t
		}
		return t
	}
	blank := func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }
	// skip goes to the next character that isn't blank.
	skip := func() {
		for line <= len(s.lines) {
			t := text(line)
			switch {
			case column > len(t):
				line, column = line+1, 1
			case blank(t[column-1]):
				column++
			case n.Style&yaml.DoubleQuotedStyle != 0 && t[column-1] == '\\' && (column == len(t) || strings.ContainsRune("nrt ", t[column])):
				column += 2
			default:
				return
			}
		}
	}
	var out []place
	for _, r := range n.Value {
		if blank(r) {
			out = append(out, place{line, column})
			continue
		}
		skip()
		out = append(out, place{line, column})
		t := text(line)
		if column > len(t) {
			continue
		}
		switch {
		case n.Style&yaml.SingleQuotedStyle != 0 && r == '\'':
			column += 2
		case n.Style&yaml.DoubleQuotedStyle != 0 && t[column-1] == '\\' && column < len(t):
			column += 2 + map[rune]int{'x': 2, 'u': 4, 'U': 8}[t[column]]
		default:
			column++
		}
	}
	return append(out, place{line, column})
}
