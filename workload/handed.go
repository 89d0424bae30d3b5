package workload

import (
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/perform"
)

// An fd that is handed over sits in the target's table before the call is answered.
// If the worker is killed in between, the next one has to find it: a second one
// would leak the first, and a link made twice may be refused.

// Describe says how the object at fd, ours, is found in the target's table: by its
// id, and by which of the target's fds it can't be. fresh says that it was just
// made, so that nobody has an fd of it. kind is its kind, if there is only one that it
// can be.
func (t *Target) Describe(fd int, kind abi.Object, fresh bool) ledger.Object {
	o := ledger.Object{Kind: kind}
	if fresh && (kind == abi.Map || kind == abi.Prog || kind == abi.Link || kind == abi.BTF) {
		o.ID = uint64(perform.ObjectID(kind, fd)) // needn't be asked what it is
		return o
	}
	k, e := sys.KindOf(fd)
	if o.Kind = kinds[k]; e != 0 || o.Kind == 0 {
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
	have, e := t.find(k, o.ID)
	if e != 0 {
		o.Many = 1 // it couldn't be told from the others
	}
	for i, n := range have {
		if i == len(o.Known) {
			o.Many = 1
			break
		}
		o.Known[i] = int32(n) + 1
	}
	return o
}

// Handed looks for an fd of the object in the target's table that it hadn't
// before; false: there is none, or it can't be told.
func (t *Target) Handed(o ledger.Object) (int, bool) {
	if o.Kind == 0 || o.Many != 0 {
		return -1, false
	}
	for k, kind := range kinds {
		if kind != o.Kind {
			continue
		}
		have, e := t.find(k, o.ID)
		if e != 0 {
			return -1, false
		}
		for _, n := range have {
			if !slices.Contains(o.Known[:], int32(n)+1) {
				return n, true
			}
		}
	}
	return -1, false
}

func (t *Target) find(k sys.FileKind, id uint64) ([]int, sys.Errno) {
	if e := t.open(); e != 0 {
		return nil, e
	}
	return sys.FindFDs(t.tid, k, id, func(n int) bool {
		if id == 0 {
			return true
		}
		fd, e := sys.PidfdGetFD(t.pidfd, n)
		if e != 0 {
			return false
		}
		defer sys.Close(fd)
		return sys.PerfEventID(fd) == id
	})
}
