package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// A workload sees the programs that it may see, and that there are no others: where the
// kernel lists what is attached, the rest is left out, and the answer is the one that the
// kernel would give if that wasn't there.

// maxTries is how often a list is asked for that grows meanwhile.
const maxTries = 10

// progQuery makes a BPF_PROG_QUERY.
func (p *Performer) progQuery(q *request.Request, r *Result) (int, sys.Errno) {
	row, size := q.Row, Whole(q)
	count := row.Field("count")
	given := count.Uint(r.Attr)
	v, e := sys.BPF(uint32(q.Command), r.Attr, size)
	total := count.Uint(r.Attr)
	if e != 0 && e != sys.ENOSPC || total == 0 {
		return v, e
	}
	all, ok := p.attachedAll(q, r, total)
	if !ok { // nothing that may be hidden is shown
		unwrite(q, r)
		return 0, sys.EPERM
	}
	ids := all["prog_ids"]
	var seen []int
	for i := range len(ids) / 4 {
		if p.Sees(abi.Prog, uint32(abi.Uint(ids, uint32(4*i), 4))) {
			seen = append(seen, i)
		}
	}
	if len(seen) == len(ids)/4 && total == uint64(len(seen)) && (e == 0 || given < total) && p.seesAll(q, r) {
		return v, e
	}
	count.Put(r.Attr, uint64(len(seen)))
	shown := min(uint64(len(seen)), given)
	for i := range q.Buffers {
		out := r.Out[i]
		fill(out, 0xff) // as if never written
		for j := range min(shown, uint64(len(out)/4)) {
			copy(out[4*j:4*j+4], all[q.Buffers[i].Field.Name][4*seen[j]:])
		}
	}
	if shown > 0 && row.Field("prog_ids").Uint(q.Attr) != 0 && given < uint64(len(seen)) {
		return 0, sys.ENOSPC
	}
	return 0, 0
}

// seesAll says whether all programs that the kernel has listed may be seen: more can have
// come since it was asked for all.
func (p *Performer) seesAll(q *request.Request, r *Result) bool {
	for i := range q.Buffers {
		if q.Buffers[i].Field.Name != "prog_ids" {
			continue
		}
		const unwritten = 1<<32 - 1
		for j := uint32(0); int(j)+4 <= len(r.Out[i]); j += 4 {
			if id := uint32(abi.Uint(r.Out[i], j, 4)); id != unwritten && id != 0 && !p.Sees(abi.Prog, id) {
				return false
			}
		}
	}
	return true
}

// attachedAll asks what a BPF_PROG_QUERY asks, with room for all: each of the lists that
// the application wants, by its name, and the programs in any case.
func (p *Performer) attachedAll(q *request.Request, r *Result, total uint64) (map[string][]byte, bool) {
	row := q.Row
	for range maxTries {
		room := total + 16
		c := own(abi.ProgQuery)
		copy(c.attr, r.Attr[:abi.AttrSize])
		lists := map[string][]byte{"prog_ids": make([]byte, 4*room)}
		for i := range q.Buffers {
			lists[q.Buffers[i].Field.Name] = make([]byte, 4*room)
		}
		const effective = 1 // BPF_F_QUERY_EFFECTIVE
		if lsm, _ := abi.AttachTypes.Value("lsm_cgroup"); c.row.Field("attach_type").Uint(c.attr) == lsm && row.Field("query_flags").Uint(q.Attr)&effective == 0 {
			lists["prog_attach_flags"] = make([]byte, 4*room) // without which the kernel lists none
		}
		for name, list := range lists {
			c.point(name, list)
		}
		c.put("count", room)
		c.put("attach_flags", row.Field("attach_flags").Uint(q.Attr))
		_, e := c.do()
		total = row.Field("count").Uint(c.attr)
		if e == 0 && total <= room {
			for name := range lists {
				lists[name] = lists[name][:4*total]
			}
			return lists, true
		}
		if e != sys.ENOSPC {
			return nil, false
		}
	}
	return nil, false
}

// hideQueried does the same for BPF_TASK_FD_QUERY: an event whose program may not be
// seen is one that has none (kernel/trace/bpf_trace.c, bpf_get_perf_event_info).
func (p *Performer) hideQueried(q *request.Request, r *Result) sys.Errno {
	f := q.Row.Field("prog_id")
	if id := uint32(f.Uint(r.Attr)); id == 0 || p.Sees(abi.Prog, id) {
		return 0
	}
	unwrite(q, r)
	return sys.ENOENT
}

// unwrite makes a result one of which the kernel has written nothing.
func unwrite(q *request.Request, r *Result) {
	copy(r.Attr, q.Attr)
	for i := range r.Out {
		r.Out[i] = nil
	}
}

// hideTraced does the same for PERF_EVENT_IOC_QUERY_BPF, which lists the programs of all
// events of a tracepoint: query is struct perf_event_query_bpf with room for ids.
func (p *Performer) hideTraced(fd int, query []byte) sys.Errno {
	row := &abi.PerfQueryBPF
	room := uint64(len(query)-abi.PerfQuerySize) / 4
	all := make([]byte, abi.PerfQuerySize+4*abi.MaxTraceProgs)
	row.Field("ids_len").Put(all, abi.MaxTraceProgs)
	if e := sys.PerfQueryBPF(fd, sys.Addr(all)); e != 0 && e != sys.ENOSPC {
		return e
	}
	ids := query[abi.PerfQuerySize:]
	clear(ids)
	n := uint64(0)
	for i := range min(row.Field("prog_cnt").Uint(all), abi.MaxTraceProgs) {
		id := abi.Uint(all, abi.PerfQuerySize+4*uint32(i), 4)
		if !p.Sees(abi.Prog, uint32(id)) {
			continue
		}
		if n < room {
			abi.Put(ids, uint32(4*n), 4, id)
		}
		n++
	}
	row.Field("prog_cnt").Put(query, n)
	if room > 0 && n > room {
		return sys.ENOSPC
	}
	return 0
}

// hideIDs takes from an information structure the ids of objects that the workload may not
// see. About its own objects it may know all: it has had fds of what they are made of.
func (p *Performer) hideIDs(q *request.Request, r *Result) {
	if q.Info == nil || r.Errno != 0 {
		return
	}
	for i := range q.Buffers {
		b, out := &q.Buffers[i], r.Out[i]
		if b.Parent == request.NoParent && out != nil && !p.ownInfo(q, out) {
			p.hideFields(q, r, out)
		}
	}
}

// ownInfo says whether an information structure is about one of the workload's objects.
func (p *Performer) ownInfo(q *request.Request, info []byte) bool {
	field := "id"
	kind := map[*abi.Layout]abi.Object{&abi.ProgInfo: abi.Prog, &abi.MapInfo: abi.Map, &abi.BTFInfo: abi.BTF, &abi.LinkInfo: abi.Prog}[q.Info]
	switch {
	case kind == 0: // a token's has no ids
		return true
	case q.Info == &abi.LinkInfo:
		field = "prog_id"
	}
	id := uint32(q.Info.Field(field).Uint(info))
	return id == 0 && kind != abi.Prog || id != 0 && p.owns(kind, id)
}

// owns says whether the object was made for the workload.
func (p *Performer) owns(kind abi.Object, id uint32) bool {
	if p.host != nil {
		own, _, err := p.host.Owns(kind, id)
		return own && err == nil
	}
	return p.objects.Owns(kind, id)
}

func (p *Performer) hideFields(q *request.Request, r *Result, info []byte) {
	for i := range q.Info.Fields {
		f := &q.Info.Fields[i]
		if int(f.Offset+f.Size) > len(info) || !f.Live(q.Selector) || f.Name == "id" {
			continue
		}
		id := uint32(f.Uint(info))
		sees := true
		switch {
		case id == 0:
		case f.Name == "tracing.target_obj_id": // of a program, or of a BTF
			sees = p.Sees(abi.Prog, id) || p.Sees(abi.BTF, id)
		case f.Class == abi.ID && f.Object != 0:
			sees = p.Sees(f.Object, id)
		}
		if !sees {
			f.Put(info, 0)
		}
	}
	for i := range q.Buffers {
		b, ids := &q.Buffers[i], r.Out[i]
		if b.Parent == request.NoParent || b.Field.Name != "map_ids" {
			continue
		}
		n := min(int(q.Info.Field("nr_map_ids").Uint(info)), len(ids)/4)
		for j := range uint32(n) {
			if !p.Sees(abi.Map, uint32(abi.Uint(ids, 4*j, 4))) {
				abi.Put(ids, 4*j, 4, 0)
			}
		}
	}
}
