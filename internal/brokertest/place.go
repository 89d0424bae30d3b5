package brokertest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Place is an inspect.Place that is made up: what isn't in it can't be found out.
type Place struct {
	Infos       map[int][]byte // by fd: what the kernel says of the object
	BTFs        map[int]string // by fd: the name
	Types       map[Type]string
	ProgTypes   map[Type]string
	Owned       map[abi.Object][]uint32
	SharedIDs   map[abi.Object][]uint32
	Pins        map[string]Pin
	CgroupPaths map[int]string
	Inside      map[int]bool
	Ifnames     map[uint32]string
	NetNSs      map[int]bool // -1: the caller's
	Files       map[string]File
	PIDs        map[uint32]bool
	Tracepoints map[uint64]string
	Process     *facts.Workload
	Held        *facts.Counts

	Asked int // how often it was asked anything
}

// Type is a type of the BTF at fd BTF, or of the kernel's, -1.
type Type struct {
	BTF int
	ID  uint32
}

// Pin is what is pinned at a path: an object whose Infos are those of an fd.
type Pin struct {
	Kind abi.Object
	FD   int
}

// File is what a path leads to.
type File struct {
	Name   string
	Shared bool
}

var errNotThere = errors.New("not there")

func look[K comparable, V any](p *Place, m map[K]V, k K) (V, error) {
	p.Asked++
	v, ok := m[k]
	if !ok {
		return v, fmt.Errorf("%v: %w", k, errNotThere)
	}
	return v, nil
}

// ObjectInfo implements inspect.Place.
func (p *Place) ObjectInfo(n int, info []byte) sys.Errno {
	b, err := look(p, p.Infos, n)
	if err != nil {
		return sys.EBADF
	}
	copy(info, b)
	return 0
}

// BTFName implements inspect.Place.
func (p *Place) BTFName(n int) (string, error) { return look(p, p.BTFs, n) }

// TypeName implements inspect.Place.
func (p *Place) TypeName(n int, id uint32) (string, error) { return look(p, p.Types, Type{n, id}) }

// ProgTypeName implements inspect.Place.
func (p *Place) ProgTypeName(n int, id uint32) (string, error) {
	return look(p, p.ProgTypes, Type{n, id})
}

// Owns implements inspect.Place.
func (p *Place) Owns(kind abi.Object, id uint32) (own, shared bool, err error) {
	ids, err := look(p, p.Owned, kind)
	if own = slices.Contains(ids, id); own {
		return true, false, nil
	}
	if shared = slices.Contains(p.SharedIDs[kind], id); shared {
		return false, true, nil
	}
	return false, false, err
}

// Pinned implements inspect.Place.
func (p *Place) Pinned(_ int, path []byte, _ uint32) (abi.Object, int, sys.Errno) {
	pin, err := look(p, p.Pins, string(path))
	if err != nil {
		return 0, -1, sys.ENOENT
	}
	return pin.Kind, pin.FD, 0
}

// CgroupPath implements inspect.Place.
func (p *Place) CgroupPath(n int) (string, error) { return look(p, p.CgroupPaths, n) }

// CgroupInside implements inspect.Place.
func (p *Place) CgroupInside(n int) (bool, error) { return look(p, p.Inside, n) }

// Ifname implements inspect.Place.
func (p *Place) Ifname(index uint32) (string, error) { return look(p, p.Ifnames, index) }

// NetNSOwn implements inspect.Place.
func (p *Place) NetNSOwn(n int) (bool, error) { return look(p, p.NetNSs, n) }

// FileName implements inspect.Place.
func (p *Place) FileName(path []byte) (string, error) {
	f, err := look(p, p.Files, string(path))
	return f.Name, err
}

// FileShared implements inspect.Place.
func (p *Place) FileShared(path []byte) (bool, error) {
	f, err := look(p, p.Files, string(path))
	return f.Shared, err
}

// PIDOwn implements inspect.Place.
func (p *Place) PIDOwn(pid uint32) (bool, error) { return look(p, p.PIDs, pid) }

// Tracepoint implements inspect.Place.
func (p *Place) Tracepoint(id uint64) (string, error) { return look(p, p.Tracepoints, id) }

func (p *Place) process() (facts.Workload, error) {
	p.Asked++
	if p.Process == nil {
		return facts.Workload{}, errNotThere
	}
	return *p.Process, nil
}

// PID implements inspect.Place.
func (p *Place) PID() (int64, error) { w, err := p.process(); return w.PID, err }

// Comm implements inspect.Place.
func (p *Place) Comm() (string, error) { w, err := p.process(); return w.Comm, err }

// Exe implements inspect.Place.
func (p *Place) Exe() (string, error) { w, err := p.process(); return w.Exe, err }

// Argv implements inspect.Place.
func (p *Place) Argv() ([]string, error) { w, err := p.process(); return w.Argv, err }

// Counts implements inspect.Place.
func (p *Place) Counts() (facts.Counts, error) {
	p.Asked++
	if p.Held == nil {
		return facts.Counts{}, errNotThere
	}
	return *p.Held, nil
}
