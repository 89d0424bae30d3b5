package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// A record in the book: a head of fixed size, which is known at the end; the body,
// which is known when the decision is made; a program's instructions, perhaps.
// Numbers are little-endian. A string has its length before it, 2 bytes, and so has
// a list; the upper bit of these says that it was cut.

const (
	headSize = 4 + 8 + 8 + 8 + 1 + 4 + 8 + 4 + 4 + 4 + 8
	// bodySize bounds a body: what the workload can make long is cut.
	bodySize = 12 << 10
	// spare is what numbers and the beginnings of all other facts need of it.
	spare = 2 << 10
	// maxText bounds a string, and a list as a whole. A path may be as long.
	maxText = 4096
	// maxItems bounds the number of items of a list.
	maxItems = 512

	wasCut = 1 << 15
)

// layout tells records of this version of the table of facts from those that a worker
// of another one has left.
var layout = sync.OnceValue(func() uint32 {
	h := crc32.NewIEEE()
	fmt.Fprintln(h, headSize, bodySize, "scope, pids, tag")
	for i := range facts.Table {
		fmt.Fprintln(h, facts.Table[i].Name, facts.Table[i].Type)
	}
	return h.Sum32()
})

var le = binary.LittleEndian

// encoder appends to b, which has room for bodySize bytes.
type encoder struct{ b []byte }

func (e *encoder) u8(v uint8) { e.b = append(e.b, v) }

func (e *encoder) u16(v int) { e.b = le.AppendUint16(e.b, uint16(v)) }

func (e *encoder) room(most int) int { return max(0, min(most, bodySize-spare-len(e.b))) }

// text puts a string of at most that many bytes.
func (e *encoder) text(s string, most int) {
	n := len(s)
	if room := e.room(most); n > room {
		s = s[:room]
		n = room | wasCut
	}
	e.u16(n)
	e.b = append(e.b, s...)
}

// list puts the items 0 to n-1, as many as there is room for.
func (e *encoder) list(n int, put func(i int)) {
	at := len(e.b)
	e.u16(0)
	i, end := 0, len(e.b)+e.room(maxText)
	for i < n && i < maxItems && len(e.b) < end {
		put(i)
		i++
	}
	if i < n {
		i |= wasCut
	}
	le.PutUint16(e.b[at:], uint16(i))
}

// appendBody puts what is known when a decision is made.
func appendBody(b []byte, f *facts.Facts, policyName string, d *policy.Decision) []byte {
	e := encoder{b}
	e.b = le.AppendUint64(e.b, uint64(f.Workload.Thread))
	e.text(f.Command, 64)
	e.text(policyName, 256)
	e.u8(uint8(d.Verdict))
	e.u8(uint8(d.Cause))
	e.u8(uint8(d.Scope))
	e.u8(uint8(d.PIDs))
	e.text(d.Rule, 256)
	e.text(d.Message, 1024)
	count := len(e.b)
	e.u8(0)
	n := uint8(0)
	for _, i := range factsOf(f.Command) {
		p := facts.Table[i].At(f)
		if empty(p) {
			continue
		}
		e.u8(i)
		e.fact(p)
		n++
	}
	e.b[count] = n
	e.list(len(f.Unknown), func(i int) {
		n, _ := facts.Number(f.Unknown[i].Fact)
		e.u8(uint8(n)) // its name might be cut
		e.text(f.Unknown[i].Why, 256)
	})
	return e.b
}

func (e *encoder) fact(p any) {
	switch p := p.(type) {
	case *string:
		e.text(*p, maxText)
	case *int64:
		e.b = le.AppendUint64(e.b, uint64(*p))
	case *bool:
		v := uint8(0)
		if *p {
			v = 1
		}
		e.u8(v)
	case *[]string:
		e.list(len(*p), func(i int) { e.text((*p)[i], maxText) })
	case *[]int64:
		e.list(len(*p), func(i int) { e.b = le.AppendUint64(e.b, uint64((*p)[i])) })
	case *map[string]string:
		keys := make([]string, 0, len(*p))
		for k := range *p {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		e.list(len(keys), func(i int) {
			e.text(keys[i], maxText)
			e.text((*p)[keys[i]], maxText)
		})
	}
}

// head is the part of a record that is known at its end.
type head struct {
	seq     uint64
	wall    int64  // of the decision: nanoseconds since 1970
	took    int64  // nanoseconds
	flags   uint8  // how it ended, and:
	errno   uint32 //
	id      uint64 // of the object
	kind    uint32 // of the object, abi.Object
	attempt uint32
	insns   uint32 // bytes of them, behind the body
	tag     uint64 // of the program that was made with a guard; 0: none was
}

const (
	flagHow      = 3
	flagByDaemon = 1 << 2
	flagFull     = 1 << 3 // the instructions were to be kept
	flagLost     = 1 << 4 // the worker that had them is gone
)

func (h *head) put(b []byte) {
	le.PutUint32(b, layout())
	le.PutUint64(b[4:], h.seq)
	le.PutUint64(b[12:], uint64(h.wall))
	le.PutUint64(b[20:], uint64(h.took))
	b[28] = h.flags
	le.PutUint32(b[29:], h.errno)
	le.PutUint64(b[33:], h.id)
	le.PutUint32(b[41:], h.kind)
	le.PutUint32(b[45:], h.attempt)
	le.PutUint32(b[49:], h.insns)
	le.PutUint64(b[53:], h.tag)
}

// decoder takes from the front of b; bad says that it isn't what it should be.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() (v uint8) {
	if p := d.bytes(1); p != nil {
		v = p[0]
	}
	return v
}

func (d *decoder) u16() (v uint16) {
	if p := d.bytes(2); p != nil {
		v = le.Uint16(p)
	}
	return v
}

func (d *decoder) u32() (v uint32) {
	if p := d.bytes(4); p != nil {
		v = le.Uint32(p)
	}
	return v
}

func (d *decoder) u64() (v uint64) {
	if p := d.bytes(8); p != nil {
		v = le.Uint64(p)
	}
	return v
}

func (d *decoder) text() (s string, cut bool) {
	n := d.u16()
	// The end of a cut one may be half a character.
	return strings.ToValidUTF8(string(d.bytes(int(n&^wasCut))), "\uFFFD"), n&wasCut != 0
}

func (d *decoder) list(item func()) (cut bool) {
	n := d.u16()
	for range min(int(n&^wasCut), maxItems) {
		if d.bad {
			break
		}
		item()
	}
	return n&wasCut != 0
}

var errMalformed = errors.New("a record that isn't what it says to be")

// parse reads a record. Whose it is, and whether its number and time can be, is the
// caller's to say. The instructions are a part of b.
func parse(b []byte) (*Record, error) {
	d := decoder{b: b}
	if l := d.u32(); l != layout() {
		return nil, fmt.Errorf("a record of layout %#x, not %#x: of a worker of another version", l, layout())
	}
	r := &Record{Seq: d.u64(), Time: time.Unix(0, int64(d.u64())), Took: time.Duration(d.u64())}
	flags := d.u8()
	r.Outcome = Outcome{How: flags & flagHow, ByDaemon: flags&flagByDaemon != 0, Errno: sys.Errno(d.u32()), ID: d.u64()}
	kind := d.u32()
	if kind != 0 {
		r.Outcome.Kind = abi.Object(kind).String()
	}
	r.Attempt = int(d.u32())
	insns := d.u32()
	r.Outcome.Tag = d.u64()

	f := &r.Facts
	f.Workload.Thread = int64(d.u64())
	f.Command, _ = d.text()
	r.Policy, _ = d.text()
	verdict, cause, scope, pids := d.u8(), d.u8(), d.u8(), d.u8()
	r.Decision = policy.Decision{Verdict: policy.Verdict(verdict), Cause: policy.Cause(cause), Scope: policy.Scope(scope), PIDs: policy.Scope(pids)}
	r.Decision.Rule, _ = d.text()
	r.Decision.Message, _ = d.text()
	if r.Outcome.How > Gone || r.Decision.Verdict > policy.Native || r.Decision.Cause > policy.ByError || r.Decision.Scope > policy.ScopeWorkload || r.Decision.PIDs > policy.ScopeWorkload || r.Took < 0 {
		return nil, errMalformed
	}
	for range d.u8() {
		i := d.u8()
		if d.bad || int(i) >= len(facts.Table) || r.Has.HasNumber(int(i)) {
			return nil, errMalformed
		}
		r.Has.AddNumber(int(i))
		if d.fact(facts.Table[i].At(f)) {
			r.Cut.AddNumber(int(i))
		}
	}
	d.list(func() {
		i := d.u8()
		why, _ := d.text()
		if int(i) >= len(facts.Table) {
			d.bad = true
			return
		}
		f.Unknown = append(f.Unknown, struct{ Fact, Why string }{facts.Table[i].Name, why})
	})
	if d.bad || len(d.b) != int(insns) {
		return nil, errMalformed
	}
	switch {
	case len(d.b) > 0:
		r.Program.Insns = d.b
	case f.Command != "prog_load":
	case flags&flagLost != 0:
		r.Program.Why = "the worker that had them was killed"
	case flags&flagFull != 0:
		r.Program.Why = "no room for them"
	}
	return r, nil
}

func (d *decoder) fact(p any) (cut bool) {
	switch p := p.(type) {
	case *string:
		*p, cut = d.text()
	case *int64:
		*p = int64(d.u64())
	case *bool:
		*p = d.u8() != 0
	case *[]string:
		*p = []string{}
		some := d.list(func() {
			s, c := d.text()
			*p, cut = append(*p, s), cut || c
		})
		cut = cut || some
	case *[]int64:
		*p = []int64{}
		cut = d.list(func() { *p = append(*p, int64(d.u64())) })
	case *map[string]string:
		*p = map[string]string{}
		some := d.list(func() {
			k, c1 := d.text()
			v, c2 := d.text()
			(*p)[k], cut = v, cut || c1 || c2
		})
		cut = cut || some
	}
	return cut
}
