// Package inspect derives the facts of an operation from its request.
package inspect

import (
	"bytes"
	"math"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/request"
)

// Request derives the facts that the request's own copy shows, into f, whose slices are
// used again. Those that cost more than a look are derived only if needs has them.
func Request(q *request.Request, needs facts.Set, f *facts.Facts) {
	*f = facts.Facts{
		Map:    facts.Map{Flags: f.Map.Flags[:0]},
		Prog:   facts.Prog{Flags: f.Prog.Flags[:0], Helpers: f.Prog.Helpers[:0]},
		Attach: facts.Attach{Functions: f.Attach.Functions[:0], Offsets: f.Attach.Offsets[:0], Flags: f.Attach.Flags[:0]},
	}
	f.Command = q.Row.Name
	switch q.Row.Command {
	case abi.MapCreate:
		ofMap(q, f)
	case abi.ProgLoad:
		ofProg(q, needs, f)
	case abi.ProgAttach, abi.ProgDetach, abi.ProgQuery, abi.RawTPOpen, abi.LinkCreate, abi.LinkUpdate:
		ofAttach(q, f)
	case abi.ObjPin, abi.ObjGet:
		f.Pin.Path = text(q, "pathname")
	}
	if q.Row.Syscall == abi.SyscallPerfEventOpen {
		ofEvent(q, f)
	}
	f.Object.Kind = objectKind(q)
	f.Token = q.Row.TokenFlags != "" && q.Field(q.Row.TokenFlags)&abi.FTokenFD != 0
}

// derived are the facts that are found out here, and those of who calls, which the broker adds.
var derived = func() (s facts.Set) {
	for _, name := range []string{
		"command", "workload.id", "workload.thread", "pin.path", "token", "object.kind",
		"map.type", "map.key_size", "map.value_size", "map.max_entries", "map.flags", "map.name", "map.bytes",
		"prog.type", "prog.attach_type", "prog.name", "prog.license", "prog.insns", "prog.flags", "prog.sleepable", "prog.signed", "prog.helpers", "prog.digest",
		"attach.type", "attach.flags", "attach.ifindex", "attach.tracepoint", "attach.functions", "attach.file", "attach.offsets", "attach.pid",
		"attach.protocol", "attach.hook", "attach.priority",
		"perf_event.type", "perf_event.config", "perf_event.pid", "perf_event.cpu", "perf_event.function", "perf_event.file", "perf_event.offset",
	} {
		s.Add(name)
	}
	return s
}()

// Missing notes which of the facts that a policy needs aren't known. It can't decide
// without them: a list that is empty because nobody has looked isn't an empty list.
func Missing(needs facts.Set, f *facts.Facts) {
	for i := range needs {
		needs[i] &^= derived[i]
	}
	if needs == (facts.Set{}) {
		return
	}
	for i := range facts.Table {
		if t := &facts.Table[i]; needs.Has(t.Name) && t.Has(f.Command) {
			f.Unknown = append(f.Unknown, struct{ Fact, Why string }{t.Name, "this version of bpfbroker doesn't find it out"})
		}
	}
}

// Unknown returns the facts of a call that could not be copied: its command is
// all that is known, and the table may not know even that.
func Unknown(c request.Call) facts.Facts {
	if row := c.Row(); row != nil {
		return facts.Facts{Command: row.Name}
	}
	return facts.Facts{Command: "unknown"}
}

func ofMap(q *request.Request, f *facts.Facts) {
	m := &f.Map
	m.Type = value(q, "map_type")
	m.KeySize, m.ValueSize, m.MaxEntries = number(q, "key_size"), number(q, "value_size"), number(q, "max_entries")
	m.Flags = flags(q, "map_flags", m.Flags)
	m.Name = name(q, "map_name")
	m.Bytes = mapBytes(m)
}

func ofProg(q *request.Request, needs facts.Set, f *facts.Facts) {
	const sleepable = 1 << 4 // BPF_F_SLEEPABLE
	p := &f.Prog
	p.Type, p.AttachType = value(q, "prog_type"), value(q, "expected_attach_type")
	p.Name = name(q, "prog_name")
	p.License = text(q, "license")
	p.Insns = number(q, "insn_cnt")
	p.Flags = flags(q, "prog_flags", p.Flags)
	p.Sleepable = q.Field("prog_flags")&sleepable != 0
	p.Signed = q.Field("signature_size") != 0
	if needs.Has("prog.helpers") {
		p.Helpers = helpers(data(q, "insns"), p.Helpers)
	}
	if needs.Has("prog.digest") {
		p.Digest = digestOf(q)
	}
}

func ofAttach(q *request.Request, f *facts.Facts) {
	a := &f.Attach
	if q.Row.Command == abi.RawTPOpen {
		a.Tracepoint = text(q, "name")
		return
	}
	if q.Row.Field("attach_type") != nil {
		a.Type = value(q, "attach_type")
	}
	if field := attachFlags[q.Row.Command]; field != "" {
		a.Flags = flags(q, field, a.Flags)
	}
	if live(q, "target_ifindex") {
		a.Ifindex = number(q, "target_ifindex")
	}
	if live(q, "kprobe_multi.syms") {
		a.Functions = symbols(q, a.Functions)
	}
	if live(q, "uprobe_multi.path") {
		a.File = text(q, "uprobe_multi.path")
		a.PID = signed32(q, "uprobe_multi.pid")
		offsets := data(q, "uprobe_multi.offsets")
		for i := 0; i+8 <= len(offsets); i += 8 {
			a.Offsets = append(a.Offsets, clamp(abi.Uint(offsets, uint32(i), 8)))
		}
	}
	if live(q, "netfilter.pf") {
		a.Protocol = one(protocols, q.Field("netfilter.pf"))
		a.Hook = one(hooks, q.Field("netfilter.hooknum"))
		a.Priority = signed32(q, "netfilter.priority")
	}
}

// attachFlags are the fields of flags that say how to attach.
var attachFlags = map[abi.Command]string{abi.ProgAttach: "attach_flags", abi.ProgDetach: "attach_flags", abi.LinkCreate: "flags", abi.LinkUpdate: "flags"}

// Numbers of include/uapi/linux/netfilter.h that a BPF program may be attached with
// (kernel/bpf/../net/netfilter/nf_bpf_link.c, bpf_nf_check_pf_and_hooks).
var (
	protocols = map[uint64]string{2: "ipv4", 10: "ipv6"}
	hooks     = map[uint64]string{0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}
)

func ofEvent(q *request.Request, f *facts.Facts) {
	e := &f.Event
	e.Type = eventType(q)
	e.Config = clamp(q.Field("config"))
	if live(q, "pid") {
		e.PID = signed32(q, "pid")
	}
	e.CPU = signed32(q, "cpu")
	e.Function, e.File = text(q, "kprobe_func"), text(q, "uprobe_path")
	if abi.Probe(q.Field("probe")) != abi.NoProbe {
		e.Offset = clamp(q.Field("config2"))
	}
}

// eventType names the type of a perf event: the kernel's dynamic numbers by what
// they mean.
func eventType(q *request.Request) string {
	switch abi.Probe(q.Field("probe")) {
	case abi.Kprobe:
		return "kprobe"
	case abi.Uprobe:
		return "uprobe"
	}
	return value(q, "type")
}

// objectFields are the fields that name the object that a command is about.
var objectFields = map[abi.Command]string{
	abi.ObjPin: "bpf_fd", abi.ObjGetInfoByFD: "bpf_fd", abi.LinkUpdate: "link_fd", abi.LinkDetach: "link_fd", abi.MapFreeze: "map_fd",
	abi.ProgGetFDByID: "prog_id", abi.MapGetFDByID: "map_id", abi.BTFGetFDByID: "btf_id", abi.LinkGetFDByID: "link_id",
}

// objectKind is the kind of the object that the call is about, where that is known
// before it: by the fd that was taken, or by the command.
func objectKind(q *request.Request) string {
	field := q.Row.Field(objectFields[q.Row.Command])
	if q.Row.Syscall != abi.SyscallBPF || field == nil {
		return ""
	}
	if field.Class == abi.ID {
		return field.Object.String()
	}
	if file := q.File(int(int32(field.Uint(q.Attr)))); file != nil {
		return file.Kind.String()
	}
	return ""
}

// value names an enum's value.
func value(q *request.Request, field string) string {
	f := q.Row.Field(field)
	return f.Values.Name(f.Uint(q.Attr))
}

func flags(q *request.Request, field string, to []string) []string {
	f := q.Row.Field(field)
	return f.Values.AppendNames(to, f.Uint(q.Attr))
}

func number(q *request.Request, field string) int64 { return clamp(q.Field(field)) }

func signed32(q *request.Request, field string) int64 { return int64(int32(q.Field(field))) }

// clamp makes the largest number of what is larger.
func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// one names a number: one that has no name is shown as it is.
func one(names map[uint64]string, n uint64) string {
	if s, ok := names[n]; ok {
		return s
	}
	return unnamed(n)
}

func name(q *request.Request, field string) string {
	f := q.Row.Field(field)
	return cstring(q.Attr[f.Offset : f.Offset+f.Size])
}

func live(q *request.Request, field string) bool {
	f := q.Row.Field(field)
	return f != nil && f.Live(q.Attr)
}

// data is the copy of what a field points to; nil: there is none.
func data(q *request.Request, field string) []byte {
	if b := q.Buffer(field); b != nil && !b.Fault {
		return b.Data
	}
	return nil
}

// text is the string that a field points to, "" where there is none.
func text(q *request.Request, field string) string { return cstring(data(q, field)) }

// symbols are the strings that kprobe_multi.syms points to.
func symbols(q *request.Request, to []string) []string {
	for i := range q.Buffers {
		b := &q.Buffers[i]
		if b.Parent != request.NoParent && q.Buffers[b.Parent].Field.Name == "kprobe_multi.syms" && !b.Fault {
			to = append(to, cstring(b.Data))
		}
	}
	return to
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
