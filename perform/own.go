package perform

import (
	"runtime"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// ownCall is a call of bpf() that no workload has made.
type ownCall struct {
	row  *abi.Row
	attr []byte
	keep [][]byte
}

func own(c abi.Command) *ownCall {
	return &ownCall{row: abi.RowOf(c), attr: make([]byte, sys.AttrRoom)}
}

func (o *ownCall) put(field string, v uint64) { o.row.Field(field).Put(o.attr, v) }

// point makes a pointer field that of b.
func (o *ownCall) point(field string, b []byte) {
	o.put(field, sys.Addr(b))
	o.keep = append(o.keep, b)
}

// name sets a field of characters.
func (o *ownCall) name(field string, b []byte) {
	f := o.row.Field(field)
	copy(o.attr[f.Offset:f.Offset+f.Size], b)
}

func (o *ownCall) do() (int, sys.Errno) {
	v, e := sys.BPF(uint32(o.row.Command), o.attr, o.row.LastEnd)
	runtime.KeepAlive(o.keep)
	return v, e
}

// doWith makes the call with the performer's token, if it has one.
func (o *ownCall) doWith(p *Performer) (int, sys.Errno) {
	if p.token != nil {
		flags := o.row.Field(o.row.TokenFlags)
		flags.Put(o.attr, flags.Uint(o.attr)|abi.FTokenFD)
		o.put(o.row.TokenFD, uint64(*p.token))
	}
	return o.do()
}

// ask has the daemon make the call. EPERM: it won't.
func (o *ownCall) ask(p *Performer, at Place) (*Result, sys.Errno) {
	q := &request.Request{Call: request.Call{Command: o.row.Command, Size: o.row.LastEnd}, Row: o.row, Size: o.row.LastEnd, Attr: o.attr[:abi.AttrSize]}
	r, ok := p.ask(q, at)
	switch {
	case !ok:
		return nil, sys.EPERM
	case r.Errno != 0:
		return nil, r.Errno
	}
	return r, 0
}

// LookupElem reads an element of the map at fd, of len(value) bytes.
func LookupElem(fd int, key, value []byte) sys.Errno {
	return elem(abi.MapLookupElem, fd, key, value, 0)
}

// UpdateElem writes one.
func UpdateElem(fd int, key, value []byte, flags uint64) sys.Errno {
	return elem(abi.MapUpdateElem, fd, key, value, flags)
}

// DeleteElem deletes one.
func DeleteElem(fd int, key []byte) sys.Errno {
	return elem(abi.MapDeleteElem, fd, key, nil, 0)
}

func elem(c abi.Command, fd int, key, value []byte, flags uint64) sys.Errno {
	o := own(c)
	o.put("map_fd", uint64(uint32(fd)))
	o.point("key", key)
	if c != abi.MapDeleteElem {
		o.point("value", value)
		o.put("flags", flags)
	}
	_, e := o.do()
	return e
}

// Freeze makes a map one that no system call changes any more.
func Freeze(fd int) sys.Errno {
	o := own(abi.MapFreeze)
	o.put("map_fd", uint64(uint32(fd)))
	_, e := o.do()
	return e
}
