// Package inspect derives the facts of an operation from its request, and from what its
// Place can find out.
package inspect

import (
	"bytes"
	"fmt"
	"math"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// Inspector derives facts, of one operation at a time, into memory that it uses again.
type Inspector struct {
	// Workload is what is the same for all operations.
	Workload facts.Workload
	// CPUs is the number of CPUs that there could be: maps have elements for each.
	CPUs int

	// Errno is what the kernel will answer to the last request, whatever is decided, if
	// that was found out on the way; else 0.
	Errno sys.Errno

	f     facts.Facts
	q     *request.Request
	needs facts.Set
	at    Place

	texts map[string]string // strings of the last operations
	calls calls
	info  [256]byte // of an object, see object

	// What lists of facts are made in.
	flags, helpers, kfuncs, mapTypes, functions []string
	mapIDs, foreignMapIDs, offsets              []int64
}

// Request returns the facts of a request: all that its own copy shows, and those others
// that needs has. Where one can't be found out, Facts.Unknown says why. They are valid
// until the next call, lists and strings included.
func (i *Inspector) Request(q *request.Request, needs facts.Set, at Place) *facts.Facts {
	i.q, i.needs, i.at, i.Errno = q, needs, at, 0
	f := &i.f
	*f = facts.Facts{Command: q.Row.Name, Workload: i.Workload, Unknown: f.Unknown[:0]}
	for _, s := range steps[q.Row] {
		if s.field.Live(q.Attr) {
			i.plain(s)
		}
	}
	switch q.Row {
	case mapCreate:
		i.mapCreate()
	case progLoad:
		i.progLoad()
	case perfEventOpen:
		i.perfEvent()
	}
	if q.Row.TokenFlags != "" {
		f.Token = q.Field(q.Row.TokenFlags)&abi.FTokenFD != 0
	}
	i.attach()
	i.object()
	if needs != (facts.Set{}) {
		i.caller()
	}
	i.q, i.at = nil, nil
	return f
}

// Unknown returns the facts of a call that could not be copied: its command is
// all that is known, and the table may not know even that.
func Unknown(c request.Call) facts.Facts {
	if row := c.Row(); row != nil {
		return facts.Facts{Command: row.Name}
	}
	return facts.Facts{Command: "unknown"}
}

var (
	mapCreate     = abi.RowOf(abi.MapCreate)
	progLoad      = abi.RowOf(abi.ProgLoad)
	perfEventOpen = abi.RowOfSyscall(abi.SyscallPerfEventOpen)
)

// step is a field of a row that is a fact as it stands.
type step struct {
	field *abi.Field
	fact  *facts.Fact
}

// steps are those of each row: the table's Fact names say which field is which fact.
var steps = func() map[*abi.Row][]step {
	m := map[*abi.Row][]step{}
	for _, row := range abi.Rows() {
		for i := range row.Fields {
			f := &row.Fields[i]
			if f.Fact != "" && !derived[f.Fact] {
				m[row] = append(m[row], step{f, facts.Find(f.Fact)})
			}
		}
	}
	return m
}()

// derived are facts of fields that say more or less than their value.
var derived = map[string]bool{
	"prog.attach_type": true, "perf_event.type": true, "perf_event.offset": true, "perf_event.pid": true,
	"attach.file": true, "attach.functions": true, "attach.offsets": true, "attach.protocol": true, "attach.hook": true,
	"perf_event.function": true, "perf_event.file": true,
}

// plain sets a fact from its field.
func (i *Inspector) plain(s step) {
	q := i.q
	switch at := s.fact.At(&i.f).(type) {
	case *string:
		switch s.field.Class {
		case abi.Enum:
			*at = s.field.Values.Name(s.field.Uint(q.Attr))
		case abi.Name:
			*at = i.text(q.Attr[s.field.Offset : s.field.Offset+s.field.Size])
		case abi.Pointer:
			*at = i.pointed(s.field.Name, s.fact.Name)
		}
	case *int64:
		v := s.field.Uint(q.Attr)
		if *at = clamped(v); signed[s.fact.Name] {
			*at = int64(int32(v))
		}
	case *[]string: // flags
		v := s.field.Uint(q.Attr)
		i.flags = i.flags[:0]
		for _, b := range s.field.Values.Bits {
			if v&b.Bit == b.Bit {
				i.flags = append(i.flags, b.Kernel)
				v &^= b.Bit
			}
		}
		if v != 0 {
			i.flags = append(i.flags, fmt.Sprintf("%#x", v))
		}
		*at = i.flags
	}
}

// signed are facts of 32 bits with a sign.
var signed = map[string]bool{"attach.priority": true, "attach.pid": true, "perf_event.cpu": true}

// pointed is the text that a field of the attribute points to.
func (i *Inspector) pointed(field, fact string) string {
	b := i.q.Buffer(field)
	switch {
	case b == nil: // NULL
		return ""
	case b.Fault:
		i.unknown(fact, "it can't be read")
		return ""
	}
	return i.text(b.Data)
}

const (
	// maxText is how long a text may be that is remembered, bytes, and maxTexts how many.
	maxText  = 128
	maxTexts = 256
)

// text makes a string of bytes that end at a NUL, or where they end. Most are those of
// the operation before: then it allocates nothing.
func (i *Inspector) text(b []byte) string {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	if len(b) == 0 {
		return ""
	}
	if len(b) > maxText {
		return string(b)
	}
	if s, ok := i.texts[string(b)]; ok {
		return s
	}
	if i.texts == nil || len(i.texts) == maxTexts {
		i.texts = map[string]string{}
	}
	s := string(b)
	i.texts[s] = s
	return s
}

// unknown notes that a fact can't be found out.
func (i *Inspector) unknown(fact string, why string) {
	i.f.Unknown = append(i.f.Unknown, struct{ Fact, Why string }{fact, why})
}

// found notes err, if it is one, as why a fact isn't known.
func (i *Inspector) found(fact string, err error) bool {
	if err != nil {
		i.unknown(fact, err.Error())
	}
	return err == nil
}

// wants says whether a fact is asked for.
func (i *Inspector) wants(fact string) bool { return i.needs.Has(fact) }

func (i *Inspector) mapCreate() {
	q := i.q
	i.f.Map.Bytes = mapBytes(q.Field("map_type"), q.Field("key_size"), q.Field("value_size"), q.Field("max_entries"),
		q.Field("map_flags"), q.Field("map_extra"), uint64(max(1, i.CPUs)))
}

// caller finds out who makes the call, and what the workload holds.
func (i *Inspector) caller() {
	w := &i.f.Workload
	var err error
	if i.wants("workload.pid") {
		w.PID, err = i.at.PID()
		i.found("workload.pid", err)
	}
	if i.wants("workload.comm") {
		w.Comm, err = i.at.Comm()
		i.found("workload.comm", err)
	}
	if i.wants("workload.exe") {
		w.Exe, err = i.at.Exe()
		i.found("workload.exe", err)
	}
	if i.wants("workload.argv") {
		w.Argv, err = i.at.Argv()
		i.found("workload.argv", err)
	}
	counts := [...]string{"counts.maps", "counts.progs", "counts.links", "counts.bytes"}
	if i.needs.Any("counts.") {
		if i.f.Counts, err = i.at.Counts(); err != nil {
			for _, fact := range counts {
				i.unknown(fact, err.Error())
			}
		}
	}
}

// id32 is a kernel's id as a fact.
func id32(v uint64) int64 { return int64(v & math.MaxUint32) }
