// Package facts holds what a policy may speak of: typed values about one
// operation, derived from the request's private copy alone and from what is
// known of the workload. They never change once made.
package facts

// Facts describe one operation. Names are spelled as the kernel's bpffs
// delegation options have them; "" means that the operation has no such fact.
type Facts struct {
	Workload   string // the workload's id
	TID        int    // the calling thread, in the broker's pid namespace
	Command    string // "prog_load"
	MapType    string // "hash"
	ProgType   string // "xdp"
	ProgAttach string // expected attach type, "cgroup_inet_ingress"
	AttachType string // of what is attached, detached or queried
	EventType  string // of a perf event, "tracepoint"
	Name       string // of the map or program
}

// Kind is the object or attach point that the operation is about, in one word:
// what a summary groups by.
func (f *Facts) Kind() string {
	for _, s := range []string{f.MapType, f.ProgType, f.AttachType, f.EventType} {
		if s != "" {
			return s
		}
	}
	return ""
}
