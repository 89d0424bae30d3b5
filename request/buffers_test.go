package request

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Every In buffer of every intercepted command: at a page's end, one byte too
// short, NULL, nowhere, of length 0, of the largest length that can be given.
func TestBuffers(t *testing.T) {
	for i := range abi.Table() {
		row := &abi.Table()[i]
		if row.Native {
			continue
		}
		for j := range row.Fields {
			f := &row.Fields[j]
			rule := f.Buffer
			if f.Class != abi.Pointer || rule.Dir != abi.In || rule.Elem == abi.ElemString || rule.Elem == abi.ElemStrings {
				continue
			}
			t.Run(row.Kernel+"."+f.Name, func(t *testing.T) {
				e := newEnv(t)
				with := func(addr, count uint64) *Buffer {
					t.Helper()
					v := live(row, f)
					v[f.Name], v[rule.Len.Count] = addr, count
					if rule.Len.Rec != "" {
						v[rule.Len.Rec] = 8
					}
					if row.Field("insn_cnt") != nil && rule.Len.Count != "insn_cnt" {
						v["insn_cnt"] = 1000
					}
					u := e.must(row.Command, v).Buffer(f.Name)
					e.checkReads()
					return u
				}
				size := int(rule.Len.Elem)
				if rule.Len.Rec != "" {
					size = 8
				}
				const count = 5
				data := bytes.Repeat([]byte{0x11}, count*size) // no instruction that means anything
				if u := with(e.AtEnd(data), count); u.Fault || !bytes.HasPrefix(u.Data, data) || u.Len != uint64(len(data)) {
					t.Errorf("at a page's end: %+v", u)
				}
				if u := with(e.AtEnd(data[1:]), count); !u.Fault {
					t.Errorf("one byte too short: %+v", u)
				}
				if u := with(0, count); u != nil {
					t.Errorf("NULL: %+v", u)
				}
				if u := with(8, count); !u.Fault {
					t.Errorf("nowhere: %+v", u)
				}
				if u := with(^uint64(0)-3, count); !u.Fault {
					t.Errorf("across the end of all addresses: %+v", u)
				}
				if u := with(8, 0); u.Fault || len(u.Data) != 0 {
					t.Errorf("of length 0: %+v", u)
				}
				u := with(e.AtEnd(data), 0xffffffff)
				if want := uint64(0xffffffff) * uint64(size); u.Len != want {
					t.Errorf("of the largest length: got %d, wanted %d bytes", u.Len, want)
				}
				if !u.Fault || uint64(len(u.Data)) > rule.Len.Max {
					t.Errorf("of the largest length: fault %v, copied %d bytes, at most %d", u.Fault, len(u.Data), rule.Len.Max)
				}
			})
		}
	}
}

// live returns values under which the kernel looks at the field.
func live(row *abi.Row, f *abi.Field) map[string]uint64 {
	v := map[string]uint64{}
	if len(f.When) > 0 {
		for _, test := range f.When[0] {
			if test.Op != abi.OpIn && test.Op != abi.OpHas {
				panic("no value makes " + f.Name + " live")
			}
			v[test.Field] = test.Values[0]
		}
	}
	return v
}

// A count times a size of more than 2³² isn't taken for less.
func TestCountsDontOverflow(t *testing.T) {
	e := newEnv(t)
	data := e.AtEnd(make([]byte, 64))
	q := e.must(abi.ProgLoad, map[string]uint64{
		"func_info": data, "func_info_cnt": 0xffffffff, "func_info_rec_size": 0xffffffff,
		"line_info": data, "line_info_cnt": 1 << 16, "line_info_rec_size": 1 << 16,
		"core_relos": data, "core_relo_cnt": 1 << 31, "core_relo_rec_size": 2,
		"insns": data, "insn_cnt": 1 << 29,
	})
	for name, want := range map[string]uint64{"func_info": 0xffffffff * 0xffffffff, "line_info": 1 << 32, "core_relos": 1 << 32, "insns": 1 << 32} {
		if u := q.Buffer(name); u.Len != want || !u.Fault || u.Data != nil {
			t.Errorf("%s: got %d bytes, fault %v, %d copied; wanted %d bytes, a fault, none", name, u.Len, u.Fault, len(u.Data), want)
		}
	}
}

// func_info and line_info are copied no further than the kernel reads them.
func TestInfoClamps(t *testing.T) {
	e := newEnv(t)
	data := bytes.Repeat([]byte{3}, 8*(abi.MaxSubprogs+2))
	q := e.must(abi.ProgLoad, map[string]uint64{
		"func_info": e.AtEnd(data), "func_info_cnt": abi.MaxSubprogs + 2, "func_info_rec_size": 8,
		"line_info": e.AtEnd(data), "line_info_cnt": 200, "line_info_rec_size": 8, "insn_cnt": 10,
	})
	if got := len(q.Buffer("func_info").Data); got != 8*(abi.MaxSubprogs+1) {
		t.Errorf("func_info: copied %d bytes", got)
	}
	if got := len(q.Buffer("line_info").Data); got != 8*11 {
		t.Errorf("line_info: copied %d bytes", got)
	}
	if q.Buffer("line_info").Len != 1600 {
		t.Errorf("line_info: Len is %d", q.Buffer("line_info").Len)
	}
}

// Strings: what strncpy_from_user of the kernel's own buffer size makes of them.
func TestStrings(t *testing.T) {
	for _, c := range []struct {
		command abi.Command
		field   string
		max     int
	}{{abi.ProgLoad, "license", 127}, {abi.RawTPOpen, "name", 127}, {abi.ObjPin, "pathname", 4096}, {abi.ObjGet, "pathname", 4096}, {abi.LinkCreate, "uprobe_multi.path", 4096}} {
		t.Run(abi.RowOf(c.command).Kernel, func(t *testing.T) {
			e := newEnv(t)
			with := func(addr uint64) *Buffer {
				t.Helper()
				row := abi.RowOf(c.command)
				v := live(row, row.Field(c.field))
				v[c.field] = addr
				u := e.must(c.command, v).Buffer(c.field)
				e.checkReads()
				return u
			}
			text := strings.Repeat("x", c.max-1)
			for _, s := range []string{"", "GPL", text[1:], text} {
				if u := with(e.str(s)); u.Fault || string(u.Data) != s+"\x00" {
					t.Errorf("%d characters at a page's end: fault %v, %d bytes", len(s), u.Fault, len(u.Data))
				}
			}
			// As long as the kernel reads, without a NUL: no fault, though nothing
			// comes behind.
			if u := with(e.AtEnd([]byte(text + "y"))); u.Fault || string(u.Data) != text+"y" {
				t.Errorf("%d characters and no NUL: fault %v, %d bytes", c.max, u.Fault, len(u.Data))
			}
			if u := with(e.AtEnd([]byte(text))); !u.Fault {
				t.Errorf("%d characters, and the memory ends: no fault", len(text))
			}
			long := e.AtEnd(bytes.Repeat([]byte("z"), 3*abi.PageSize))
			if u := with(long + 5); u.Fault || len(u.Data) != c.max {
				t.Errorf("no NUL far and wide: fault %v, %d bytes", u.Fault, len(u.Data))
			}
			if u := with(1); !u.Fault {
				t.Error("nowhere: no fault")
			}
			if u := with(0); u != nil {
				t.Errorf("NULL: %+v", u)
			}
		})
	}
}

func TestSymbols(t *testing.T) {
	kprobe := abi.AttachTypes.Names
	at := uint64(slices.Index(kprobe, "BPF_TRACE_KPROBE_MULTI"))
	e := newEnv(t)
	with := func(syms ...uint64) (*Request, []Buffer) {
		t.Helper()
		q := e.must(abi.LinkCreate, map[string]uint64{"attach_type": at, "kprobe_multi.syms": e.longs(syms...), "kprobe_multi.cnt": uint64(len(syms))})
		e.checkReads()
		var out []Buffer
		for _, u := range q.Buffers {
			if u.Field == &symbolField {
				out = append(out, u)
			}
		}
		return q, out
	}
	a, b := e.str("vfs_read"), e.str("vfs_write")
	q, syms := with(a, b, a)
	if len(syms) != 3 || string(syms[0].Data) != "vfs_read\x00" || string(syms[1].Data) != "vfs_write\x00" || string(syms[2].Data) != "vfs_read\x00" {
		t.Errorf("three symbols: %+v", syms)
	}
	for i, s := range syms {
		if q.Buffers[s.Parent].Field.Name != "kprobe_multi.syms" || s.Offset != uint32(8*i) {
			t.Errorf("symbol %d: at %d of %s", i, s.Offset, q.Buffers[s.Parent].Field.Name)
		}
	}
	// The kernel stops at the first that it can't read, or that is too long.
	for what, bad := range map[string]uint64{
		"NULL": 0, "nowhere": 8, "unterminated": e.AtEnd([]byte("vfs")), "too long": e.AtEnd(bytes.Repeat([]byte("s"), abi.MaxSymbol)),
	} {
		_, syms := with(a, bad, b)
		if len(syms) != 2 || syms[1].Fault == (what == "too long") {
			t.Errorf("%s: got %d symbols, the last %+v", what, len(syms), syms[len(syms)-1])
		}
	}
	_, syms = with(e.str(strings.Repeat("s", abi.MaxSymbol-1)), b)
	if len(syms) != 2 || len(syms[0].Data) != abi.MaxSymbol {
		t.Errorf("as long as the kernel takes: %d symbols", len(syms))
	}
	// More than the kernel takes: it says E2BIG before it looks.
	q = e.must(abi.LinkCreate, map[string]uint64{"attach_type": at, "kprobe_multi.syms": e.longs(a), "kprobe_multi.cnt": abi.MaxMulti + 1})
	if u := q.Buffer("kprobe_multi.syms"); !u.Fault || u.Data != nil {
		t.Errorf("too many: %+v", u)
	}

	// What one request with many symbols needed isn't kept.
	many := make([]uint64, 8*keep)
	for i := range many {
		many[i] = a
	}
	if _, syms := with(many...); len(syms) != len(many) {
		t.Errorf("many: got %d symbols, wanted %d", len(syms), len(many))
	}
	e.must(abi.EnableStats, nil)
	if n := cap(e.reader.req.Buffers); n > keep {
		t.Errorf("room for %d buffers is kept", n)
	}
}

func TestIterInfo(t *testing.T) {
	iter := uint64(slices.Index(abi.AttachTypes.Names, "BPF_TRACE_ITER"))
	e := newEnv(t)
	e.Files[7], e.Files[9] = abi.Map, abi.Pidfd
	for size := uint32(0); size <= 32; size++ {
		info := make([]byte, 32)
		put(t, &abi.IterLinkInfo, info, map[string]uint64{"map.map_fd": 7, "task.pid_fd": 9})
		q := e.must(abi.LinkCreate, map[string]uint64{"attach_type": iter, "prog_fd": 5, "iter_info": e.AtEnd(info[:size]), "iter_info_len": uint64(size)})
		e.checkReads()
		u := q.Buffer("iter_info")
		// Zero behind what was given: a number that is given in part is one, too.
		copied := slices.Concat(info[:size], make([]byte, 32))[:max(size, abi.IterLinkInfo.Size)]
		if u.Fault || size > 0 && !bytes.Equal(u.Data, copied) {
			t.Errorf("%d bytes: %+v", size, u)
		}
		var want []int
		if size >= 1 {
			want = append(want, 7)
		}
		if size >= 9 {
			want = append(want, 9)
		}
		if got := slices.DeleteFunc(slices.Clone(e.Taken), func(n int) bool { return n == 0 || n == 5 }); !slices.Equal(got, want) {
			t.Errorf("%d bytes: took %v, wanted %v", size, got, want)
		}
	}
	q := e.must(abi.LinkCreate, map[string]uint64{"attach_type": iter, "iter_info": e.AtEnd(make([]byte, 64)), "iter_info_len": abi.PageSize + 1})
	if u := q.Buffer("iter_info"); !u.Fault || u.Data != nil {
		t.Errorf("more than a page: %+v", u)
	}
	// With another attach type the same bytes are no pointer.
	xdp := uint64(slices.Index(abi.AttachTypes.Names, "BPF_XDP"))
	q = e.must(abi.LinkCreate, map[string]uint64{"attach_type": xdp, "iter_info": e.AtEnd([]byte{1}), "iter_info_len": 1})
	if len(q.Buffers) != 0 {
		t.Errorf("of XDP: %+v", q.Buffers)
	}
}

// A log buffer, however large, isn't read, and costs nothing yet.
func TestOutBuffers(t *testing.T) {
	e := newEnv(t)
	q := e.must(abi.ProgLoad, map[string]uint64{"log_buf": 8, "log_size": 0xffffffff, "log_level": 1})
	if u := q.Buffer("log_buf"); u.Len != 0xffffffff || u.Data != nil || u.Fault {
		t.Errorf("log_buf: %+v", u)
	}
	q = e.must(abi.ProgQuery, map[string]uint64{"prog_ids": 8, "count": 3, "link_ids": 8})
	if u := q.Buffer("prog_ids"); u.Len != 12 || u.Data != nil || len(q.Buffers) != 2 {
		t.Errorf("prog_ids: %+v", q.Buffers)
	}
}

// The memory of a request is bounded by what it reserves.
func TestPlan(t *testing.T) {
	e := newEnv(t)
	for i := range abi.Table() {
		row := &abi.Table()[i]
		if row.Native {
			continue
		}
		for at := range len(abi.AttachTypes.Names) {
			b := make([]byte, abi.AttrSize)
			for j := range row.Fields {
				f := &row.Fields[j]
				if f.Class != abi.FD {
					f.Put(b, 0x10000)
				}
			}
			if f := row.Field("attach_type"); f != nil {
				f.Put(b, uint64(at))
			}
			// All that it may point to is there: 256 MiB would be read.
			need := plan(&row.Layout, b)
			var most uint64
			for j := range row.Fields {
				f := &row.Fields[j]
				if f.Class == abi.Pointer && f.Live(b) {
					most += f.Buffer.Len.Max
					if f.Buffer.Elem == abi.ElemStrings {
						most += maxStrings + abi.MaxMulti*perString
					}
				}
			}
			if need < 0 || uint64(need) > most {
				t.Errorf("%s, attach type %d: plans %d bytes of %d", row.Kernel, at, need, most)
			}
			e.fresh()
			q, errno := e.reader.Read(&e.Target, Call{Command: row.Command, Addr: e.AtEnd(b[:row.LastEnd]), Size: row.LastEnd})
			if errno != 0 {
				continue
			}
			var got uint64
			for _, u := range q.Buffers {
				got += uint64(len(u.Data))
			}
			if got > uint64(need)+64<<10 {
				t.Errorf("%s, attach type %d: copied %d bytes, planned %d", row.Kernel, at, got, need)
			}
		}
	}
}

var infoKinds = []abi.Object{abi.Prog, abi.Map, abi.BTF, abi.Link, abi.Token}

func TestInfo(t *testing.T) {
	for _, kind := range infoKinds {
		l := abi.InfoLayout(kind)
		t.Run(l.Name, func(t *testing.T) {
			e := newEnv(t)
			e.Files[6] = kind
			for size := 0; size <= int(l.Size)+16; size++ {
				addr := e.AtEnd(make([]byte, size))
				q := e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info": addr, "info_len": uint64(size)})
				e.checkReads()
				u := q.Buffer("info")
				if q.Info != l || u.Fault || u.Len != uint64(size) || len(u.Data) != wholePointers(l, q.Selector, size) || len(q.Selector) != int(l.Size) || !slices.Equal(e.Taken, []int{6}) {
					t.Errorf("%d bytes: %s, %+v", size, q.Info.Name, u)
				}
				if bytes.ContainsFunc(u.Data[size:], func(r rune) bool { return r != 0 }) {
					t.Errorf("%d bytes: %x behind them", size, u.Data[size:])
				}
				q = e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info": addr, "info_len": uint64(size + 1)})
				if u := q.Buffer("info"); !u.Fault {
					t.Errorf("one behind the end at %d: no fault", size)
				}
			}
			b := make([]byte, l.Size+9)
			b[l.Size+8] = 1
			if _, errno := e.call(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info": e.AtEnd(b), "info_len": uint64(len(b))}); errno != sys.E2BIG {
				t.Errorf("something in the tail: got %v, wanted E2BIG", errno)
			}
			// More than a page: the kernel says E2BIG itself.
			q := e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info": e.AtEnd(make([]byte, abi.PageSize+1)), "info_len": abi.PageSize + 1})
			if u := q.Buffer("info"); u.Data != nil {
				t.Errorf("more than a page: copied %d bytes", len(u.Data))
			}
			if q := e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info_len": 8}); q.Buffer("info") != nil {
				t.Error("NULL: a buffer")
			}
		})
	}

	e := newEnv(t)
	e.Files[3] = 0
	for what, fd := range map[string]uint64{"another kind of file": 3, "no file": 4, "no fd": 0xffffffff} {
		q := e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": fd, "info": e.AtEnd(make([]byte, 16)), "info_len": 16})
		if q.Info != nil || q.Buffer("info").Data != nil {
			t.Errorf("%s: %v", what, q.Info)
		}
	}
}

// Which of a link's pointers are live, the link decides, not what the
// application wrote there.
func TestInfoOfLinks(t *testing.T) {
	e := newEnv(t)
	e.Files[6] = abi.Link
	type arm struct {
		link, event string
		pointers    []string
	}
	for _, c := range []arm{
		{link: "RAW_TRACEPOINT", pointers: []string{"raw_tracepoint.tp_name"}},
		{link: "ITER", pointers: []string{"iter.target_name"}},
		{link: "XDP"},
		{link: "CGROUP"},
		{link: "KPROBE_MULTI", pointers: []string{"kprobe_multi.addrs", "kprobe_multi.cookies"}},
		{link: "UPROBE_MULTI", pointers: []string{"uprobe_multi.path", "uprobe_multi.offsets", "uprobe_multi.ref_ctr_offsets", "uprobe_multi.cookies"}},
		{link: "PERF_EVENT", event: "UPROBE", pointers: []string{"perf_event.uprobe.file_name"}},
		{link: "PERF_EVENT", event: "KRETPROBE", pointers: []string{"perf_event.kprobe.func_name"}},
		{link: "PERF_EVENT", event: "TRACEPOINT", pointers: []string{"perf_event.tracepoint.tp_name"}},
		{link: "PERF_EVENT", event: "EVENT"},
	} {
		says := make([]byte, abi.LinkInfo.Size)
		values := map[string]uint64{"type": uint64(slices.Index(abi.LinkTypes.Names, "BPF_LINK_TYPE_"+c.link))}
		if c.event != "" {
			values["perf_event.type"] = uint64(slices.Index(abi.PerfEventTypes.Names, "BPF_PERF_EVENT_"+c.event))
		}
		put(t, &abi.LinkInfo, says, values)
		e.Links[6] = says
		b := bytes.Repeat([]byte{0x11}, int(abi.LinkInfo.Size))
		q := e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info": e.AtEnd(b), "info_len": uint64(len(b))})
		var got []string
		for _, u := range q.Buffers {
			if u.Parent != NoParent {
				got = append(got, u.Field.Name)
				if u.Addr != 0x1111111111111111 || u.Data != nil {
					t.Errorf("%v: %+v", c, u)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.pointers) {
			t.Errorf("%s %s: got %v, wanted %v", c.link, c.event, got, c.pointers)
		}
	}
}

// An array's room is what the structure's count says, by the size of a record.
func TestInfoCounts(t *testing.T) {
	e := newEnv(t)
	e.Files[6] = abi.Prog
	b := make([]byte, abi.ProgInfo.Size)
	put(t, &abi.ProgInfo, b, map[string]uint64{
		"map_ids": 0x1000, "nr_map_ids": 0xffffffff,
		"func_info": 0x2000, "nr_func_info": 1 << 31, "func_info_rec_size": 1 << 31,
		"xlated_prog_insns": 0x3000, "xlated_prog_len": 24, "prog_tags": 0,
	})
	q := e.must(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": 6, "info": e.AtEnd(b), "info_len": uint64(len(b))})
	got := map[string]uint64{}
	for _, u := range q.Buffers[1:] {
		got[u.Field.Name] = u.Len
	}
	want := map[string]uint64{"map_ids": 4 * 0xffffffff, "func_info": 1 << 62, "xlated_prog_insns": 24}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, wanted %v", got, want)
	}
}
