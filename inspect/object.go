package inspect

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// subject is the field that names the object that a command is about: an fd, or an id.
var subject = map[abi.Command]string{
	abi.ObjPin: "bpf_fd", abi.ObjGetInfoByFD: "bpf_fd",
	abi.ProgGetFDByID: "prog_id", abi.MapGetFDByID: "map_id", abi.BTFGetFDByID: "btf_id", abi.LinkGetFDByID: "link_id",
	abi.LinkUpdate: "link_fd", abi.LinkDetach: "link_fd", abi.IterCreate: "link_fd",
	abi.MapFreeze: "map_fd", abi.ProgBindMap: "prog_fd",
}

var objectFacts = [...]string{"object.kind", "object.id", "object.own", "object.shared"}

// object finds out what is opened, looked at, pinned or changed.
func (i *Inspector) object() {
	q, o := i.q, &i.f.Object
	if q.Command == abi.ObjGet {
		i.pinned()
		return
	}
	name, ok := subject[q.Command]
	if !ok {
		return
	}
	f := q.Row.Field(name)
	if f.Class == abi.ID {
		o.Kind, o.ID = f.Object.String(), id32(f.Uint(q.Attr))
		i.own(f.Object)
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
	i.open(file.Kind, n)
}

// pinned finds out what BPF_OBJ_GET opens.
func (i *Inspector) pinned() {
	if !i.needs.Any("object.") {
		return
	}
	q := i.q
	unknown := func(why string) {
		for _, fact := range objectFacts {
			i.unknown(fact, why)
		}
	}
	b := q.Buffer("pathname")
	if b == nil || b.Fault || len(b.Data) < 2 || b.Data[len(b.Data)-1] != 0 {
		unknown("there is no path that can be read")
		return
	}
	base := sys.AtCWD
	if f := q.Row.Field("path_fd"); f.Live(q.Attr) {
		base = int(int32(f.Uint(q.Attr)))
	}
	kind, n, e := i.at.Pinned(base, b.Data[:len(b.Data)-1], uint32(q.Field("file_flags")))
	if e != 0 {
		i.Errno = e
		unknown(fmt.Sprintf("nothing can be opened there: %v", e))
		return
	}
	i.open(kind, n)
}

// open finds out about the object at fd n.
func (i *Inspector) open(kind abi.Object, n int) {
	o := &i.f.Object
	o.Kind = kind.String()
	if kind == abi.Token || i.needs == (facts.Set{}) || !i.needs.Any("object.") {
		return
	}
	l := abi.InfoLayout(kind)
	if kind == abi.Link {
		i.link(n)
		return
	}
	if err := i.ask(n, "id", l); err != nil {
		for _, fact := range objectFacts[1:] {
			i.unknown(fact, err.Error())
		}
		return
	}
	o.ID = id32(l.Field("id").Uint(i.info[:]))
	i.own(kind)
}

func (i *Inspector) own(kind abi.Object) { i.whose(kind, uint32(i.f.Object.ID)) }

// whose asks whose an object is: that which the command is about is the same's.
func (i *Inspector) whose(kind abi.Object, id uint32) {
	if !i.wants("object.own") && !i.wants("object.shared") {
		return
	}
	own, shared, err := i.at.Owns(kind, id)
	i.found("object.own", err)
	i.found("object.shared", err)
	i.f.Object.Own, i.f.Object.Shared = own && err == nil, shared && err == nil
}

// link looks at the link at fd n, which is the workload's if its program is, or of type
// struct_ops its map. (The worker mostly knows of those whose they are; of links it must ask
// the daemon.)
func (i *Inspector) link(n int) {
	l, o := &abi.LinkInfo, &i.f.Object
	if err := i.ask(n, "struct_ops.map_id", l); err != nil {
		for _, fact := range objectFacts[1:] {
			i.unknown(fact, err.Error())
		}
		return
	}
	info := i.info[:]
	o.ID = id32(l.Field("id").Uint(info))
	kind, id := abi.Prog, l.Field("prog_id").Uint(info)
	if m := l.Field("struct_ops.map_id"); id == 0 && m.Live(info) {
		kind, id = abi.Map, m.Uint(info)
	}
	if id != 0 { // else it was detached, and who did that can't be told
		if i.whose(kind, uint32(id)); o.Own {
			return
		}
	}
	i.own(abi.Link)
}
