package facts

import (
	"slices"
	"strings"
)

// Type is a fact's type, as policies have it.
type Type uint8

const (
	String  Type = iota + 1
	Int          // signed, 64 bits; a larger number is the largest
	Bool         //
	Strings      // a list
	Ints         // a list
	Texts        // strings by name
)

var typeNames = [...]string{String: "string", Int: "int", Bool: "bool", Strings: "list(string)", Ints: "list(int)", Texts: "map(string, string)"}

// String is the type's name in CEL.
func (t Type) String() string { return typeNames[t] }

// Fact describes one fact.
type Fact struct {
	Name string // "map.type"
	Type Type
	On   []string // the commands that have it; nil: all
	// Says marks what the workload itself can set: no secure thing to decide on.
	Says bool
	// Costs marks what takes more than looking at the request: it is found out only where
	// a policy or the audit log asks for it.
	Costs bool
	About string // one sentence, with its unit

	// At returns a pointer to it: *string, *int64, *bool, *[]string, *[]int64 or
	// *map[string]string.
	At func(*Facts) any
}

var (
	maps     = []string{"map_create"}
	progs    = []string{"prog_load"}
	events   = []string{"perf_event_open"}
	tokens   = []string{"map_create", "prog_load", "btf_load"}
	pins     = []string{"obj_pin", "obj_get"}
	attaches = []string{"prog_attach", "prog_detach", "prog_query", "raw_tracepoint_open", "link_create", "link_update", "link_detach", "perf_event_set_bpf", "iter_create"}
	// opening is done by an fd or an id of an object.
	objects = []string{"obj_pin", "obj_get", "obj_get_info_by_fd", "prog_get_fd_by_id", "map_get_fd_by_id", "btf_get_fd_by_id", "link_get_fd_by_id",
		"link_update", "link_detach", "iter_create", "map_freeze", "prog_bind_map"}
)

// Table lists all facts, in the order in which users read them.
var Table = []Fact{
	{Name: "command", Type: String, About: "the command: map_create, prog_load, …; perf_event_open, perf_event_set_bpf and perf_event_query_bpf for what isn't bpf()", At: func(f *Facts) any { return &f.Command }},

	{Name: "workload.id", Type: String, About: "the workload's id", At: func(f *Facts) any { return &f.Workload.ID }},
	{Name: "workload.uid", Type: Int, About: "user id of the workload's owner, on the host", At: func(f *Facts) any { return &f.Workload.UID }},
	{Name: "workload.gid", Type: Int, About: "group id of the workload's owner, on the host", At: func(f *Facts) any { return &f.Workload.GID }},
	{Name: "workload.cgroup", Type: String, About: "its cgroup, a path below the root of cgroup v2", At: func(f *Facts) any { return &f.Workload.Cgroup }},
	{Name: "workload.netns_own", Type: Bool, About: "it began in a network namespace of its own: no process of it can be in the host's", At: func(f *Facts) any { return &f.Workload.NetnsOwn }},
	{Name: "workload.container_id", Type: String, About: "the container's id, as its runtime says", At: func(f *Facts) any { return &f.Workload.Container.ID }},
	{Name: "workload.container", Type: String, About: "the container's name", At: func(f *Facts) any { return &f.Workload.Container.Name }},
	{Name: "workload.image", Type: String, About: "the container's image", At: func(f *Facts) any { return &f.Workload.Container.Image }},
	{Name: "workload.labels", Type: Texts, About: "the container's labels", At: func(f *Facts) any { return &f.Workload.Labels }},
	{Name: "workload.annotations", Type: Texts, About: "the container's annotations", At: func(f *Facts) any { return &f.Workload.Annotations }},
	{Name: "workload.pid", Type: Int, About: "the calling process, in the broker's pid namespace", Costs: true, At: func(f *Facts) any { return &f.Workload.PID }},
	{Name: "workload.thread", Type: Int, About: "the calling thread, in the broker's pid namespace", At: func(f *Facts) any { return &f.Workload.Thread }},
	{Name: "workload.comm", Type: String, About: "the calling thread's name", Says: true, Costs: true, At: func(f *Facts) any { return &f.Workload.Comm }},
	{Name: "workload.exe", Type: String, About: "the file that the calling process executes, as the workload sees it", Says: true, Costs: true, At: func(f *Facts) any { return &f.Workload.Exe }},
	{Name: "workload.argv", Type: Strings, About: "the calling process's arguments", Says: true, Costs: true, At: func(f *Facts) any { return &f.Workload.Argv }},

	{Name: "map.type", Type: String, On: maps, About: "the map's type", At: func(f *Facts) any { return &f.Map.Type }},
	{Name: "map.key_size", Type: Int, On: maps, About: "bytes of a key", At: func(f *Facts) any { return &f.Map.KeySize }},
	{Name: "map.value_size", Type: Int, On: maps, About: "bytes of a value", At: func(f *Facts) any { return &f.Map.ValueSize }},
	{Name: "map.max_entries", Type: Int, On: maps, About: "number of entries; of a ring buffer, its bytes", At: func(f *Facts) any { return &f.Map.MaxEntries }},
	{Name: "map.flags", Type: Strings, On: maps, About: "names of the flags", At: func(f *Facts) any { return &f.Map.Flags }},
	{Name: "map.name", Type: String, On: maps, Says: true, About: "the map's name", At: func(f *Facts) any { return &f.Map.Name }},
	{Name: "map.bytes", Type: Int, On: maps, About: "memory that the full map takes, bytes, estimated", At: func(f *Facts) any { return &f.Map.Bytes }},

	{Name: "prog.type", Type: String, On: progs, About: "the program's type", At: func(f *Facts) any { return &f.Prog.Type }},
	{Name: "prog.attach_type", Type: String, On: progs, About: "the expected attach type", At: func(f *Facts) any { return &f.Prog.AttachType }},
	{Name: "prog.name", Type: String, On: progs, Says: true, About: "the program's name", At: func(f *Facts) any { return &f.Prog.Name }},
	{Name: "prog.license", Type: String, On: progs, Says: true, About: "the license that it claims", At: func(f *Facts) any { return &f.Prog.License }},
	{Name: "prog.insns", Type: Int, On: progs, About: "number of its instructions, of 8 bytes each", At: func(f *Facts) any { return &f.Prog.Insns }},
	{Name: "prog.flags", Type: Strings, On: progs, About: "names of the flags", At: func(f *Facts) any { return &f.Prog.Flags }},
	{Name: "prog.sleepable", Type: Bool, On: progs, About: "the program may sleep", At: func(f *Facts) any { return &f.Prog.Sleepable }},
	{Name: "prog.signed", Type: Bool, On: progs, About: "it comes with a signature, which the kernel checks", At: func(f *Facts) any { return &f.Prog.Signed }},
	{Name: "prog.helpers", Type: Strings, On: progs, Costs: true, About: "the helpers that it calls anywhere, subprograms included, sorted: bpf_probe_read_kernel", At: func(f *Facts) any { return &f.Prog.Helpers }},
	{Name: "prog.kfuncs", Type: Strings, On: progs, Costs: true, About: "the kernel functions that it calls anywhere, sorted", At: func(f *Facts) any { return &f.Prog.Kfuncs }},
	{Name: "prog.kernel_stacks", Type: Bool, On: progs, Costs: true, About: "it may record the kernel's stacks, which tell where the kernel is in memory: it calls bpf_get_stackid, bpf_get_stack or bpf_get_task_stack with flags that aren't seen to be BPF_F_USER_STACK", At: func(f *Facts) any { return &f.Prog.KernelStacks }},
	{Name: "prog.map_types", Type: Strings, On: progs, Costs: true, About: "types of the maps that it names, sorted", At: func(f *Facts) any { return &f.Prog.MapTypes }},
	{Name: "prog.map_ids", Type: Ints, On: progs, Costs: true, About: "ids of the maps that it names, sorted", At: func(f *Facts) any { return &f.Prog.MapIDs }},
	{Name: "prog.foreign_map_ids", Type: Ints, On: progs, Costs: true, About: "ids of the maps that it names and that neither were made for the workload nor are shared by the policy, sorted: by a program one writes to a map that one may only read, and comes to a map's inner maps", At: func(f *Facts) any { return &f.Prog.ForeignMapIDs }},
	{Name: "prog.target_kind", Type: String, On: progs, Costs: true, About: "where its BTF target is: kernel, module or program", At: func(f *Facts) any { return &f.Prog.Target.Kind }},
	{Name: "prog.target_module", Type: String, On: progs, Costs: true, About: "the module of its BTF target", At: func(f *Facts) any { return &f.Prog.Target.Module }},
	{Name: "prog.target_prog", Type: Int, On: progs, Costs: true, About: "id of the program that it traces or replaces a function of", At: func(f *Facts) any { return &f.Prog.Target.Prog }},
	{Name: "prog.target", Type: String, On: progs, Costs: true, About: "its BTF target: a function, a tracepoint, a structure, what it iterates over", At: func(f *Facts) any { return &f.Prog.Target.Name }},
	{Name: "prog.digest", Type: String, On: progs, Costs: true, About: "its normalised SHA-256, in hexadecimal, as `bpfbroker digest` prints it", At: func(f *Facts) any { return &f.Prog.Digest }},

	{Name: "attach.type", Type: String, On: attaches, About: "the attach type", At: func(f *Facts) any { return &f.Attach.Type }},
	{Name: "attach.flags", Type: Strings, On: attaches, About: "names of the flags", At: func(f *Facts) any { return &f.Attach.Flags }},
	{Name: "attach.prog_id", Type: Int, On: attaches, Costs: true, About: "id of the program", At: func(f *Facts) any { return &f.Attach.ProgID }},
	{Name: "attach.prog_type", Type: String, On: attaches, Costs: true, About: "the program's type", At: func(f *Facts) any { return &f.Attach.ProgType }},
	{Name: "attach.prog_own", Type: Bool, On: attaches, Costs: true, About: "the program was made for the workload, and with BPF_F_REPLACE so was the one whose place it takes", At: func(f *Facts) any { return &f.Attach.ProgOwn }},
	{Name: "attach.cgroup", Type: String, On: attaches, Costs: true, About: "the cgroup, a path below the root of cgroup v2", At: func(f *Facts) any { return &f.Attach.Cgroup }},
	{Name: "attach.cgroup_inside", Type: Bool, On: attaches, Costs: true, About: "the cgroup is the workload's or below it", At: func(f *Facts) any { return &f.Attach.CgroupInside }},
	{Name: "attach.ifindex", Type: Int, On: attaches, About: "the interface's index", At: func(f *Facts) any { return &f.Attach.Ifindex }},
	{Name: "attach.ifname", Type: String, On: attaches, Costs: true, About: "the interface's name", At: func(f *Facts) any { return &f.Attach.Ifname }},
	{Name: "attach.netns_own", Type: Bool, On: attaches, Costs: true, About: "it is in a network namespace of the workload's own, not the host's", At: func(f *Facts) any { return &f.Attach.NetnsOwn }},
	{Name: "attach.map_own", Type: Bool, On: attaches, Costs: true, About: "of a sockmap: it was made for the workload", At: func(f *Facts) any { return &f.Attach.MapOwn }},
	{Name: "attach.tracepoint", Type: String, On: attaches, About: "the raw tracepoint's name", At: func(f *Facts) any { return &f.Attach.Tracepoint }},
	{Name: "attach.functions", Type: Strings, On: attaches, About: "the functions of a kprobe_multi, as given", At: func(f *Facts) any { return &f.Attach.Functions }},
	{Name: "attach.file", Type: String, On: attaches, Costs: true, About: "the file of a uprobe_multi, as the workload sees it", At: func(f *Facts) any { return &f.Attach.File }},
	{Name: "attach.file_shared", Type: Bool, On: attaches, Costs: true, About: "others than the workload may execute that file, a library of the host or a layer of an image. False is said of files in memory (tmpfs) alone, on a mount that no other has", At: func(f *Facts) any { return &f.Attach.FileShared }},
	{Name: "attach.offsets", Type: Ints, On: attaches, About: "offsets in the file, bytes", At: func(f *Facts) any { return &f.Attach.Offsets }},
	{Name: "attach.pid", Type: Int, On: attaches, About: "the process that a uprobe_multi is for, 0: any", At: func(f *Facts) any { return &f.Attach.PID }},
	{Name: "attach.pid_own", Type: Bool, On: attaches, Costs: true, About: "that process is the workload's", At: func(f *Facts) any { return &f.Attach.PIDOwn }},
	{Name: "attach.protocol", Type: String, On: attaches, About: "of netfilter: ipv4 or ipv6", At: func(f *Facts) any { return &f.Attach.Protocol }},
	{Name: "attach.hook", Type: String, On: attaches, About: "of netfilter: prerouting, input, forward, output or postrouting", At: func(f *Facts) any { return &f.Attach.Hook }},
	{Name: "attach.priority", Type: Int, On: attaches, About: "of netfilter", At: func(f *Facts) any { return &f.Attach.Priority }},

	{Name: "perf_event.type", Type: String, On: events, About: "the event's type", At: func(f *Facts) any { return &f.Event.Type }},
	{Name: "perf_event.config", Type: Int, On: events, About: "which event of that type", At: func(f *Facts) any { return &f.Event.Config }},
	{Name: "perf_event.pid", Type: Int, On: events, About: "the process or thread, as the caller names it; 0 itself, -1 all", At: func(f *Facts) any { return &f.Event.PID }},
	{Name: "perf_event.pid_own", Type: Bool, On: events, Costs: true, About: "it is the workload's", At: func(f *Facts) any { return &f.Event.PIDOwn }},
	{Name: "perf_event.cpu", Type: Int, On: events, About: "the CPU, -1 all", At: func(f *Facts) any { return &f.Event.CPU }},
	{Name: "perf_event.sample", Type: Strings, On: events, About: "names of the flags of what is recorded of the task that it hits: PERF_SAMPLE_STACK_USER", At: func(f *Facts) any { return &f.Event.Sample }},
	{Name: "perf_event.kernel_stacks", Type: Bool, On: events, About: "it records the kernel's stacks: PERF_SAMPLE_CALLCHAIN, without exclude_callchain_kernel or exclude_kernel", At: func(f *Facts) any { return &f.Event.KernelStacks }},
	{Name: "perf_event.tracepoint", Type: String, On: events, Costs: true, About: "the tracepoint, as tracefs has it: sched:sched_switch", At: func(f *Facts) any { return &f.Event.Tracepoint }},
	{Name: "perf_event.function", Type: String, On: events, About: "the function of a kprobe", At: func(f *Facts) any { return &f.Event.Function }},
	{Name: "perf_event.file", Type: String, On: events, Costs: true, About: "the file of a uprobe, as the workload sees it", At: func(f *Facts) any { return &f.Event.File }},
	{Name: "perf_event.file_shared", Type: Bool, On: events, Costs: true, About: "others than the workload may execute that file: as attach.file_shared", At: func(f *Facts) any { return &f.Event.FileShared }},
	{Name: "perf_event.offset", Type: Int, On: events, About: "offset in the file or function, bytes", At: func(f *Facts) any { return &f.Event.Offset }},

	{Name: "object.kind", Type: String, On: objects, About: "map, prog, link, btf or token", At: func(f *Facts) any { return &f.Object.Kind }},
	{Name: "object.id", Type: Int, On: objects, Costs: true, About: "its id", At: func(f *Facts) any { return &f.Object.ID }},
	{Name: "object.own", Type: Bool, On: objects, Costs: true, About: "it was made for the workload", At: func(f *Facts) any { return &f.Object.Own }},
	{Name: "object.shared", Type: Bool, On: objects, Costs: true, About: "it isn't the workload's own; the policy shares it, or the link's program", At: func(f *Facts) any { return &f.Object.Shared }},

	{Name: "pin.path", Type: String, On: pins, Says: true, About: "the path, as given", At: func(f *Facts) any { return &f.Pin.Path }},
	{Name: "token", Type: Bool, On: tokens, About: "the call names a BPF token of its own", At: func(f *Facts) any { return &f.Token }},

	{Name: "counts.maps", Type: Int, About: "maps that the workload holds", Costs: true, At: func(f *Facts) any { return &f.Counts.Maps }},
	{Name: "counts.progs", Type: Int, About: "programs that it holds", Costs: true, At: func(f *Facts) any { return &f.Counts.Progs }},
	{Name: "counts.links", Type: Int, About: "links that it holds", Costs: true, At: func(f *Facts) any { return &f.Counts.Links }},
	{Name: "counts.bytes", Type: Int, About: "memory of the maps and types (BTF) that it holds, bytes, estimated", Costs: true, At: func(f *Facts) any { return &f.Counts.Bytes }},
}

// Has says whether the command has the fact.
func (f *Fact) Has(command string) bool { return f.On == nil || slices.Contains(f.On, command) }

var index = func() map[string]int {
	if len(Table) > 64*len(Set{}) {
		panic("a Set has no room for all facts")
	}
	m := make(map[string]int, len(Table))
	for i := range Table {
		m[Table[i].Name] = i
	}
	return m
}()

// Find returns the fact of that name, or nil.
func Find(name string) *Fact {
	if i, ok := index[name]; ok {
		return &Table[i]
	}
	return nil
}

// Number is the place in Table of the fact of that name; false: there is none.
func Number(name string) (int, bool) {
	i, ok := index[name]
	return i, ok
}

// Set is a set of facts. The zero value is empty.
type Set [2]uint64

// Add puts a fact of Table into the set.
func (s *Set) Add(name string) {
	if i, ok := index[name]; ok {
		s.AddNumber(i)
	}
}

// AddNumber puts the fact at that place of Table into the set.
func (s *Set) AddNumber(i int) { s[i/64] |= 1 << (i % 64) }

// HasNumber says whether the fact at that place of Table is in the set.
func (s *Set) HasNumber(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// Union puts all of the other set into this one.
func (s *Set) Union(o Set) {
	for i := range s {
		s[i] |= o[i]
	}
}

// Has says whether a fact is in the set.
func (s Set) Has(name string) bool {
	i, ok := index[name]
	return ok && s.HasNumber(i)
}

// Any says whether a fact whose name begins so is in the set: "prog.target".
func (s Set) Any(prefix string) bool {
	for i := range Table {
		if s.HasNumber(i) && strings.HasPrefix(Table[i].Name, prefix) {
			return true
		}
	}
	return false
}

// All is the set of all facts.
func All() Set {
	var s Set
	for i := range Table {
		s.AddNumber(i)
	}
	return s
}
