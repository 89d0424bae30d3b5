// Package perform makes the call: bpf(), on the request's copy, in the
// workload's place. It knows nothing of policy.
package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// Place is where a call belongs: the target's namespaces, file system and ids.
type Place interface {
	// Enter makes the calling thread act in the target's place as far as n says.
	// Where it fails, nothing has changed.
	Enter(n Needs) sys.Errno
	// Leave takes Enter back.
	Leave()
	// PIDFrom translates a process id of the target's pid namespace to ours, and
	// PIDIn one of ours to the target's.
	PIDFrom(pid uint32) (uint32, sys.Errno)
	PIDIn(pid uint32) (uint32, sys.Errno)
	// UIDIn translates a user id of our user namespace to the target's.
	UIDIn(uid uint32) (uint32, sys.Errno)
	// TID is the target's thread id in our pid namespace.
	TID() uint32
	// OpenPath opens, with O_PATH, what a path of the target's leads to, from the
	// directory fd base or sys.AtCWD. It closes the fd when the call is over.
	OpenPath(base int, path []byte) (int, sys.Errno)
}

// Needs says what of the target's a call is made with.
type Needs struct {
	Creds bool // uid and gid
	Plain bool // instead: its rights to open files, and no others
	Net   bool // network namespace
	Root  bool // root directory

	Cgroup bool // cgroup namespace
}

// Objects knows which objects are the workload's.
type Objects interface {
	Owns(kind abi.Object, id uint32) bool
	// Next returns the smallest id above after that the workload owns, 0 for none.
	Next(kind abi.Object, after uint32) uint32
	Add(kind abi.Object, id uint32)
}

// Result is what the kernel answered.
type Result struct {
	Value int // what bpf() returned, where Errno is 0 and there is no FD
	FD    int // a new fd in the calling thread's table, or -1
	// CloseOnExec says that FD shall be O_CLOEXEC, as all of bpf()'s are.
	CloseOnExec bool
	Errno       sys.Errno // 0: success

	Attr []byte // the attribute as the kernel left it; nil: it has never seen it
	// Out holds, for each of the request's buffers, its memory as the kernel left
	// it; nil where the kernel had nothing to write.
	Out [][]byte
}

// Performer makes calls, one at a time, on one locked thread.
type Performer struct {
	mem     *arena.Arena
	objects Objects
	res     Result
	pathErr sys.Errno // why a path leads nowhere
}

// New returns a Performer that takes its memory from mem.
func New(mem *arena.Arena, objects Objects) *Performer {
	return &Performer{mem: mem, objects: objects}
}

// attrRoom is what the kernel may write to of our attribute: its own union
// bpf_attr, which may be larger than the table's.
const attrRoom = 1024

// keep is how many buffers there is room for between calls: a request with many
// symbols has far more.
const keep = 1024

// Do performs the request and returns what came of it; the result is valid
// until the next call. A result's FD is the caller's to close.
func (p *Performer) Do(q *request.Request, at Place) *Result {
	r := &p.res
	if cap(r.Out) > keep {
		r.Out = nil
	}
	*r = Result{FD: -1, CloseOnExec: true, Out: r.Out[:0]}
	p.pathErr = 0
	e := p.build(q, r, at)
	if e == 0 {
		e = at.Enter(needs(q))
	}
	if e != 0 {
		r.Errno, r.Attr, r.Out = e, nil, nil
		return r
	}
	r.Value, r.Errno = p.call(q, r)
	at.Leave()
	if r.Errno == sys.ENOENT && p.pathErr != 0 {
		r.Errno = p.pathErr
	}
	if log := logOf(q); log != nil && r.Errno != 0 {
		p.growLog(q, r, at, log)
	}
	idsInTarget(q, r, at)
	p.finish(q, r)
	return r
}

func (p *Performer) call(q *request.Request, r *Result) (int, sys.Errno) {
	if q.Syscall == abi.SyscallPerfEventOpen {
		return perfEventOpen(q, r)
	}
	switch q.Command {
	case abi.ProgGetNextID, abi.MapGetNextID, abi.BTFGetNextID, abi.LinkGetNextID:
		return p.nextID(q, r)
	}
	return sys.BPF(uint32(q.Command), r.Attr, q.Size)
}

// needs says where the call must be made.
func needs(q *request.Request) Needs {
	n := Needs{
		Creds:  q.Row.Creds,
		Net:    len(q.Row.Net) > 0 && abi.Holds(q.Row.Net, q.Attr),
		Cgroup: len(q.Row.CgroupNS) > 0 && abi.Holds(q.Row.CgroupNS, q.Attr),
	}
	for i := range q.Row.Fields {
		f := &q.Row.Fields[i]
		if f.Class == abi.Ifindex && f.Live(q.Attr) && f.Uint(q.Attr) != 0 {
			n.Net = true
		}
	}
	for i := range q.Buffers {
		switch q.Buffers[i].Field.Buffer.Path {
		case abi.PathOpen, abi.PathCreate:
			// What it opens, it opens as the target; the others look at nothing
			// of the file's once it is found.
			n.Plain = q.Row.Creds
		case abi.PathShown:
			n.Root = true
		}
	}
	return n
}
