// Package reply gives the workload what the kernel answered: outputs written
// back into its memory, the new fd installed, the value or the error returned.
package reply

import (
	"bytes"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/request"
)

// Memory is the target's memory, to write to. It respects page protection.
type Memory interface {
	Write(addr uint64, p []byte) (int, sys.Errno)
}

// Deliver writes the outputs back and hands the new fd over: everything but the
// answer itself. It returns the value and the error to answer with, and false if
// there is no target any more.
//
// An output that can't be written makes the call fail with EFAULT, as it does
// natively; what was made is undone by the caller, who closes it. The caller
// closes all its copies before it answers: an application that closes its only
// fd of a link right afterwards finds the link gone.
//
// handing is called right before the fd is handed over.
func Deliver(l *notify.Listener, n *notify.Notification, m Memory, q *request.Request, r *perform.Result, handing func()) (value int, e sys.Errno, there bool) {
	if e := Outputs(m, q, r); e != 0 {
		return 0, e, true
	}
	if r.Errno != 0 || r.FD < 0 {
		return r.Value, r.Errno, true
	}
	handing()
	// In two steps, not with SECCOMP_ADDFD_FLAG_SEND: see docs/architecture.md.
	fd, e := l.Install(n, r.FD, r.CloseOnExec)
	return fd, e, e != sys.ENOENT
}

// Outputs writes to the target's memory just the bytes that the kernel wrote to
// our copy, in the kernel's order. EFAULT: the target's memory didn't take them.
func Outputs(m Memory, q *request.Request, r *perform.Result) (e sys.Errno) {
	if r.Attr == nil {
		return 0 // the call wasn't made
	}
	write := func(f *abi.Field) bool {
		err := output(m, q, r, f)
		if err != 0 {
			e = err
		}
		// A log that can't be written is no reason not to say how long it is.
		return err == 0 || f.Class == abi.Pointer && f.Buffer.Wrote == abi.WroteLog
	}
	if order := q.Row.Order; order != nil {
		for _, name := range order {
			if !write(q.Row.Field(name)) {
				break
			}
		}
		return e
	}
	for i := range q.Row.Fields {
		if !write(&q.Row.Fields[i]) {
			break
		}
	}
	return e
}

// Inputs is the memory from which the request was read and to which Outputs may
// write, as it was read: what a call that is begun anew must find there. nil: none.
func Inputs(q *request.Request) []sys.Segment {
	if q.Syscall == abi.SyscallPerfEventOpen {
		size := q.Row.Field("size")
		b := make([]byte, size.Size)
		abi.Put(b, 0, size.Size, uint64(q.Size))
		return []sys.Segment{{Addr: q.Addr + uint64(size.Offset), Data: b}}
	}
	var out []sys.Segment
	for i := range q.Row.Fields {
		if q.Row.Fields[i].Dir == abi.InOut {
			out = append(out, sys.Segment{Addr: q.Addr, Data: q.Attr[:q.Size]})
			break
		}
	}
	for i := range q.Buffers {
		if b := &q.Buffers[i]; b.Field.Buffer.Dir == abi.InOut && b.Parent == request.NoParent && b.Data != nil {
			out = append(out, sys.Segment{Addr: b.Addr, Data: b.Data[:min(len(b.Data), int(q.Info.Size), int(b.Len))]})
		}
	}
	return out
}

func output(m Memory, q *request.Request, r *perform.Result, f *abi.Field) sys.Errno {
	if f.Class == abi.Pointer {
		if f.Buffer.Dir == abi.In || !f.Live(q.Attr) {
			return 0
		}
		for i := range q.Buffers {
			if b := &q.Buffers[i]; b.Parent == request.NoParent && b.Field == f {
				return buffer(m, q, r, i)
			}
		}
		return 0
	}
	if f.Dir == abi.In {
		return 0
	}
	now := r.Attr[f.Offset : f.Offset+f.Size]
	if perform.Untouched(q, r, f) {
		return 0
	}
	e := number(m, q.Addr+uint64(f.Offset), now)
	if q.Syscall == abi.SyscallPerfEventOpen {
		return 0 // perf_copy_attr doesn't look whether it could be written
	}
	return e
}

// number writes a number, which the kernel writes as a whole or not at all
// (put_user): so the byte in another page, if there is one, goes first.
func number(m Memory, addr uint64, p []byte) sys.Errno {
	last := len(p) - 1
	if addr/abi.PageSize != (addr+uint64(last))/abi.PageSize {
		if e := write(m, addr+uint64(last), p[last:]); e != 0 {
			return e
		}
	}
	return write(m, addr, p)
}

// buffer writes one buffer back, after those that it points to.
func buffer(m Memory, q *request.Request, r *perform.Result, i int) sys.Errno {
	b, out := &q.Buffers[i], r.Out[i]
	if out == nil {
		return 0
	}
	if b.Field.Buffer.Wrote != abi.WroteStruct {
		return write(m, b.Addr, out[:wrote(b, out, q, r)])
	}
	complete := infoWritten(q, r, out)
	for j := range q.Buffers {
		child := &q.Buffers[j]
		if child.Parent != i {
			continue
		}
		if !complete {
			// Some fill a buffer and then fail: perform.FillsFirst.
			if e := write(m, child.Addr, r.Out[j][:filled(child, r.Out[j], q)]); e != 0 {
				return e
			}
			continue
		}
		// The kernel clears a pointer that it refuses to follow.
		cleared := abi.Uint(out, child.Offset, 8) == 0
		if !cleared {
			if r.Out[j] != nil {
				if e := write(m, child.Addr, r.Out[j][:wroteInfo(child, r.Out[j], q, out)]); e != 0 {
					return e
				}
			}
			abi.Put(out, child.Offset, 8, child.Addr)
		}
	}
	if !complete {
		return 0
	}
	n := min(len(out), int(q.Row.Field("info_len").Uint(r.Attr)))
	if q.Info == &abi.LinkInfo {
		echo(q, b.Data, out[:n])
	}
	return write(m, b.Addr, out[:n])
}

// echo puts what the application had in a link's info to where no field of that kind of
// link is: the kernel copies the structure in and out.
func echo(q *request.Request, had, out []byte) {
	live := make([]bool, len(out))
	for i := range q.Info.Fields {
		if f := &q.Info.Fields[i]; f.Live(q.Selector) {
			for o := f.Offset; o < f.Offset+f.Size && int(o) < len(live); o++ {
				live[o] = true
			}
		}
	}
	for o := range out {
		if !live[o] && o < len(had) {
			out[o] = had[o]
		}
	}
}

// infoWritten says whether the kernel got as far as copying the structure out,
// which it does even where a name in it was too short (ENOSPC).
func infoWritten(q *request.Request, r *perform.Result, out []byte) bool {
	if r.Errno == 0 {
		return true
	}
	id := q.Info.Field("id")
	return id != nil && id.Uint(out) != 0
}

// wrote is how many bytes of a buffer of the attribute the kernel wrote.
func wrote(b *request.Buffer, out []byte, q *request.Request, r *perform.Result) int {
	switch b.Field.Buffer.Wrote {
	case abi.WroteLog:
		return perform.LogLength(q, r)
	case abi.WroteString:
		return bytes.IndexByte(out, 0) + 1
	case abi.WroteElems:
		return elements(out, int(b.Field.Buffer.Len.Elem))
	case abi.WroteAll:
		if r.Errno == 0 {
			return len(out)
		}
	}
	return 0
}

// wroteInfo is the same for a buffer of an info structure, whose bytes after the
// call are info.
func wroteInfo(b *request.Buffer, out []byte, q *request.Request, info []byte) int {
	l := b.Field.Buffer.Len
	switch b.Field.Buffer.Wrote {
	case abi.WroteString:
		return bytes.IndexByte(out, 0) + 1
	case abi.WroteCount:
		size := uint64(l.Elem)
		if l.Rec != "" {
			size = q.Info.Field(l.Rec).Uint(info)
		}
		return int(min(uint64(len(out)), q.Info.Field(l.Count).Uint(info)*size))
	case abi.WroteAll:
		return len(out)
	}
	return 0
}

// filled is how much of a buffer of an info structure the kernel wrote although
// it says no count. Only what perform.FillsFirst speaks of is filled before the call so
// that it can be seen.
func filled(b *request.Buffer, out []byte, q *request.Request) int {
	if !perform.FillsFirst(q.Info) && b.Field.Buffer.Wrote != abi.WroteString {
		return 0
	}
	switch b.Field.Buffer.Wrote {
	case abi.WroteString:
		return bytes.IndexByte(out, 0) + 1
	case abi.WroteCount:
		return elements(out, int(max(b.Field.Buffer.Len.Elem, 1)))
	}
	return 0
}

// elements is the length of what no longer holds the fill.
func elements(out []byte, size int) int {
	n := 0
	for ; n+size <= len(out); n += size {
		if bytes.Count(out[n:n+size], []byte{0xff}) == size {
			break
		}
	}
	return n
}

func write(m Memory, addr uint64, p []byte) sys.Errno {
	if len(p) == 0 {
		return 0
	}
	if n, e := m.Write(addr, p); e != 0 || n < len(p) {
		return sys.EFAULT
	}
	return 0
}
