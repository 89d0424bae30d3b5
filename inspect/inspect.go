// Package inspect derives the facts of an operation from its request.
package inspect

import (
	"bytes"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/request"
)

// Request returns the facts that the request's own copy shows. The table's Fact
// names say which field is which fact.
func Request(q *request.Request) facts.Facts {
	f := facts.Facts{Command: q.Row.Name}
	for i := range q.Row.Fields {
		field := &q.Row.Fields[i]
		if field.Fact == "" {
			continue
		}
		switch field.Fact {
		case "map.type":
			f.Map.Type = field.Values.Name(field.Uint(q.Attr))
		case "prog.type":
			f.Prog.Type = field.Values.Name(field.Uint(q.Attr))
		case "prog.attach_type":
			f.Prog.AttachType = field.Values.Name(field.Uint(q.Attr))
		case "perf_event.type":
			f.Event.Type = eventType(q, field)
		case "attach.type":
			f.Attach.Type = field.Values.Name(field.Uint(q.Attr))
		case "map.name":
			f.Map.Name = cstring(q.Attr[field.Offset : field.Offset+field.Size])
		case "prog.name":
			f.Prog.Name = cstring(q.Attr[field.Offset : field.Offset+field.Size])
		}
	}
	return f
}

// eventType names the type of a perf event: the kernel's dynamic numbers by what
// they mean.
func eventType(q *request.Request, field *abi.Field) string {
	switch abi.Probe(q.Field("probe")) {
	case abi.Kprobe:
		return "kprobe"
	case abi.Uprobe:
		return "uprobe"
	}
	return field.Values.Name(field.Uint(q.Attr))
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Unknown returns the facts of a call that could not be copied: its command is
// all that is known, and the table may not know even that.
func Unknown(c request.Call) facts.Facts {
	if row := c.Row(); row != nil {
		return facts.Facts{Command: row.Name}
	}
	return facts.Facts{Command: "unknown"}
}
