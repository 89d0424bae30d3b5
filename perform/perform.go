// Package perform makes the call: bpf(), on the request's copy, in the
// workload's place. It knows nothing of policy.
package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/guard"
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
	// NetNS opens the target's network namespace; the caller closes it.
	NetNS() (int, sys.Errno)
}

// Needs says what of the target's a call is made with.
type Needs struct {
	Creds bool // uid and gid
	Plain bool // instead: its rights to open files, and no others
	Net   bool // network namespace
	Root  bool // root directory

	Cgroup bool // cgroup namespace
}

// Objects knows which maps, programs and BTFs are the workload's. (A link is the
// workload's if its program is.)
type Objects interface {
	// Owns says whether it was made for the workload; Sees, whether the workload may see
	// it, which is so, too, for what it has opened and what is shared with it.
	Owns(kind abi.Object, id uint32) bool
	Sees(kind abi.Object, id uint32) bool
	// Next returns the smallest id above after that the workload may see, 0 for none.
	Next(kind abi.Object, after uint32) uint32
}

// Host is who has the capabilities of the initial user namespace that a worker
// lacks: the daemon.
type Host interface {
	// Call performs the request with the capability that the table's Host names, and
	// puts what came of it into r, whose attribute and buffers are built.
	Call(q *request.Request, r *Result, where Where)
	// Made tells that the map, program or BTF at fd was made for the workload; Opened, that
	// the workload has opened it from a pin, whoever has made it.
	Made(fd int)
	Opened(fd int)
	// Owns says whether the object was made for the workload, or else is shared with it;
	// Sees, whether the workload may see it. They are asked of the daemon, as
	// Performer.Sees has it.
	Owns(kind abi.Object, id uint32) (own, shared bool, err error)
	Sees(kind abi.Object, id uint32) bool
}

// Log is told how far a call has come, so that another performer can go on if this
// one is killed.
type Log interface {
	// Calling: the call is made; nothing of it remains if its performer dies.
	Calling()
	// Performing: the call is made, and has an effect that remains. before is what
	// was there: see Redo.
	Performing(before uint64)
	// Performed: it was made, and this came of it.
	Performed(value int, e sys.Errno)
}

// Redo says that a call with an effect was made once already, perhaps, by a
// performer that was told Before.
type Redo struct{ Before uint64 }

// Where is what a Host is told of the target's place.
type Where struct {
	NetNS   int       // fd of its network namespace, -1 where the call doesn't look at it
	Path    int       // fd of what the call's path leads to, -1 for none
	PathErr sys.Errno // why it leads nowhere
	Thread  uint32    // the target's thread, in our pid namespace
	Asks    bool      // it isn't the target that asks, but the worker, on the way of a call
}

// Result is what the kernel answered.
type Result struct {
	Value int // what bpf() returned, where Errno is 0 and there is no FD
	FD    int // a new fd in the calling thread's table, or -1
	// CloseOnExec says that FD shall be O_CLOEXEC, as all of bpf()'s are.
	CloseOnExec bool
	Errno       sys.Errno // 0: success
	Tag         uint64    // of a program that got a guard (bpf_prog_info.tag, big-endian); 0: it has none

	Attr []byte // the attribute as the kernel left it; nil: it has never seen it
	// Out holds, for each of the request's buffers, its memory as the kernel left
	// it; nil where the kernel had nothing to write.
	Out [][]byte
}

// Performer makes calls, one at a time, on one locked thread.
type Performer struct {
	mem     *arena.Arena
	objects Objects // nil in a worker
	host    Host    // nil in the daemon
	token   *int    // fd of the worker's token; nil: it has none
	res     Result
	pathFD  int       // what a path leads to, -1 for none
	pathErr sys.Errno // why it leads nowhere
	// ReadOnly are the ids of maps that are opened to be read alone.
	ReadOnly []uint32
	// Guard is the workload's cgroup, and Cgroup an fd of its directory, -1 for none (a
	// worker has none); IDs are its namespaces. Scoped says of the next call that its policy
	// allows it for the workload's tasks alone, and Numbered that it wants programs to be
	// told processes and users as the workload knows them.
	Guard            guard.Scope
	IDs              *guard.IDs
	Cgroup           int
	Scoped, Numbered bool
	asks             bool // it performs what the workload hasn't asked for
}

// NewForWorker returns the Performer of a worker, which takes its memory from mem:
// with a token, if token isn't nil, where the kernel takes one.
func NewForWorker(mem *arena.Arena, host Host, token *int) *Performer {
	return &Performer{mem: mem, host: host, token: token, Cgroup: -1}
}

// NewForHost returns the Performer of the daemon, which shows a workload its own
// objects only.
func NewForHost(mem *arena.Arena, objects Objects) *Performer {
	return &Performer{mem: mem, objects: objects, Cgroup: -1}
}

// keep is how many buffers there is room for between calls: a request with many
// symbols has far more.
const keep = 1024

// Do performs the request and returns what came of it; the result is valid
// until the next call. A result's FD is the caller's to close. redo is nil for a
// call that wasn't made before.
func (p *Performer) Do(q *request.Request, at Place, log Log, redo *Redo) *Result {
	r := &p.res
	if cap(r.Out) > keep {
		r.Out = nil
	}
	*r = Result{FD: -1, CloseOnExec: true, Out: r.Out[:0]}
	p.pathFD, p.pathErr = -1, 0
	e := p.build(q, r, at)
	if e == 0 && p.host != nil && NeedsHost(q) {
		log.Calling()
		p.atHost(q, r, at)
		return r
	}
	if e == 0 {
		e = at.Enter(needs(q))
	}
	if e != 0 {
		r.Errno, r.Attr, r.Out = e, nil, nil
		return r
	}
	if q.Row.Effect {
		p.effect(q, r, at, log, redo)
	} else {
		name := p.roomForName(q, r)
		log.Calling()
		r.Value, r.Errno = p.call(q, r)
		name.show(r)
		p.explain(r)
	}
	at.Leave()
	if log := logOf(q); log != nil && r.Errno != 0 {
		p.growLog(q, r, at, log)
	}
	if q.Command == abi.TaskFDQuery && r.Errno == 0 {
		r.Errno = p.hideQueried(q, r)
	}
	infoAsGiven(q, r)
	p.unguard(q, r)
	idsInTarget(q, r, at)
	p.hideIDs(q, r)
	if r.Errno == 0 && p.host != nil && isLoader(q) {
		p.replace(q, r, at)
	}
	p.finish(q, r)
	return r
}

// explain replaces the kernel's error for a path that leads nowhere by the lookup's.
func (p *Performer) explain(r *Result) {
	if r.Errno == sys.ENOENT && p.pathErr != 0 {
		r.Errno = p.pathErr
	}
}

// maxStops is how often a load is repeated that was interrupted.
const maxStops = 100

// call makes a bpf() call. The verifier gives up when a signal is pending, and all of ours
// are blocked: we were stopped, and are continued.
func call(c abi.Command, attr []byte, size uint32) (int, sys.Errno) {
	v, e := sys.BPF(uint32(c), attr, size)
	for tries := 0; e == sys.EAGAIN && c == abi.ProgLoad && tries < maxStops; tries++ {
		v, e = sys.BPF(uint32(c), attr, size)
	}
	return v, e
}

func (p *Performer) call(q *request.Request, r *Result) (int, sys.Errno) {
	switch q.Syscall {
	case abi.SyscallPerfEventOpen:
		return p.perfEventOpen(q, r)
	case abi.SyscallPerfSetBPF:
		return perfSetBPF(q)
	case abi.SyscallPerfQueryBPF:
		return p.perfQueryBPF(q, r)
	}
	switch q.Command {
	case abi.ProgGetNextID, abi.MapGetNextID, abi.BTFGetNextID, abi.LinkGetNextID:
		return p.nextID(q, r)
	case abi.ProgQuery:
		return p.progQuery(q, r)
	}
	size := max(p.withToken(q, r), Whole(q))
	v, e := call(q.Command, r.Attr, size)
	if e == sys.EPERM && p.token != nil && q.Command == abi.ProgLoad && knownTypes(r.Attr) {
		v, e = sys.BPF(uint32(q.Command), r.Attr, size)
	}
	if q.Command == abi.ProgLoad && e == 0 && p.Scoped {
		v, e = p.guarded(q, r, v)
	}
	return v, e
}

// Whole is how much of the attribute the kernel is given: what the application gave, and
// all of the field in which that ends, which is zero there, if the kernel reads it. Half of a number that we have
// put in its place would be another: an address of ours, or somebody else's process id.
func Whole(q *request.Request) uint32 {
	size := q.Size
	for i := range q.Row.Fields {
		f := &q.Row.Fields[i]
		room := q.Command == abi.TaskFDQuery && f.Name == "buf" // which is ours: see shownName
		if f.Offset < q.Size && f.Dir != abi.Out || room {
			size = max(size, f.Offset+f.Size)
		}
	}
	if log := logOf(q); log != nil && tellsTrueSize() {
		// Only this tells how much of the log was written: see LogLength.
		size = max(size, log.true.Offset+log.true.Size)
	}
	return size
}

// knownTypes replaces a program's types that no token covers because the kernel
// knows none such (kernel/bpf/token.c, bpf_token_allow_prog_type), by ones that it
// knows and refuses as it refuses those to root: no program is of type
// BPF_PROG_TYPE_UNSPEC, and none that looks at its attach type is for
// BPF_LIRC_MODE2. It says whether there were any.
func knownTypes(attr []byte) (some bool) {
	row := abi.RowOf(abi.ProgLoad)
	if f := row.Field("prog_type"); f.Values.KernelName(f.Uint(attr)) == "" {
		f.Put(attr, 0)
		some = true
	}
	if f := row.Field("expected_attach_type"); f.Values.KernelName(f.Uint(attr)) == "" {
		n, _ := f.Values.Value("lirc_mode2")
		f.Put(attr, n)
		some = true
	}
	return some
}

// atHost has the daemon perform the request.
func (p *Performer) atHost(q *request.Request, r *Result, at Place) {
	if trapsOthers(q) {
		r.Errno, r.Attr, r.Out = sys.EACCES, nil, nil
		return
	}
	where := Where{NetNS: -1, Path: p.pathFD, PathErr: p.pathErr, Thread: at.TID(), Asks: p.asks}
	if needs(q).Net {
		var e sys.Errno
		if where.NetNS, e = at.NetNS(); e != 0 {
			r.Errno, r.Attr, r.Out = e, nil, nil
			return
		}
		defer sys.Close(where.NetNS)
	}
	p.host.Call(q, r, where)
	idsInTarget(q, r, at)
}

// NeedsHost says whether the request takes capabilities of the initial user
// namespace that no token replaces.
func NeedsHost(q *request.Request) bool {
	if q.Command == abi.ObjGetInfoByFD {
		return q.Info != nil && abi.InfoNeedsHost(q.Info, q.Selector)
	}
	return q.Row.Host != ""
}

// Slow says whether the request is likely to take longer than it takes to wake a
// thread: another process performs it, or there is much for the kernel to read.
func Slow(q *request.Request) bool {
	const much = 4096 // 512 instructions
	size := 0
	for i := range q.Buffers {
		size += len(q.Buffers[i].Data)
	}
	return size > much || NeedsHost(q)
}

// withToken puts our token into the attribute, where the command takes one and the
// application hasn't given its own. It returns how much of the attribute counts:
// perhaps more than the application gave, which is zero. What the kernel writes
// there only because of that, a native call's application wouldn't see: see Untouched.
func (p *Performer) withToken(q *request.Request, r *Result) uint32 {
	if p.token == nil || q.Row.TokenFD == "" {
		return q.Size
	}
	flags, fd := q.Row.Field(q.Row.TokenFlags), q.Row.Field(q.Row.TokenFD)
	if flags.Uint(q.Attr)&abi.FTokenFD != 0 {
		return q.Size
	}
	flags.Put(r.Attr, flags.Uint(r.Attr)|abi.FTokenFD)
	fd.Put(r.Attr, uint64(*p.token))
	return max(q.Size, fd.Offset+fd.Size)
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
