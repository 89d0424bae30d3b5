package generate

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
)

// What no two processes share, and so isn't compared as it is.

// How says what is compared in a field's place.
type How uint8

const (
	Whether How = iota + 1 // whether it was written
	AsID                   // which object of the process's it is the id of
	AsPID                  // whether it is the process's own id
	AsInsns                // instructions, but for the ids of maps in them
	AsText                 // text, but for addresses and times
)

// masks are the fields that are compared otherwise, by layout and field. Ids of objects
// are told by their class.
var masks = []struct {
	layout, field string
	how           How
	why           string
}{
	{"bpf_prog_info", "load_time", Whether, "a time"},
	{"bpf_prog_info", "run_time_ns", Whether, "a time; and who else runs is nobody's"},
	{"bpf_prog_info", "run_cnt", Whether, "tracing programs run when anything on the host happens"},
	{"bpf_prog_info", "recursion_misses", Whether, "as run_cnt"},
	{"bpf_prog_info", "jited_ksyms", Whether, "addresses"},
	{"bpf_prog_info", "jited_prog_insns", Whether, "machine code has addresses of maps and of itself"},
	{"bpf_prog_info", "jited_line_info", Whether, "addresses"},
	{"bpf_prog_info", "xlated_prog_insns", AsInsns, "ids of maps"},
	{"bpf_prog_info", "netns_dev", Whether, "each process has a network namespace of its own"},
	{"bpf_prog_info", "netns_ino", Whether, "as netns_dev"},
	{"bpf_prog_info", "map_ids", AsID, "ids"},
	{"bpf_map_info", "netns_dev", Whether, "as of programs"},
	{"bpf_map_info", "netns_ino", Whether, "as of programs"},
	{"bpf_link_info", "cgroup.cgroup_id", Whether, "each process has cgroups of its own"},
	{"bpf_link_info", "iter.cgroup.cgroup_id", Whether, "as cgroup.cgroup_id"},
	{"bpf_link_info", "netns.netns_ino", Whether, "each process has a network namespace of its own"},
	{"bpf_link_info", "iter.task.tid", AsPID, "process ids"},
	{"bpf_link_info", "iter.task.pid", AsPID, "process ids"},
	{"bpf_link_info", "uprobe_multi.pid", AsPID, "process ids"},
	{"BPF_PROG_LOAD", "log_buf", AsText, "addresses of maps, and times with BPF_LOG_STATS"},
	{"BPF_PROG_QUERY", "prog_ids", AsID, "ids"},
	{"BPF_PROG_QUERY", "link_ids", AsID, "ids"},
	{"BPF_TASK_FD_QUERY", "probe_addr", Whether, "an address"},
}

var idsOf = map[string]abi.Object{"map_ids": abi.Map, "prog_ids": abi.Prog, "link_ids": abi.Link}

// Mark is memory that is compared otherwise.
type Mark struct {
	Addr uint64
	Size uint64
	How  How
	Kind abi.Object // AsID
}

// Marks lists the memory of a call that is compared otherwise. before is the arena that
// the call found, after what it left, kind tells what is at a number.
func (r *Request) Marks(before, after Image, kind func(fd int32) abi.Object) []Mark {
	row := r.Row()
	at, size := r.Attr()
	var marks []Mark
	if row.Syscall == abi.SyscallPerfQueryBPF {
		n := uint64(row.Field("ids_len").Uint(pad(before.bytes(at, uint64(size)), size)))
		return []Mark{{at + abi.PerfQuerySize, 4 * min(n, Size), AsID, abi.Prog}}
	}
	if size == 0 && row.Syscall != abi.SyscallBPF {
		return nil
	}
	attr := pad(before.bytes(at, uint64(size)), row.Size)
	for i := range row.Fields {
		// Also those beyond the size: the kernel writes some of them nevertheless.
		marks = append(marks, fieldMarks(&row.Layout, &row.Fields[i], at, attr)...)
	}
	if r.Call == "obj_get_info_by_fd" {
		fd := int32(row.Field("bpf_fd").Uint(attr))
		if l := abi.InfoLayout(kind(fd)); l != nil {
			info := row.Field("info").Uint(attr)
			// Which arm of a link's info is meant is known after the call.
			pointers := pad(before.bytes(info, uint64(l.Size)), l.Size)
			live := pad(after.bytes(info, uint64(l.Size)), l.Size)
			marks = append(marks, infoMarks(l, info, pointers, live)...)
		}
	}
	return marks
}

// InfoMarks are the marks of an object's info at addr of a kind of object.
func InfoMarks(kind abi.Object, addr uint64, m Image) []Mark {
	l := abi.InfoLayout(kind)
	b := pad(m.bytes(addr, uint64(l.Size)), l.Size)
	return infoMarks(l, addr, b, b)
}

func infoMarks(l *abi.Layout, at uint64, pointers, live []byte) []Mark {
	var marks []Mark
	for i := range l.Fields {
		if f := &l.Fields[i]; f.Live(live) {
			marks = append(marks, fieldMarks(l, f, at, pointers)...)
		}
	}
	return marks
}

func fieldMarks(l *abi.Layout, f *abi.Field, at uint64, b []byte) []Mark {
	if f.Class == abi.ID && f.Dir != abi.In {
		return []Mark{{at + uint64(f.Offset), 4, AsID, f.Object}}
	}
	for _, m := range masks {
		if m.layout != l.Name || m.field != f.Name {
			continue
		}
		mark := Mark{at + uint64(f.Offset), uint64(f.Size), m.how, idsOf[f.Name]}
		if f.Class == abi.Pointer {
			n := uint64(f.Buffer.Len.Elem)
			if c := l.Field(f.Buffer.Len.Rec); c != nil {
				n = c.Uint(b)
			}
			if c := l.Field(f.Buffer.Len.Count); c != nil {
				n *= c.Uint(b)
			}
			mark.Addr, mark.Size = f.Uint(b), min(n, Size)
		}
		return []Mark{mark}
	}
	return nil
}

// Names tells who ids belong to.
type Names struct {
	ID  func(kind abi.Object, id uint32) uint32 // a number that is the same in each process
	PID uint32
}

// Mask replaces what is marked, if the call wrote it, by what is compared.
func Mask(before, after Image, marks []Mark, names Names) {
	for _, m := range marks {
		was, is := before.bytes(m.Addr, m.Size), after.bytes(m.Addr, m.Size)
		switch m.How {
		case Whether:
			for o := 0; o < len(is); o += 8 { // a number that changed did so as a whole
				if w := is[o:min(o+8, len(is))]; !bytes.Equal(was[o:o+len(w)], w) {
					for i := range w {
						w[i] = 0xee
						was[o+i] = ^w[i]
					}
				}
			}
		case AsID, AsPID:
			for o := 0; o+4 <= len(is); o += 4 {
				v := uint32(abi.Uint(is, uint32(o), 4))
				if bytes.Equal(was[o:o+4], is[o:o+4]) || v == 0 {
					continue
				}
				if m.How == AsID {
					v = names.ID(m.Kind, v)
				} else if v == names.PID {
					v = 0x1d00fffe
				}
				abi.Put(is, uint32(o), 4, uint64(v))
				for i := o; i < o+4; i++ { // as a whole, or not at all
					was[i] = ^is[i]
				}
			}
		case AsInsns:
			for o := 0; o+8 <= len(is); o += 8 {
				if is[o] == 0x18 && !bytes.Equal(was[o:o+8], is[o:o+8]) {
					abi.Put(is, uint32(o+4), 4, 0xeeeeeeee)
				}
			}
		case AsText:
			for _, loc := range varying.FindAllIndex(is, -1) {
				copy(is[loc[0]:loc[1]], strings.Repeat("X", loc[1]-loc[0]))
			}
		}
	}
}

// varying is what a log shows of a map, also where the log is cut off within it.
var varying = regexp.MustCompile(`\bf{3,4}[0-9a-f]{0,12}|0x?f{3,4}[0-9a-f]{0,12}|\A[0-9a-f]{1,12}\b`)

// Foreign stands for the id of an object that isn't the process's.
const Foreign = 0x1d00ffff
