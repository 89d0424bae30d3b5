package workload

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/perform"
)

// An fd that is handed over sits in the target's table before the call is answered.
// If the worker is killed in between, the next one has to find it: a second one
// would leak the first, and a link made twice may be refused.

// Describe says how the object at fd, ours, is found in the target's table. fresh
// says that it was just made, so that nobody has an fd of it: then its id tells.
// Else the target may have others, and other calls may give it others just now: the
// open file is marked, until Unmark. kind is its kind, if there is only one that it
// can be.
func (t *Target) Describe(fd int, kind abi.Object, fresh bool) ledger.Object {
	o := ledger.Object{Kind: kind}
	if fresh && (kind == abi.Map || kind == abi.Prog || kind == abi.Link || kind == abi.BTF) {
		o.ID = uint64(perform.ObjectID(kind, fd)) // needn't be asked what it is
		return o
	}
	k, e := sys.KindOf(fd)
	if o.Kind = perform.ObjectOf(k); e != 0 || o.Kind == 0 {
		return ledger.Object{}
	}
	switch o.Kind {
	case abi.Map, abi.Prog, abi.Link, abi.BTF:
		o.ID = uint64(perform.ObjectID(o.Kind, fd))
	case abi.PerfEvent:
		o.ID = sys.PerfEventID(fd)
	}
	if fresh && o.ID != 0 {
		return o
	}
	// Calls that are under way at once have cookies in a row.
	o.Mark = uint32(1 + t.n.Cookie%sys.Marks)
	if sys.Mark(fd, int(o.Mark)) != 0 {
		return ledger.Object{}
	}
	return o
}

// Unmark takes the mark from the object at fd, ours.
func Unmark(fd int, o ledger.Object) {
	if o.Mark != 0 {
		_ = sys.Mark(fd, 0) // it could be set, so it can be taken away
	}
}

// Handed looks for the fd of the object in the target's table; false: there is none,
// or it can't be told.
func (t *Target) Handed(o ledger.Object) (int, bool) {
	if o.Kind == 0 || t.open() != 0 {
		return -1, false
	}
	have, e := sys.FindFDs(t.tid, perform.FileKindOf(o.Kind), o.ID, func(n int) bool { return t.is(n, o) })
	if e != 0 || len(have) == 0 {
		return -1, false
	}
	return have[0], true
}

// Settle takes the mark from fd n of the target, which was handed over.
func (t *Target) Settle(n int, o ledger.Object) {
	if o.Mark == 0 || t.open() != 0 {
		return
	}
	if fd, e := sys.PidfdGetFD(t.pidfd, n); e == 0 {
		if sys.MarkOf(fd) == int(o.Mark) {
			Unmark(fd, o)
		}
		sys.Close(fd)
	}
}

// is says whether fd n of the target is the one that was handed over.
func (t *Target) is(n int, o ledger.Object) bool {
	if o.Mark == 0 && o.Kind != abi.PerfEvent {
		return true
	}
	fd, e := sys.PidfdGetFD(t.pidfd, n)
	if e != 0 {
		return false
	}
	defer sys.Close(fd)
	return (o.Kind != abi.PerfEvent || sys.PerfEventID(fd) == o.ID) && (o.Mark == 0 || sys.MarkOf(fd) == int(o.Mark))
}
