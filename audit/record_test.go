package audit

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

var update = flag.Bool("update", false, "rewrite testdata")

// noted is one record, as a worker notes it.
type noted struct {
	name     string
	facts    facts.Facts
	decision policy.Decision
	ended    Ended
	attempt  uint32
}

var unknown = facts.Unknown{{Fact: "attach.ifname", Why: "the network namespace isn't the caller's"}}

// samples are records of all kinds.
var samples = []noted{
	{"map", facts.Facts{Command: "map_create", Workload: facts.Workload{ID: "made up", Thread: 77, UID: 1000, GID: 1000, Cgroup: "/user.slice"},
		Map: facts.Map{Type: "array", KeySize: 4, ValueSize: 8, MaxEntries: 16, Flags: []string{"BPF_F_MMAPABLE"}, Name: "m", Bytes: 4096}},
		policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Rule: "small", Message: "small arrays"}, Ended{Kind: abi.Map, ID: 12}, 1},
	{"denied program", facts.Facts{Command: "prog_load", Workload: facts.Workload{Thread: 78},
		Prog: facts.Prog{Type: "kprobe", Name: "p\x1b[31m\"\n", License: "GPL", Insns: 2, Helpers: []string{"bpf_get_current_comm", "bpf_probe_read_kernel"}}},
		policy.Decision{Cause: policy.ByDefault, Message: "no rule matches"}, Ended{Errno: sys.EACCES}, 1},
	{"full program", facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "xdp"}},
		policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Rule: "xdp", Audit: policy.AuditFull}, Ended{Kind: abi.Prog, ID: 5, Tag: 0xf00d, Insns: append(append([]byte{0xb7}, make([]byte, 7)...), append([]byte{0x95}, make([]byte, 7)...)...)}, 1},
	{"unknown fact", facts.Facts{Command: "link_create", Attach: facts.Attach{Type: "xdp", Ifindex: 3}, Unknown: unknown},
		policy.Decision{Cause: policy.ByError, Rule: "mine", Message: "attach.ifname isn't known"}, Ended{Errno: sys.EPERM}, 1},
	{"repeated", facts.Facts{Command: "map_get_next_id"}, policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Rule: "ids", Message: "ids"}, Ended{ByDaemon: true}, 2},
	{"native", facts.Facts{Command: "prog_query"}, policy.Decision{Verdict: policy.Native, Cause: policy.ByRule, Rule: "n"}, Ended{How: Continued}, 1},
	{"gone", facts.Facts{Command: "no such"}, policy.Decision{Verdict: policy.Allow}, Ended{How: Gone}, 1},
}

// bytesOf is the record as it lies in the ring.
func bytesOf(n *noted) []byte {
	d := n.decision
	body := appendBody(make([]byte, 0, bodySize), &n.facts, "test", &d)
	h := head{seq: 7, wall: 1e18, took: 38_500, flags: n.ended.How, errno: uint32(n.ended.Errno), id: n.ended.ID, kind: uint32(n.ended.Kind), attempt: n.attempt, insns: uint32(len(n.ended.Insns)), tag: n.ended.Tag}
	if n.ended.ByDaemon {
		h.flags |= flagByDaemon
	}
	front := make([]byte, headSize)
	h.put(front)
	return bytes.Join([][]byte{front, body, n.ended.Insns}, nil)
}

// The lines of a log are what others have programs for: their names and their order
// stay.
func TestGolden(t *testing.T) {
	const golden = "testdata/lines.jsonl"
	p := newPrinter()
	var out bytes.Buffer
	for i := range samples {
		r, err := parse(bytesOf(&samples[i]))
		if err != nil {
			t.Fatalf("%s: %v", samples[i].name, err)
		}
		r.Workload = "run-1"
		if r.Program.Insns != nil {
			r.Program.Digest = "d1ce"
		}
		out.Write(p.decision(r).Text)
	}
	out.Write(p.lost(time.Unix(1e9, 0), "run-1", 3, noRoom).Text)
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("records differ from %s (%v); if that is meant, look whether Schema must be counted up, and run go test ./audit -update\n%s", golden, err, out.Bytes())
	}
}

// What is written is read again.
func TestParseLine(t *testing.T) {
	p := newPrinter()
	for i := range samples {
		s := &samples[i]
		r, err := parse(bytesOf(s))
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		r.Workload, r.Program = "run-1", Program{}
		e, err := ParseLine(p.decision(r).Text)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		want := s.facts
		want.Workload.ID = "run-1"
		if !reflect.DeepEqual(e.Facts, want) {
			t.Errorf("%s: got\n%+v, wanted\n%+v", s.name, e.Facts, want)
		}
		d := s.decision
		d.Audit = 0 // isn't in the log
		if e.Decision != d || e.Outcome != r.Outcome.String() || e.Seq != 7 || e.Took != 38*time.Microsecond || e.Attempt != max(int(s.attempt)-1, 0)*2 {
			t.Errorf("%s: got %+v", s.name, e)
		}
	}
	e, err := ParseLine(p.lost(time.Now(), "run-1", 3, "why").Text)
	if err != nil || e.Lost != 3 || e.Why != "why" {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, bad := range []string{"", "{}", `{"schema":2,"msg":"decision"}`, `{"schema":1,"msg":"hello"}`, `{"schema":1,"msg":"decision","verdict":"maybe"}`,
		`{"schema":1,"msg":"decision","verdict":"deny","cause":"rule","facts":{"map.type":1}}`} {
		if _, err := ParseLine([]byte(bad)); err == nil {
			t.Errorf("%q is no record", bad)
		}
	}
}

// worst are facts as long as a workload can make them.
func worst(text string) facts.Facts {
	var f facts.Facts
	for i := range facts.Table {
		switch p := facts.Table[i].At(&f).(type) {
		case *string:
			*p = text
		case *int64:
			*p = -1
		case *bool:
			*p = true
		case *[]string:
			for range 5000 {
				*p = append(*p, text)
			}
		case *[]int64:
			*p = make([]int64, 5000)
		case *map[string]string:
			*p = map[string]string{text: text, text + "2": text}
		}
	}
	for i := range facts.Table {
		f.Unknown = append(f.Unknown, struct{ Fact, Why string }{facts.Table[i].Name, text})
	}
	return f
}

// Whatever a workload names things, a record is bounded, whole JSON, and says what was
// cut.
func TestBounds(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 100_000), strings.Repeat("\x00", 5000), strings.Repeat("\xff", 5000), strings.Repeat("\u2028", 3000), "x"} {
		for _, unknown := range []bool{false, true} {
			for command := range table() {
				f := worst(text)
				f.Command = command
				if !unknown {
					f.Unknown = nil
				}
				n := noted{facts: f, decision: policy.Decision{Rule: text, Message: text}}
				b := bytesOf(&n)
				if len(b) > headSize+bodySize {
					t.Fatalf("%s: %d bytes", command, len(b))
				}
				r, err := parse(b)
				if err != nil {
					t.Fatalf("%s: %v", command, err)
				}
				l := newPrinter().decision(r)
				if len(l.Text) > maxLine || !json.Valid(l.Text) || bytes.Count(l.Text, []byte("\n")) != 1 {
					t.Errorf("%s: a line of %d bytes", command, len(l.Text))
				}
				e, err := ParseLine(l.Text)
				if err != nil {
					t.Errorf("%s: %v", command, err)
				} else if len(text) > 1 && e.Cut == (facts.Set{}) && !unknown {
					t.Errorf("%s: nothing says that it was cut", command)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for i := range samples {
		f.Add(bytesOf(&samples[i]))
	}
	p := newPrinter()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxEntry {
			return
		}
		if len(b) >= 4 { // or nothing is ever read
			le.PutUint32(b, layout())
		}
		r, err := parse(b)
		if err != nil {
			return
		}
		l := p.decision(r)
		if len(l.Text) > maxLine {
			t.Errorf("a line of %d bytes", len(l.Text))
		}
		if _, err := ParseLine(l.Text); err != nil {
			t.Errorf("what was written can't be read: %v\n%s", err, l.Text)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	b, err := os.ReadFile("testdata/lines.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for l := range bytes.Lines(b) {
		f.Add(l)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { ParseLine(b) })
}
