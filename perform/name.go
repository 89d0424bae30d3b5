package perform

import (
	"bytes"
	"strconv"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// The kernel keeps the path of a uprobe's file as it was given (kernel/trace/
// trace_uprobe.c, create_local_trace_uprobe), and shows it as the event's name. So the
// path by which it is given one of our fds says also what the application called the
// file, in what a lookup doesn't count: after the directory each bit of the name is "//"
// or, for 1, "/.". Nothing is to be remembered for it, whoever asks later.

// maxNamed is the longest name that fits into a path.
const maxNamed = 250

// appendNamed appends the path of our fd that says name.
func appendNamed(out []byte, fd int, name []byte) []byte {
	out = append(out, ownFDs[:len(ownFDs)-1]...)
	if len(name) <= maxNamed {
		for _, c := range name {
			for bit := range 8 {
				if c>>bit&1 != 0 {
					out = append(out, "/."...)
				} else {
					out = append(out, "//"...)
				}
			}
		}
	}
	return strconv.AppendInt(append(out, '/'), int64(fd), 10)
}

// nameIn is what appendNamed's path says; false: nothing.
func nameIn(path []byte) (name []byte, ok bool) {
	rest, ok := bytes.CutPrefix(path, []byte(ownFDs[:len(ownFDs)-1]))
	if !ok {
		return nil, false
	}
	bits := 0
	for ; len(rest) > 2 && rest[0] == '/' && (rest[1] == '/' || rest[1] == '.'); rest = rest[2:] {
		if bits%8 == 0 {
			name = append(name, 0)
		}
		if rest[1] == '.' {
			name[bits/8] |= 1 << (bits % 8)
		}
		bits++
	}
	number, ok := bytes.CutPrefix(rest, []byte("/"))
	_, err := strconv.ParseUint(string(number), 10, 31)
	return name, ok && err == nil && bits > 0 && bits%8 == 0
}

// shownName is the name of an event that a command shows. The kernel is given room for
// the longest, as a path of ours is longer than what it says.
type shownName struct {
	holder          []byte     // what has the two: the attribute, or an info structure
	pointer, length *abi.Field // of the name's buffer
	end             int        // what length counts beside the text itself
	address, room   uint64     // as they were
	out             []byte     // the application's side, nil for none
	text            []byte
}

// roomForName gives the kernel room, where the command shows a name; else it returns nil.
func (p *Performer) roomForName(q *request.Request, r *Result) *shownName {
	if p.host != nil {
		return nil // the daemon makes these calls
	}
	n := &shownName{}
	switch {
	case q.Command == abi.TaskFDQuery:
		n.holder, n.pointer, n.length = r.Attr, q.Row.Field("buf"), q.Row.Field("buf_len")
	case q.Info == &abi.LinkInfo:
		n.pointer, n.length, n.end = q.Info.Field("perf_event.uprobe.file_name"), q.Info.Field("perf_event.uprobe.name_len"), 1
		for i := range q.Buffers {
			if q.Buffers[i].Parent == request.NoParent {
				n.holder = r.Out[i]
			}
		}
	default:
		return nil
	}
	if len(n.holder) < int(n.length.Offset+n.length.Size) || q.Info != nil && !n.length.Live(q.Selector) {
		return nil
	}
	n.address, n.room = n.pointer.Uint(n.holder), n.length.Uint(n.holder)
	if q.Info != nil && (n.address == 0) != (n.room == 0) {
		return nil // EINVAL
	}
	for i := range q.Buffers {
		if q.Buffers[i].Field == n.pointer {
			n.out = r.Out[i]
		}
	}
	if n.address != 0 && n.room != 0 && n.out == nil {
		return nil // EFAULT
	}
	if n.text = p.mem.Zeroed(abi.MaxInfoString); n.text == nil {
		return nil
	}
	n.pointer.Put(n.holder, sys.Addr(n.text))
	n.length.Put(n.holder, uint64(len(n.text)))
	return n
}

// show makes of what the kernel has shown what the application gets.
func (n *shownName) show(r *Result) {
	if n == nil {
		return
	}
	n.pointer.Put(n.holder, n.address)
	if r.Errno != 0 {
		n.length.Put(n.holder, n.room)
		return
	}
	text := n.text[:bytes.IndexByte(n.text, 0)]
	if name, ok := nameIn(text); ok {
		text = name
	}
	n.length.Put(n.holder, uint64(len(text)+n.end))
	if len(n.out) == 0 {
		return
	}
	end := copy(n.out[:len(n.out)-1], text)
	n.out[end] = 0
	if end < len(text) {
		r.Errno = sys.ENOSPC
		if n.end > 0 { // the info itself isn't shown then
			abi.LinkInfo.Field("id").Put(n.holder, 0)
		}
	}
}
