package audit

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// What people see of the sample records.
func TestShow(t *testing.T) {
	const golden = "testdata/show.txt"
	lines, err := os.ReadFile("testdata/lines.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func(l *time.Location) { time.Local = l }(time.Local)
	time.Local = time.UTC
	var out bytes.Buffer
	strange, err := Read(bytes.NewReader(lines), Filter{}, func(e *Entry, _ []byte) error {
		Show(&out, e)
		return nil
	})
	if err != nil || strange != 0 {
		t.Errorf("%d strange lines, %v", strange, err)
	}
	_, err = Read(bytes.NewReader(lines), Filter{}, func(e *Entry, _ []byte) error {
		if e.Lost == 0 {
			fmt.Fprintln(&out, "\n---")
			ExplainRecord(&out, e)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("it differs from %s (%v); if that is meant, run go test ./audit -update\n%s", golden, err, out.Bytes())
	}
	if bytes.ContainsRune(out.Bytes(), '\x1b') {
		t.Error("a workload's escape sequence comes to the terminal")
	}
}

func TestFilter(t *testing.T) {
	line := func(seq uint64, workload string, v policy.Verdict, at int64, digest string) string {
		r := &Record{Seq: seq, Workload: workload, Time: time.Unix(at, 0), Decision: policy.Decision{Verdict: v}, Program: Program{Digest: digest}}
		r.Facts = facts.Facts{Command: "prog_load"}
		return string(newPrinter().decision(r).Text)
	}
	long := strings.Repeat("x", 5*maxLine)
	log := strings.Join([]string{
		line(1, "a", policy.Allow, 100, "0001"), "hello\n", line(1, "b", policy.Deny, 200, ""), long + "\n", line(2, "b", policy.Deny, 300, "0002"),
		string(newPrinter().lost(time.Unix(400, 0), "a", 5, "why").Text), line(3, "b", policy.Allow, 500, "0001"), long,
	}, "")
	for _, c := range []struct {
		f    Filter
		want []string
	}{
		{Filter{}, []string{"a1", "b1", "b2", "a0", "b3"}},
		{Filter{Denied: true}, []string{"b1", "b2", "a0"}},
		{Filter{Workload: "a"}, []string{"a1", "a0"}},
		{Filter{Since: time.Unix(300, 0)}, []string{"b2", "a0", "b3"}},
		{Filter{Program: "0001"}, []string{"a1", "b3"}},
		{Filter{Seq: 1}, []string{"a1", "b1"}},
	} {
		var got []string
		strange, err := Read(strings.NewReader(log), c.f, func(e *Entry, l []byte) error {
			got = append(got, fmt.Sprint(e.Workload, e.Seq))
			if l[0] != '{' || l[len(l)-1] != '\n' {
				t.Errorf("the line is %q", l)
			}
			return nil
		})
		if !slices.Equal(got, c.want) || strange != 3 || err != nil {
			t.Errorf("%+v: got %v, wanted %v; %d strange lines, %v", c.f, got, c.want, strange, err)
		}
	}
}

func FuzzDisassemble(f *testing.F) {
	f.Add(samples[2].ended.Insns)
	f.Fuzz(func(_ *testing.T, insns []byte) {
		_ = Disassemble(&bytes.Buffer{}, insns)
	})
}
