package broker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/loader"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/reply"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// A BPF_PROG_TEST_RUN of a stub (package perform) interprets the loader that it stands
// for. Each bpf_sys_bpf of the loader's is an operation like any other: read, decided,
// performed. The memory of the request is the loader's then, and the fds that are made
// stay here, on a shelf of numbers that hardly any application has. What the loader hasn't
// closed when it ends is handed over, and where the context holds such a number the
// target's own is put.

const (
	// maxFDs is more than a loader has open: a map, a program and a BTF each, and those
	// of modules.
	maxFDs = 4 * loader.MaxMaps
	// maxCtx is the longest context that the kernel takes (U16_MAX).
	maxCtx = 65535
	// maxValues is how many bytes the values of a loader's maps may have.
	maxValues = 16 << 20
	// maxLoaders is how many loaders of a workload run at once; others wait. What one
	// needs is some 40 MiB at most: its instructions, values, and what a call takes.
	maxLoaders = 4
)

// testRun is the way of a BPF_PROG_TEST_RUN. All but that of a stub is the kernel's.
func (t *thread) testRun(n *notify.Notification, call request.Call) {
	l := &loading{thread: t, n: n}
	q, e := t.reader.ReadPlain(t.target, call)
	var stub *perform.Stub
	if e == 0 {
		if prog := q.File(int(int32(q.Field("prog_fd")))); prog != nil && prog.Kind == abi.Prog {
			stub, e = t.performer.OpenStub(prog.N, t.target, l.adopt)
		}
	} else {
		e = 0 // the kernel finds the same
	}
	there := t.listener.Waits(n)
	if there && stub != nil {
		e = l.run(q, stub)
	}
	l.close()
	t.drop()
	switch {
	case !there:
	case stub == nil && e == 0:
		t.listener.Continue(n)
	default:
		t.slot.Performed(0, e)
		t.listener.Answer(n, 0, e)
	}
}

// loading is one run of a loader. It is the loader's Env.
type loading struct {
	*thread
	n         *notify.Notification
	mem       *arena.Arena // of one call of the loader's
	reader    *request.Reader
	performer *perform.Performer
	shelf     int       // the first of its numbers
	fds       []fdState // of number shelf+i
	maps      []loader.Map
	mapFDs    []int // -1: has no value
}

type fdState uint8

const (
	closed fdState = iota
	ours           // the loader knows nothing of it
	open
)

// run is what bpf_prog_test_run_syscall does (net/bpf/test_run.c).
func (l *loading) run(q *request.Request, stub *perform.Stub) sys.Errno {
	for _, f := range []string{"data_in", "data_out", "ctx_out", "ctx_size_out", "duration", "repeat", "flags", "batch_size"} {
		if q.Field(f) != 0 {
			return sys.EINVAL
		}
	}
	size, in := q.Field("ctx_size_in"), q.Field("ctx_in")
	if (size == 0) != (in == 0) || size > maxCtx {
		return sys.EINVAL
	}
	prog, err := loader.Parse(stub.Insns)
	if err != nil {
		l.cfg.Ledger.Fault(fmt.Errorf("a program of type syscall is interpreted, and this one can't be: %w", err))
		return sys.EPERM
	}
	l.pool.pass(&l.member) // it takes long
	l.loaders <- struct{}{}
	defer func() { <-l.loaders }()
	before := make([]byte, size)
	if n, e := l.target.Read(in, before); n < len(before) {
		return fault(e)
	}
	l.reached(stepRead)
	l.mem = arena.New(l.budget)
	l.reader = request.NewReader(l.mem, l.cfg.Probes)
	l.performer = l.newPerformer(l.mem)
	if e := l.readValues(prog, stub); e != 0 {
		return e
	}
	ctx := bytes.Clone(before)
	l.slot.Calling()
	ret, err := prog.Run(ctx, l.maps, l)
	if err != nil {
		return l.failed(err)
	}
	if e := l.writeValues(); e != 0 {
		return e
	}
	l.slot.Begin() // the target's memory is next, which may not answer
	if e := l.handOver(before, ctx); e != 0 {
		return e
	}
	retval := q.Row.Field("retval")
	word := make([]byte, retval.Size)
	abi.Put(word, 0, retval.Size, uint64(ret))
	if n, e := l.target.Write(q.Addr+uint64(retval.Offset), word); n < len(word) {
		return fault(e)
	}
	if n, e := l.target.Write(in, ctx); n < len(ctx) {
		return fault(e)
	}
	return 0
}

// fault is the error of memory that isn't all there.
func fault(e sys.Errno) sys.Errno {
	if e == 0 {
		return sys.EFAULT
	}
	return e
}

// failed is the end of a loader that did what no verified program does, or too much.
func (l *loading) failed(err error) sys.Errno {
	if !errors.Is(err, loader.ErrContext) && !errors.Is(err, errGone) {
		l.cfg.Ledger.Fault(fmt.Errorf("loader run by thread %d: %w", l.n.TID, err))
	}
	return sys.EINVAL
}

// adopt moves an fd of ours to where it isn't in the way of the target's.
func (l *loading) adopt(fd int) (int, sys.Errno) {
	defer sys.Close(fd)
	if len(l.fds) == maxFDs {
		return -1, sys.EMFILE
	}
	if len(l.fds) == 0 {
		l.shelf = l.own.Shelf(maxFDs)
	}
	to := l.shelf + len(l.fds)
	if e := l.own.Put(&fd, to); e != 0 {
		return -1, e
	}
	l.fds = append(l.fds, ours)
	return to, 0
}

// make gives the loader an fd that was made for it.
func (l *loading) make(fd int) (int, sys.Errno) {
	n, e := l.adopt(fd)
	if e == 0 {
		l.fds[n-l.shelf] = open
	}
	return n, e
}

// has says whether n is an fd that the loader has.
func (l *loading) has(n int) bool {
	return n >= l.shelf && n < l.shelf+len(l.fds) && l.fds[n-l.shelf] == open
}

// close closes what the run has open here.
func (l *loading) close() {
	for i, s := range l.fds {
		if s != closed {
			sys.Close(l.shelf + i)
		}
	}
}

// readValues copies the values of the maps that the loader names: those that have one
// element alone, plain bytes.
func (l *loading) readValues(prog *loader.Program, stub *perform.Stub) sys.Errno {
	names := prog.Maps()
	sizes, total := make([]uint64, len(names)), uint64(0)
	l.maps, l.mapFDs = make([]loader.Map, len(names)), make([]int, len(names))
	for i := range names {
		l.mapFDs[i] = -1
		fd := stub.Map(i)
		shape, e := perform.ShapeOf(fd)
		if e != 0 || !shape.Single() {
			continue
		}
		l.mapFDs[i], sizes[i] = fd, shape.ValueSize
		if total += sizes[i]; total > maxValues {
			return sys.ENOMEM
		}
	}
	for i, fd := range l.mapFDs {
		if fd < 0 {
			continue
		}
		if first := slices.Index(l.mapFDs, fd); first < i { // named twice
			l.maps[i] = l.maps[first]
			continue
		}
		v := make([]byte, sizes[i])
		if perform.LookupElem(fd, zeroKey, v) != 0 {
			l.mapFDs[i] = -1 // may not be read
			continue
		}
		l.maps[i] = loader.Map{Value: v, Hash: sha256.Sum256(v)}
	}
	return 0
}

var zeroKey = make([]byte, 4)

// writeValues writes back those that the loader has changed.
func (l *loading) writeValues() sys.Errno {
	for i, m := range l.maps {
		if l.mapFDs[i] < 0 || slices.Index(l.mapFDs, l.mapFDs[i]) < i || sha256.Sum256(m.Value) == m.Hash {
			continue
		}
		if e := perform.UpdateElem(l.mapFDs[i], zeroKey, m.Value, 0); e != 0 {
			return e
		}
	}
	return 0
}

// handOver gives the target what the loader has left open, and puts the target's
// numbers where the loader has put ours into the context.
func (l *loading) handOver(before, ctx []byte) sys.Errno {
	const word = 4
	numbers := map[uint32]uint32{}
	for i, s := range l.fds {
		if s != open {
			continue
		}
		fd, e := l.listener.Install(l.n, l.shelf+i, true)
		if e != 0 {
			return e
		}
		numbers[uint32(l.shelf+i)] = uint32(fd)
	}
	for at := 0; at+word <= len(ctx); at += word {
		now := binary.LittleEndian.Uint32(ctx[at:])
		if fd, made := numbers[now]; made && now != binary.LittleEndian.Uint32(before[at:]) {
			binary.LittleEndian.PutUint32(ctx[at:], fd)
		}
	}
	return 0
}

// SysBPF implements loader.Env: the way of an operation, as thread.handle has it.
func (l *loading) SysBPF(cmd abi.Command, attr uint64, size uint32, mem *loader.Memory) (int, error) {
	defer l.mem.Reset()
	defer l.slot.Calling()
	l.slot.Begin()
	l.pad.Next()
	from := loaderTarget{l.target, l, mem}
	call := request.Call{Command: cmd, Addr: attr, Size: size}
	switch cmd {
	case abi.MapUpdateElem, abi.MapDeleteElem, abi.MapFreeze:
		q, e := l.reader.ReadPlain(from, call)
		if e == 0 {
			e = l.element(q, from)
		}
		l.dropTaken()
		return -int(e), l.gone()
	}
	q, e := l.reader.Read(from, call)
	defer l.dropTaken()
	if err := l.gone(); e != 0 || err != nil {
		return -int(e), err
	}
	f := l.facts(q, l.n)
	d := l.decide(q, f)
	defer l.unclaimed()
	l.pad.Decided(f, l.cfg.Policy.Name(), &d)
	if d.Verdict != policy.Allow {
		return -int(l.deny(from, q, f, &d)), nil
	}
	l.performer.Scoped, l.performer.Numbered = d.Scope == policy.ScopeWorkload, d.PIDs == policy.ScopeWorkload
	r := l.performer.Do(q, l.target, l.log(), nil)
	l.slot.Begin()
	fd := r.FD
	e = reply.Outputs(from, q, r)
	if e == 0 {
		e = r.Errno
	}
	l.slot.Object = ledger.Object{}
	if (l.pad != nil || l.claim.Kind != 0) && fd >= 0 && e == 0 {
		l.slot.Object = l.target.Describe(fd, q.Row.Returns.FD, true)
		l.made(q, l.slot.Object.ID)
	}
	l.ended(q, r, e, true)
	switch {
	case fd >= 0 && e == 0:
		fd, e = l.make(fd)
	case fd >= 0:
		sys.Close(fd)
	default:
		fd = r.Value
	}
	if e != 0 {
		return -int(e), l.gone()
	}
	return fd, l.gone()
}

var errGone = errors.New("the thread has ended, or was interrupted")

// gone ends the run of a target that isn't there any more: nothing that was read can be
// trusted to be its own.
func (l *loading) gone() error {
	if !l.listener.Waits(l.n) {
		return errGone
	}
	return nil
}

// dropTaken closes the target's files that a call of the loader's took.
func (l *loading) dropTaken() {
	l.target.Done()
	for _, f := range l.reader.Taken() {
		if f.N < l.shelf {
			l.target.Drop(f.N)
		}
	}
}

// element is a command on the elements of a map that the loader has an fd of, whose
// mode is all that the kernel asks for.
func (l *loading) element(q *request.Request, from loaderTarget) sys.Errno {
	fd := int(int32(q.Field("map_fd")))
	if f := q.File(fd); f == nil || f.Err != 0 {
		return sys.EBADF
	} else if f.Kind != abi.Map {
		return sys.EINVAL
	}
	if q.Command == abi.MapFreeze {
		return perform.Freeze(fd)
	}
	shape, e := perform.ShapeOf(fd)
	if e != 0 {
		return e
	}
	l.mem.Reserve(int64(shape.KeySize + shape.ValueSize))
	key := l.mem.Alloc(int(shape.KeySize))
	if key == nil {
		return sys.ENOMEM
	}
	if n, _ := from.loader.Read(q.Field("key"), key); n < len(key) {
		return sys.EFAULT
	}
	if q.Command == abi.MapDeleteElem {
		return perform.DeleteElem(fd, key)
	}
	value := l.mem.Alloc(int(shape.ValueSize))
	if value == nil {
		return sys.ENOMEM
	}
	if n, _ := from.loader.Read(q.Field("value"), value); n < len(value) {
		return sys.EFAULT
	}
	switch shape.Holds {
	case perform.Bytes:
	case perform.FDs:
		n := int(int32(abi.Uint(value, 0, 4)))
		if _, e := from.Take(n); e != 0 {
			return e
		}
		if n < l.shelf {
			defer l.target.Drop(n)
		}
	default:
		return sys.EOPNOTSUPP
	}
	return perform.UpdateElem(fd, key, value, q.Field("flags"))
}

// SysClose implements loader.Env. The target's own fds can't be closed from here.
func (l *loading) SysClose(fd int32) sys.Errno {
	if !l.has(int(fd)) {
		return sys.EBADF
	}
	l.fds[int(fd)-l.shelf] = closed
	sys.Close(int(fd))
	return 0
}

// BTFFind implements loader.Env.
func (l *loading) BTFFind(name string, kind uint32) (id uint32, fd int32, e sys.Errno) {
	defer l.mem.Reset()
	result := sys.ENOENT
	e = l.performer.KernelBTFs(l.target, func(btf int, types *loader.BTF) bool {
		found := false
		if id, found = types.Find(name, kind); !found {
			sys.Close(btf)
			return false
		}
		result = 0
		if !types.OfModule() {
			sys.Close(btf)
			return true
		}
		var n int
		n, result = l.make(btf)
		fd = int32(n)
		return true
	})
	if e != 0 {
		return 0, 0, e
	}
	return id, fd, result
}

// KallsymsLookup implements loader.Env.
func (l *loading) KallsymsLookup(string) (uint64, sys.Errno) { return 0, sys.EPERM }

// ReadUser implements loader.Env.
func (l *loading) ReadUser(addr uint64, p []byte) (int, sys.Errno) {
	l.slot.Begin()
	defer l.slot.Calling()
	return l.target.Read(addr, p)
}

// loaderTarget is the thread that runs a loader, with the loader's memory and fds beside
// its own.
type loaderTarget struct {
	*workload.Target
	run    *loading
	loader *loader.Memory
}

// Read implements request.Target.
func (t loaderTarget) Read(addr uint64, p []byte) (int, sys.Errno) {
	if t.loader.Has(addr) {
		return t.loader.Read(addr, p)
	}
	return t.Target.Read(addr, p)
}

// ReadAll implements request.Target.
func (t loaderTarget) ReadAll(segs []sys.Segment) bool {
	for _, s := range segs {
		if n, _ := t.Read(s.Addr, s.Data); n < len(s.Data) {
			return false
		}
	}
	return true
}

// Write implements reply.Memory.
func (t loaderTarget) Write(addr uint64, p []byte) (int, sys.Errno) {
	if t.loader.Has(addr) {
		return t.loader.Write(addr, p)
	}
	return t.Target.Write(addr, p)
}

// Take implements request.Target.
func (t loaderTarget) Take(n int) (abi.Object, sys.Errno) {
	switch {
	case t.run.has(n):
		k, e := sys.KindOf(n)
		return perform.ObjectOf(k), e
	case n >= t.run.shelf: // where ours are
		return 0, sys.EBADF
	}
	return t.Target.Take(n)
}
