package audit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// What a workload has named is printed to terminals: whatever isn't plainly printable
// is shown as in a Go string.

func word(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.IsSpace(r) || strings.ContainsRune(`"'\`+"`", r)
	}) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

func sentence(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// what is the operation in a few words: prog_load kprobe "name".
func what(f *facts.Facts) string {
	parts := []string{word(f.Command)}
	if k := f.Kind(); k != "" {
		parts = append(parts, word(k))
	}
	if n := f.Map.Name + f.Prog.Name; n != "" {
		parts = append(parts, strconv.QuoteToASCII(n))
	}
	return strings.Join(parts, " ")
}

// Show prints a record for people.
func Show(w io.Writer, e *Entry) {
	at := e.Time.Local().Format("2006-01-02 15:04:05.000")
	if e.Lost > 0 {
		fmt.Fprintf(w, "%s %s: %d records are missing: %s\n", at, word(e.Workload), e.Lost, sentence(e.Why))
		return
	}
	f := &e.Facts
	fmt.Fprintf(w, "%s %s #%d thread %d: %s %s", at, word(e.Workload), e.Seq, f.Workload.Thread, e.Decision.Verdict, what(f))
	fmt.Fprintf(w, ": %s", word(e.Outcome))
	if o := e.Record.Outcome; o.Kind != "" {
		fmt.Fprintf(w, ", a %s", word(o.Kind))
		if o.ID != 0 {
			fmt.Fprintf(w, " of id %d", o.ID)
		}
	}
	fmt.Fprintf(w, ", after %v\n", e.Took.Round(time.Microsecond))
	fmt.Fprintf(w, "    policy %s, %s", word(e.Policy), by(&e.Decision))
	if m := e.Decision.Message; m != "" {
		fmt.Fprintf(w, ": %s", sentence(m))
	}
	fmt.Fprintln(w)
	for _, line := range list(e) {
		fmt.Fprintln(w, "    "+line)
	}
	if e.Record.Outcome.ByDaemon {
		fmt.Fprintln(w, "    by the daemon")
	}
	if e.Attempt > 1 {
		fmt.Fprintf(w, "    attempt %d: the worker before was killed over it\n", e.Attempt)
	}
	switch p := &e.Program; {
	case p.Digest != "":
		fmt.Fprintf(w, "    program %s\n", word(p.Digest))
	case p.Why != "":
		fmt.Fprintf(w, "    the program's instructions aren't kept: %s\n", sentence(p.Why))
	}
}

// list is a line for each fact of the record, and for each that isn't known.
func list(e *Entry) (out []string) {
	for _, i := range factsOf(e.Facts.Command) {
		if !e.Has.HasNumber(int(i)) {
			continue
		}
		name := facts.Table[i].Name
		line := name + " = " + value(facts.Table[i].At(&e.Facts))
		if e.Cut.HasNumber(int(i)) {
			line += " … (cut)"
		}
		out = append(out, line)
	}
	for _, u := range e.Facts.Unknown {
		out = append(out, u.Fact+" isn't known: "+sentence(u.Why))
	}
	return out
}

func value(p any) string {
	switch p := p.(type) {
	case *string:
		return word(*p)
	case *int64:
		return strconv.FormatInt(*p, 10)
	case *bool:
		return strconv.FormatBool(*p)
	case *[]string:
		var out []string
		for _, s := range *p {
			out = append(out, word(s))
		}
		return "[" + strings.Join(out, ", ") + "]"
	case *[]int64:
		return strings.ReplaceAll(fmt.Sprint(*p), " ", ", ")
	case *map[string]string:
		var out []string
		for k, v := range *p {
			out = append(out, word(k)+": "+word(v))
		}
		slices.Sort(out)
		return "{" + strings.Join(out, ", ") + "}"
	}
	panic("a fact of no type")
}

// by says which rule decided, or what else.
func by(d *policy.Decision) string {
	switch rule := word(d.Rule); d.Cause {
	case policy.ByRule:
		return "rule " + rule
	case policy.ByLimit:
		return "rule " + rule + ", whose limit is reached"
	case policy.ByError:
		if d.Rule == "" {
			return "it couldn't be decided"
		}
		return "rule " + rule + " couldn't be decided"
	}
	return "no rule matches"
}

// Disassemble prints a program's instructions.
func Disassemble(w io.Writer, insns []byte) error {
	prog, err := asm.AppendInstructions(nil, bytes.NewReader(insns), binary.NativeEndian, "linux")
	if err != nil {
		return fmt.Errorf("disassemble %d bytes of instructions: %w", len(insns), err)
	}
	it := prog.Iterate()
	for it.Next() {
		fmt.Fprintf(w, "%6d: %v\n", it.Offset, it.Ins)
	}
	return nil
}
