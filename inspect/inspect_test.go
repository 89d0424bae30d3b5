package inspect_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/inspect"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/request"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// caller makes requests of a made-up target's memory.
type caller struct {
	testing.TB
	brokertest.Target
	mem    *arena.Arena
	reader *request.Reader
}

func newCaller(tb testing.TB) *caller {
	c := &caller{TB: tb, mem: arena.New(arena.NewBudget(256 << 20))}
	c.Files = map[int]abi.Object{}
	c.reader = request.NewReader(c.mem, nil)
	tb.Cleanup(c.mem.Reset)
	return c
}

// request makes a call with the fields that v names: numbers, strings, bytes,
// lists of strings, numbers of 64 bits.
func (c *caller) request(cmd abi.Command, v map[string]any) *request.Request {
	c.Helper()
	row := abi.RowOf(cmd)
	attr := make([]byte, abi.AttrSize)
	put := func(name string, n uint64) {
		f := row.Field(name)
		if f == nil {
			c.Fatalf("%s has no field %q", row.Kernel, name)
		}
		f.Put(attr, n)
	}
	for name, v := range v {
		switch v := v.(type) {
		case int:
			put(name, uint64(v))
		case []byte:
			put(name, c.AtEnd(v))
		case []int64:
			b := make([]byte, 8*len(v))
			for i, n := range v {
				abi.Put(b, uint32(8*i), 8, uint64(n))
			}
			put(name, c.AtEnd(b))
		case []string:
			b := make([]byte, 8*len(v))
			for i, s := range v {
				abi.Put(b, uint32(8*i), 8, c.AtEnd([]byte(s+"\x00")))
			}
			put(name, c.AtEnd(b))
		case string:
			switch f := row.Field(name); f.Class {
			case abi.Name:
				copy(attr[f.Offset:f.Offset+f.Size-1], v)
			case abi.Enum:
				n, ok := f.Values.Value(v)
				if !ok {
					c.Fatalf("%s can't be %q", name, v)
				}
				put(name, n)
			default:
				put(name, c.AtEnd([]byte(v+"\x00")))
			}
		}
	}
	q, e := c.reader.Read(&c.Target, request.Call{Command: cmd, Addr: c.AtEnd(attr), Size: uint32(len(attr))})
	if e != 0 {
		c.Fatalf("%s: %v", row.Kernel, e)
	}
	return q
}

func insn(code, src uint8, imm int32) []byte {
	b := []byte{code, src << 4, 0, 0, 0, 0, 0, 0}
	abi.Put(b, 4, 4, uint64(uint32(imm)))
	return b
}

var (
	exit = insn(0x95, 0, 0)
	// calls helpers 1 and 6 from main, and 1, 113 and one that no kernel has from a
	// function.
	calls = slices.Concat(insn(0x85, 0, 6), insn(0x85, 1, 2), insn(0x85, 0, 1), exit, insn(0x85, 0, 113), insn(0x85, 0, 1), insn(0x85, 0, 99999), exit)
)

// have lists the facts that are there, a line each, sorted as facts.Table is.
func have(f *facts.Facts) string {
	var b strings.Builder
	for i := range facts.Table {
		v := reflect.ValueOf(facts.Table[i].At(f)).Elem()
		if v.Kind() == reflect.Slice && v.Len() > 0 || v.Kind() != reflect.Slice && !v.IsZero() {
			fmt.Fprintf(&b, "%s %v\n", facts.Table[i].Name, v.Interface())
		}
	}
	return b.String()
}

func TestFacts(t *testing.T) {
	for _, test := range []struct {
		command abi.Command
		fields  map[string]any
		want    string
	}{
		{abi.MapCreate, map[string]any{"map_type": "hash", "key_size": 4, "value_size": 12, "max_entries": 100, "map_flags": 1 | 1<<3, "map_name": "counts"},
			"command map_create\nmap.type hash\nmap.key_size 4\nmap.value_size 12\nmap.max_entries 100\nmap.flags [BPF_F_NO_PREALLOC BPF_F_RDONLY]\nmap.name counts\nmap.bytes 9248\n"},
		{abi.MapCreate, map[string]any{"map_type": 99, "value_size": 1 << 31, "max_entries": 1 << 31},
			"command map_create\nmap.type 99 /* bpf_map_type? */\nmap.value_size 2147483648\nmap.max_entries 2147483648\nmap.bytes 4611686018427387904\n"},
		{abi.MapCreate, map[string]any{"map_type": "ringbuf", "max_entries": 8192, "map_flags": abi.FTokenFD},
			"command map_create\nmap.type ringbuf\nmap.max_entries 8192\nmap.flags [BPF_F_TOKEN_FD]\nmap.bytes 20480\ntoken true\n"},
		{abi.ProgLoad, map[string]any{"prog_type": "xdp", "expected_attach_type": "xdp", "insns": calls, "insn_cnt": len(calls) / 8, "license": "GPL", "prog_name": "drop", "prog_flags": 1 << 4},
			"command prog_load\nprog.type xdp\nprog.attach_type xdp\nprog.name drop\nprog.license GPL\nprog.insns 8\nprog.flags [BPF_F_SLEEPABLE]\nprog.sleepable true\n" +
				"prog.helpers [99999 /* bpf_func_id? */ bpf_map_lookup_elem bpf_probe_read_kernel bpf_trace_printk]\nprog.digest DIGEST\n"},
		{abi.LinkCreate, map[string]any{"attach_type": "xdp", "target_ifindex": 3, "flags": 1 << 3}, "command link_create\nattach.type xdp\nattach.flags [BPF_F_BEFORE]\nattach.ifindex 3\n"},
		{abi.LinkCreate, map[string]any{"attach_type": "cgroup_inet_ingress", "target_fd": 3}, "command link_create\nattach.type cgroup_inet_ingress\n"},
		{abi.LinkCreate, map[string]any{"attach_type": "netfilter", "netfilter.pf": 2, "netfilter.hooknum": 3, "netfilter.priority": 1<<32 - 100},
			"command link_create\nattach.type netfilter\nattach.protocol ipv4\nattach.hook output\nattach.priority -100\n"},
		{abi.LinkCreate, map[string]any{"attach_type": "trace_kprobe_multi", "kprobe_multi.cnt": 2, "kprobe_multi.syms": []string{"vfs_read", "vfs_write"}},
			"command link_create\nattach.type trace_kprobe_multi\nattach.functions [vfs_read vfs_write]\n"},
		{abi.LinkCreate, map[string]any{"attach_type": "trace_uprobe_multi", "uprobe_multi.cnt": 2, "uprobe_multi.path": "/bin/true", "uprobe_multi.offsets": []int64{16, 32}, "uprobe_multi.pid": 77},
			"command link_create\nattach.type trace_uprobe_multi\nattach.file /bin/true\nattach.offsets [16 32]\nattach.pid 77\n"},
		{abi.RawTPOpen, map[string]any{"name": "sched_switch"}, "command raw_tracepoint_open\nattach.tracepoint sched_switch\n"},
		{abi.ObjGet, map[string]any{"pathname": "/sys/fs/bpf/m"}, "command obj_get\npin.path /sys/fs/bpf/m\n"},
		{abi.ObjPin, map[string]any{"pathname": "/sys/fs/bpf/m", "bpf_fd": 5}, "command obj_pin\nobject.kind map\npin.path /sys/fs/bpf/m\n"},
		{abi.LinkDetach, map[string]any{"link_fd": 6}, "command link_detach\nobject.kind link\n"},
		{abi.ProgGetFDByID, map[string]any{"prog_id": 6}, "command prog_get_fd_by_id\nobject.kind prog\n"},
	} {
		c := newCaller(t)
		c.Files = map[int]abi.Object{5: abi.Map, 6: abi.Link}
		// What was in it before is gone.
		f := facts.Facts{Command: "x", Map: facts.Map{Name: "x", Flags: []string{"x"}}, Prog: facts.Prog{Helpers: []string{"x"}}, Attach: facts.Attach{Functions: []string{"x"}, Offsets: []int64{1}}}
		inspect.Request(c.request(test.command, test.fields), facts.All(), &f)
		if d := f.Prog.Digest; d != "" {
			if len(d) != 64 {
				t.Errorf("digest: %q", d)
			}
			f.Prog.Digest = "DIGEST"
		}
		if got := have(&f); got != test.want {
			t.Errorf("%v: got\n%s, wanted\n%s", test.fields, got, test.want)
		}
	}
}

// A fact that a policy needs and that nobody found out isn't taken for nothing: for the
// empty list, of which anything is true.
func TestMissing(t *testing.T) {
	var needs facts.Set
	for _, name := range []string{"prog.kfuncs", "prog.helpers", "attach.cgroup"} {
		needs.Add(name)
	}
	q := newCaller(t).request(abi.ProgLoad, map[string]any{"prog_type": "xdp", "insns": calls, "insn_cnt": len(calls) / 8, "license": "GPL"})
	var f facts.Facts
	inspect.Request(q, needs, &f)
	inspect.Missing(needs, &f)
	if len(f.Unknown) != 1 || f.Unknown.Why("prog.kfuncs") == "" {
		t.Errorf("unknown: got %v, wanted prog.kfuncs", f.Unknown)
	}
}

// Nobody pays for what nobody asks for.
func TestNeeds(t *testing.T) {
	c := newCaller(t)
	q := c.request(abi.ProgLoad, map[string]any{"prog_type": "xdp", "insns": calls, "insn_cnt": len(calls) / 8, "license": "GPL"})
	var f facts.Facts
	inspect.Request(q, facts.Set{}, &f)
	if len(f.Prog.Helpers) != 0 || f.Prog.Digest != "" || f.Prog.Type != "xdp" {
		t.Errorf("got %+v", f.Prog)
	}
	q = c.request(abi.MapCreate, map[string]any{"map_type": "hash", "key_size": 4, "value_size": 8, "max_entries": 1, "map_flags": 1})
	if n := testing.AllocsPerRun(100, func() { inspect.Request(q, facts.Set{}, &f) }); n != 0 {
		t.Errorf("facts of a map take %v allocations", n)
	}
}

// TestTable: what the table of the ABI calls a fact is one.
func TestTable(t *testing.T) {
	for _, row := range abi.Rows() {
		for i := range row.Fields {
			name := row.Fields[i].Fact
			if name == "" {
				continue
			}
			f := facts.Find(name)
			if f == nil || !f.Has(row.Name) {
				t.Errorf("%s.%s: no fact %q of %s in facts.Table", row.Name, row.Fields[i].Name, name, row.Name)
			}
		}
	}
	for i := range facts.Table {
		if at := facts.Table[i].At(new(facts.Facts)); reflect.TypeOf(at).Kind() != reflect.Pointer {
			t.Errorf("%s: At returns a %T", facts.Table[i].Name, at)
		}
		for _, c := range facts.Table[i].On {
			if !slices.ContainsFunc(abi.Rows(), func(r *abi.Row) bool { return r.Name == c }) {
				t.Errorf("%s is of %q, which is no command", facts.Table[i].Name, c)
			}
		}
	}
}

func BenchmarkMapCreate(b *testing.B) {
	q := newCaller(b).request(abi.MapCreate, map[string]any{"map_type": "hash", "key_size": 4, "value_size": 8, "max_entries": 1})
	var f facts.Facts
	b.ReportAllocs()
	for b.Loop() {
		inspect.Request(q, facts.Set{}, &f)
	}
}

func BenchmarkProgLoad(b *testing.B) {
	insns := slices.Repeat(calls, 250)
	q := newCaller(b).request(abi.ProgLoad, map[string]any{"prog_type": "xdp", "insns": insns, "insn_cnt": len(insns) / 8, "license": "GPL"})
	for _, needs := range []struct {
		name string
		set  facts.Set
	}{{"nothing", facts.Set{}}, {"all", facts.All()}} {
		b.Run(needs.name, func(b *testing.B) {
			var f facts.Facts
			b.ReportAllocs()
			for b.Loop() {
				inspect.Request(q, needs.set, &f)
			}
		})
	}
}
