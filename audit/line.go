package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// maxLine bounds a line of a log. What the workload made long is cut further until
// it fits: a control character takes six bytes.
const maxLine = 16 << 10

// lineBegin is how each line begins, as slog's handler has it.
const lineBegin = `{"time":"`

// Messages of the lines.
const (
	msgDecision = "decision"
	msgLost     = "lost"
)

// Line is one line of a log, with its newline.
type Line struct {
	Level slog.Level
	Text  []byte
}

// printer makes lines.
type printer struct {
	buf     bytes.Buffer
	handler slog.Handler
}

func newPrinter() *printer {
	p := &printer{}
	p.handler = slog.NewJSONHandler(&p.buf, nil)
	return p
}

func (p *printer) line(at time.Time, level slog.Level, msg string, attrs []slog.Attr) Line {
	r := slog.NewRecord(at.UTC(), level, msg, 0)
	r.AddAttrs(attrs...)
	p.buf.Reset()
	if err := p.handler.Handle(context.Background(), r); err != nil {
		panic(err) // a buffer takes all
	}
	return Line{level, bytes.Clone(p.buf.Bytes())}
}

// decision is the line of a record.
func (p *printer) decision(r *Record) Line {
	level := slog.LevelInfo
	if r.Decision.Verdict == policy.Deny {
		level = slog.LevelWarn
	}
	var l Line
	for limit := maxText; limit >= 8; limit /= 4 {
		if l = p.line(r.Time, level, msgDecision, attrs(r, limit)); len(l.Text) <= maxLine {
			break
		}
	}
	return l
}

// lost is the line that says that records of a workload are missing.
func (p *printer) lost(at time.Time, workload string, n uint64, why string) Line {
	return p.line(at, slog.LevelWarn, msgLost, []slog.Attr{
		slog.Int("schema", Schema), slog.String("workload", workload), slog.Uint64("count", n), slog.String("why", why),
	})
}

// attrs are a record's, in the order in which they are written; no text, and no list,
// is longer than limit.
func attrs(r *Record, limit int) []slog.Attr {
	var cut []string
	text := func(name, s string) string {
		if len(s) > limit {
			cut = append(cut, name)
			s = strings.ToValidUTF8(s[:limit], "")
		}
		return s
	}
	f := &r.Facts
	out := append(make([]slog.Attr, 0, 24),
		slog.Int("schema", Schema), slog.String("workload", r.Workload), slog.Uint64("seq", r.Seq),
		slog.Int64("thread", f.Workload.Thread), slog.String("command", text("command", f.Command)),
	)
	had := make([]slog.Attr, 0, 16)
	for _, i := range factsOf(f.Command) {
		if !r.Has.HasNumber(int(i)) {
			continue
		}
		name := facts.Table[i].Name
		before := len(cut)
		had = append(had, slog.Attr{Key: name, Value: short(facts.Table[i].At(f), limit, func(s string) string { return text(name, s) }, func() { cut = append(cut, name) })})
		if len(cut) == before && r.Cut.HasNumber(int(i)) {
			cut = append(cut, name)
		}
	}
	out = append(out, slog.Attr{Key: "facts", Value: slog.GroupValue(had...)})
	var unknown []slog.Attr
	for _, u := range f.Unknown {
		unknown = append(unknown, slog.String(u.Fact, text(u.Fact, u.Why)))
	}
	out = append(out, slog.Attr{Key: "unknown", Value: slog.GroupValue(unknown...)}) // a group without any isn't shown
	d := &r.Decision
	out = append(out, slog.String("policy", r.Policy), slog.String("rule", text("rule", d.Rule)), slog.String("verdict", d.Verdict.String()),
		slog.String("cause", d.Cause.String()), slog.String("message", text("message", d.Message)), slog.String("outcome", r.Outcome.String()))
	if d.Scope != policy.ScopeHost {
		out = append(out, slog.String("scope", d.Scope.String()))
	}
	if d.PIDs != policy.ScopeHost {
		out = append(out, slog.String("pids", d.PIDs.String()))
	}
	if k := r.Outcome.Kind; k != "" {
		made := []any{slog.String("kind", text("made.kind", k))}
		if id := r.Outcome.ID; id != 0 {
			made = append(made, slog.Uint64("id", id))
		}
		if tag := r.Outcome.Tag; tag != 0 {
			made = append(made, slog.String("tag", fmt.Sprintf("%016x", tag)))
		}
		out = append(out, slog.Group("made", made...))
	}
	out = append(out, slog.Int64("duration_us", r.Took.Microseconds()))
	if r.Outcome.ByDaemon {
		out = append(out, slog.Bool("by_daemon", true))
	}
	if r.Attempt > 1 {
		out = append(out, slog.Int("attempt", r.Attempt))
	}
	switch p := &r.Program; {
	case p.Digest != "":
		out = append(out, slog.String("program", p.Digest))
	case p.Why != "":
		out = append(out, slog.String("program_missing", p.Why))
	}
	if len(cut) > 0 {
		slices.Sort(cut)
		out = append(out, slog.Any("cut", slices.Compact(cut)))
	}
	return out
}

// short is the value of the fact at p, with at most limit bytes of text.
func short(p any, limit int, text func(string) string, cut func()) slog.Value {
	room := limit
	fits := func(n int) bool {
		room -= n
		if room < 0 {
			cut()
		}
		return room >= 0
	}
	switch p := p.(type) {
	case *string:
		return slog.StringValue(text(*p))
	case *int64:
		return slog.Int64Value(*p)
	case *bool:
		return slog.BoolValue(*p)
	case *[]string:
		out := []string{}
		for _, s := range *p {
			if s = text(s); !fits(len(s) + 1) {
				break
			}
			out = append(out, s)
		}
		return slog.AnyValue(out)
	case *[]int64:
		out := []int64{}
		for _, n := range *p {
			if !fits(8) {
				break
			}
			out = append(out, n)
		}
		return slog.AnyValue(out)
	case *map[string]string:
		out := map[string]string{}
		keys := make([]string, 0, len(*p))
		for k := range *p {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			v := text((*p)[k])
			if k = text(k); !fits(len(k) + len(v) + 1) {
				break
			}
			out[k] = v
		}
		return slog.AnyValue(out)
	}
	panic("a fact of no type")
}

// Entry is a line of a log, as it is read.
type Entry struct {
	Record         // of a decision
	Outcome string // instead of Record's: as it was written
	Lost    uint64 // not 0: it only says that this many are missing
	Why     string // they are
}

// line is what a log's lines have in common with slog's.
type line struct {
	Time     time.Time
	Msg      string
	Schema   int
	Workload string
	Count    uint64
	Why      string

	Seq     uint64
	Thread  int64
	Command string
	Facts   map[string]json.RawMessage
	Unknown map[string]string
	Policy, Rule, Verdict, Cause, Message,
	Outcome string
	Made struct {
		Kind string
		ID   uint64
		Tag  string
	}
	Duration int64 `json:"duration_us"`
	ByDaemon bool  `json:"by_daemon"`
	Attempt  int
	Scope    string
	PIDs     string
	Program  string
	Missing  string `json:"program_missing"`
	Cut      []string
}

// ParseLine reads a line of a log. What a newer version has added is passed over.
func ParseLine(b []byte) (*Entry, error) {
	if len(b) > 2*maxLine {
		return nil, fmt.Errorf("a line of %d bytes", len(b))
	}
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, err
	}
	if l.Schema != Schema {
		return nil, fmt.Errorf("a record of schema %d, not %d", l.Schema, Schema)
	}
	e := &Entry{Outcome: l.Outcome, Record: Record{Time: l.Time, Workload: l.Workload, Seq: l.Seq, Policy: l.Policy,
		Took: time.Duration(l.Duration) * time.Microsecond, Attempt: l.Attempt, Program: Program{Digest: l.Program, Why: l.Missing}}}
	if l.Msg == msgLost {
		e.Lost, e.Why = l.Count, l.Why
		return e, nil
	}
	if l.Msg != msgDecision {
		return nil, fmt.Errorf("a line %q, which is no record", l.Msg)
	}
	d := &e.Decision
	d.Rule, d.Message = l.Rule, l.Message
	var ok1, ok2 bool
	d.Verdict, ok1 = named(l.Verdict, policy.Deny, policy.Allow, policy.Native)
	d.Cause, ok2 = named(l.Cause, policy.ByDefault, policy.ByRule, policy.ByLimit, policy.ByError)
	for of, is := range map[*policy.Scope]string{&d.Scope: l.Scope, &d.PIDs: l.PIDs} {
		if is == policy.ScopeWorkload.String() {
			*of = policy.ScopeWorkload
		}
	}
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("a record with the verdict %q, and the cause %q", l.Verdict, l.Cause)
	}
	e.Record.Outcome = Outcome{Kind: l.Made.Kind, ID: l.Made.ID, ByDaemon: l.ByDaemon}
	if l.Made.Tag != "" {
		var err error
		if e.Record.Outcome.Tag, err = strconv.ParseUint(l.Made.Tag, 16, 64); err != nil {
			return nil, fmt.Errorf("a record with the tag %q", l.Made.Tag)
		}
	}
	f := &e.Facts
	f.Command, f.Workload.ID, f.Workload.Thread = l.Command, l.Workload, l.Thread
	for _, name := range inHead {
		e.Has.Add(name)
	}
	for name, value := range l.Facts {
		fact := facts.Find(name)
		if fact == nil {
			continue
		}
		if err := json.Unmarshal(value, fact.At(f)); err != nil {
			return nil, fmt.Errorf("fact %q: %w", name, err)
		}
		e.Has.Add(name)
	}
	for _, name := range l.Cut {
		e.Cut.Add(name) // does nothing if it is no fact
	}
	for i := range facts.Table { // in the table's order
		if why, ok := l.Unknown[facts.Table[i].Name]; ok {
			f.Unknown = append(f.Unknown, struct{ Fact, Why string }{facts.Table[i].Name, why})
		}
	}
	return e, nil
}

// named finds a value by its name.
func named[T fmt.Stringer](name string, values ...T) (T, bool) {
	for _, v := range values {
		if v.String() == name {
			return v, true
		}
	}
	var none T
	return none, false
}
