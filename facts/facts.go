// Package facts holds what a policy may speak of: typed values about one
// operation, derived from the request's private copy alone and from what is
// known of the workload. They don't change while a policy looks at them.
//
// Table describes each: its name, its type, which commands have it. Policies, the
// audit log and the reference that users read are made from it.
package facts

import "slices"

// Facts describe one operation. Names are spelled as the kernel's bpffs
// delegation options have them: "prog_load", "xdp". A command has those facts that
// Table says; all others are zero.
type Facts struct {
	Command  string
	Workload Workload
	Map      Map
	Prog     Prog
	Attach   Attach
	Event    Event
	Object   Object
	Pin      Pin
	Token    bool // the call names a BPF token of the application's own
	Counts   Counts

	// Unknown are facts that the operation has and that couldn't be found out. A
	// policy that needs one of them can't decide.
	Unknown Unknown
}

// Workload is whose operation it is. What the workload can set itself is marked in
// Table.
type Workload struct {
	ID          string
	UID, GID    int64  // of its owner, in the initial user namespace
	Cgroup      string // path below the root of the cgroup v2 hierarchy
	NetnsOwn    bool   // no process of it is, or can come, into the host's network namespace
	Container   Container
	Labels      map[string]string
	Annotations map[string]string

	// The calling process.
	PID, Thread int64 // in the broker's pid namespace
	Comm        string
	Exe         string
	Argv        []string
}

// Container is what the workload's runtime says about it.
type Container struct{ ID, Name, Image string }

// Map is what BPF_MAP_CREATE makes.
type Map struct {
	Type       string // "array"
	KeySize    int64  // bytes
	ValueSize  int64  // bytes
	MaxEntries int64
	Flags      []string // BPF_F_…
	Name       string
	Bytes      int64 // what the kernel will charge for it, estimated; see inspect.mapBytes
}

// Prog is what BPF_PROG_LOAD loads.
type Prog struct {
	Type          string // "xdp"
	AttachType    string // expected_attach_type; "" where the program's type has none
	Name          string
	License       string
	Insns         int64
	Flags         []string // BPF_F_…
	Sleepable     bool
	Signed        bool
	Helpers       []string // names of the helpers that it calls, sorted: "bpf_map_lookup_elem"
	KernelStacks  bool     // it may record the kernel's stacks
	Kfuncs        []string // of the kernel's functions that it calls, sorted
	MapTypes      []string // of the maps that its instructions or fd_array name, sorted
	MapIDs        []int64  // their ids, sorted
	ForeignMapIDs []int64  // of those of them that weren't made for the workload
	Target        Target   // what it is for, by BTF
	Digest        string   // normalised: see package digest
}

// Target is the function, tracepoint or structure that a program names by its BTF id.
type Target struct {
	Kind   string // "kernel", "module", "program"
	Module string // the module's name
	Prog   int64  // the program's id
	Name   string // "tcp_v4_connect"; of a tracepoint, without btf_trace_
}

// Attach is what a program is attached to, detached from or asked about.
type Attach struct {
	Type         string   // "cgroup_inet_ingress"
	Flags        []string // BPF_F_…
	ProgID       int64    // of the program
	ProgType     string
	ProgOwn      bool     // it is the workload's, and so is the one whose place it takes
	Cgroup       string   // path below the root of the cgroup v2 hierarchy
	CgroupInside bool     // it is the workload's cgroup or below it
	Ifindex      int64    // in the caller's network namespace
	Ifname       string   // of the interface
	NetnsOwn     bool     // the network namespace is the workload's, not the host's
	MapOwn       bool     // of a sockmap: it is the workload's
	Tracepoint   string   // "sched_switch", of a raw tracepoint
	Functions    []string // of a kprobe_multi
	File         string   // of a uprobe: what it is for the workload
	FileShared   bool     // others than the workload may execute that file: see workload.FileShared
	Offsets      []int64  // in the file
	PID          int64    // as the application says it; 0: any process
	PIDOwn       bool     // that process is the workload's
	Protocol     string   // "ipv4", "ipv6": of netfilter
	Hook         string   // "prerouting": of netfilter
	Priority     int64    // of netfilter
}

// Event is what perf_event_open opens.
type Event struct {
	Type   string // "tracepoint", "kprobe", "software"
	Config int64
	PID    int64 // as the application says it: 0 itself, -1 all
	PIDOwn bool  // it is the workload's
	CPU    int64
	Sample []string // PERF_SAMPLE_…: what the kernel records at each
	// KernelStacks: among that are the kernel's stacks.
	KernelStacks bool
	Tracepoint   string // "sched:sched_switch"
	Function     string // of a kprobe
	File         string // of a uprobe
	FileShared   bool
	Offset       int64
}

// Object is what a call opens, looks at, pins, changes.
type Object struct {
	Kind string // "map", "prog", "link", "btf", "token"
	ID   int64
	Own  bool // it was made for the workload, or is of a program that was
	// Shared: it isn't its own, and the policy shares it, or its program.
	Shared bool
}

// Pin is a name in a bpffs.
type Pin struct{ Path string }

// Counts are what the workload holds.
type Counts struct{ Maps, Progs, Links, Bytes int64 }

// Unknown says of facts why they aren't known.
type Unknown []struct{ Fact, Why string }

// Why says why the fact of that name isn't known, "" if it is.
func (u Unknown) Why(fact string) string {
	for _, x := range u {
		if x.Fact == fact {
			return x.Why
		}
	}
	return ""
}

// Kind is the object or attach point that the operation is about, in one word:
// what a summary groups by.
func (f *Facts) Kind() string {
	for _, s := range []string{f.Map.Type, f.Prog.Type, f.Attach.Type, f.Event.Type} {
		if s != "" {
			return s
		}
	}
	return ""
}

// Clone is a copy that shares nothing with f which changes when f is used again.
func (f *Facts) Clone() Facts {
	c := *f
	for i := range Table {
		switch list := Table[i].At(&c).(type) {
		case *[]string:
			*list = slices.Clone(*list)
		case *[]int64:
			*list = slices.Clone(*list)
		}
	}
	return c
}
