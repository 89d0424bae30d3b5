package inspect

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
)

// subject is the field that names the object that a command is about: an fd, or an id.
var subject = map[abi.Command]string{
	abi.ObjPin: "bpf_fd", abi.ObjGetInfoByFD: "bpf_fd",
	abi.ProgGetFDByID: "prog_id", abi.MapGetFDByID: "map_id", abi.BTFGetFDByID: "btf_id", abi.LinkGetFDByID: "link_id",
	abi.LinkUpdate: "link_fd", abi.LinkDetach: "link_fd", abi.IterCreate: "link_fd",
	abi.MapFreeze: "map_fd", abi.ProgBindMap: "prog_fd",
}

var objectFacts = [...]string{"object.kind", "object.id", "object.own"}

// object finds out what is opened, looked at, pinned or changed.
func (i *Inspector) object() {
	q, o := i.q, &i.f.Object
	if q.Command == abi.ObjGet {
		for _, fact := range objectFacts {
			i.unknown(fact, "only to open it tells what is pinned there")
		}
		return
	}
	name, ok := subject[q.Command]
	if !ok {
		return
	}
	f := q.Row.Field(name)
	if f.Class == abi.ID {
		o.Kind, o.ID = f.Object.String(), id32(f.Uint(q.Attr))
		if f.Object == abi.Link {
			// Which program's it is, is known once it is open.
			i.unknown("object.own", "whose a link is, only to open it tells")
		} else {
			i.own(f.Object)
		}
		return
	}
	n := int(int32(f.Uint(q.Attr)))
	file := q.File(n)
	if file == nil || abi.InfoLayout(file.Kind) == nil {
		for _, fact := range objectFacts {
			i.unknown(fact, "the fd is of no object")
		}
		return
	}
	o.Kind = file.Kind.String()
	if file.Kind == abi.Token || i.needs == (facts.Set{}) || !i.needs.Any("object.") {
		return
	}
	l := abi.InfoLayout(file.Kind)
	if file.Kind == abi.Link {
		i.link(n)
		return
	}
	if err := i.ask(n, "id", l); err != nil {
		i.unknown("object.id", err.Error())
		i.unknown("object.own", err.Error())
		return
	}
	o.ID = id32(l.Field("id").Uint(i.info[:]))
	i.own(file.Kind)
}

func (i *Inspector) own(kind abi.Object) {
	if i.wants("object.own") {
		own, err := i.at.Owns(kind, uint32(i.f.Object.ID))
		i.found("object.own", err)
		i.f.Object.Own = own && err == nil
	}
}

// link looks at the link at fd n, which is the workload's if its program is, or of type
// struct_ops its map.
func (i *Inspector) link(n int) {
	l, o := &abi.LinkInfo, &i.f.Object
	if err := i.ask(n, "struct_ops.map_id", l); err != nil {
		i.unknown("object.id", err.Error())
		i.unknown("object.own", err.Error())
		return
	}
	info := i.info[:]
	o.ID = id32(l.Field("id").Uint(info))
	if !i.wants("object.own") {
		return
	}
	kind, id := abi.Prog, l.Field("prog_id").Uint(info)
	if m := l.Field("struct_ops.map_id"); id == 0 && m.Live(info) {
		kind, id = abi.Map, m.Uint(info)
	}
	own, err := i.at.Owns(kind, uint32(id))
	i.found("object.own", err)
	o.Own = own && err == nil && id != 0
}
