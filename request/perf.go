package request

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Probes are the types, numbered by the running kernel, of the events whose
// config1 is an address: those of the PMUs "kprobe" and "uprobe".
type Probes map[uint32]abi.Probe

// KernelProbes asks the running kernel for them.
func KernelProbes() Probes {
	p := Probes{}
	for name, probe := range probeNames {
		if n, ok := sys.EventType(name); ok {
			p[n] = probe
		}
	}
	return p
}

var probeNames = map[string]abi.Probe{"kprobe": abi.Kprobe, "uprobe": abi.Uprobe}

// String writes them for ParseProbes.
func (p Probes) String() string {
	var out []string
	for n, probe := range p {
		for name, is := range probeNames {
			if is == probe {
				out = append(out, fmt.Sprintf("%s=%d", name, n))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// ParseProbes reads what String wrote.
func ParseProbes(s string) (Probes, error) {
	p := Probes{}
	for part := range strings.SplitSeq(s, ",") {
		name, number, _ := strings.Cut(part, "=")
		if part == "" {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		probe, known := probeNames[name]
		if err != nil || !known {
			return nil, fmt.Errorf("%q names no probe's number", part)
		}
		p[uint32(n)] = probe
	}
	return p, nil
}

// other copies the attribute of a call that isn't bpf().
func (r *Reader) other(t Target, q *Request) sys.Errno {
	if q.Attr = r.mem.Alloc(int(abi.AttrSize)); q.Attr == nil {
		return sys.ENOMEM
	}
	clear(q.Attr)
	for i, name := range q.Row.Args {
		if name != "" {
			q.Row.Field(name).Put(q.Attr, q.Args[i])
		}
	}
	switch q.Syscall {
	case abi.SyscallPerfEventOpen:
		return r.perfEvent(t, q)
	case abi.SyscallPerfQueryBPF:
		return r.perfQuery(t, q)
	}
	return 0
}

// perfQuery copies what is in memory. Where that can't be read, Size is 0 and there is
// no buffer: the kernel looks at the event before.
func (r *Reader) perfQuery(t Target, q *Request) sys.Errno {
	raw := r.raw[:abi.PerfQuerySize]
	n, e := t.Read(q.Addr, raw)
	if e != 0 && e != sys.EFAULT {
		return e
	}
	if n == len(raw) {
		copy(q.Attr, raw)
		q.Size = abi.PerfQuerySize
		q.Row.Field("ids").Put(q.Attr, q.Addr+abi.PerfQuerySize)
	}
	return 0
}

// perfEvent copies the attribute of perf_event_open() by the kernel's size rules (kernel/events/core.c, perf_copy_attr). What is wrong with
// a size is left to the kernel, which says in the attribute what it would take:
// Size is what the copy shall say.
func (r *Reader) perfEvent(t Target, q *Request) sys.Errno {
	row := q.Row
	if q.Field("flags")&^abi.PerfFlags != 0 {
		return 0 // the kernel says EINVAL before it looks at the attribute
	}
	raw := r.raw[:abi.PerfEventAttrMin]
	n, e := t.Read(q.Addr, raw)
	size := row.Field("size")
	if e != 0 && e != sys.EFAULT {
		return e
	}
	if n < int(size.Offset+size.Size) {
		return sys.EFAULT
	}
	q.Size = uint32(size.Uint(raw))
	size.Put(q.Attr, uint64(q.Size))
	want := int(q.Size)
	if want == 0 {
		want = abi.PerfEventAttrMin
	}
	if want < abi.PerfEventAttrMin || want > abi.PageSize {
		return 0
	}
	if n < len(raw) {
		return sys.EFAULT
	}
	if want > n {
		more := r.raw[n:want]
		if got, e := t.Read(q.Addr+uint64(n), more); got < len(more) {
			if e != 0 && e != sys.EFAULT {
				return e
			}
			return sys.EFAULT
		}
	}
	known := min(want, abi.PerfEventAttrSize)
	for _, b := range r.raw[known:want] {
		if b != 0 {
			q.Size = abi.PageSize + 1 // more than we know: too much
			return 0
		}
	}
	copy(q.Attr, r.raw[:known])
	q.Size = min(q.Size, abi.PerfEventAttrSize)
	row.Field("probe").Put(q.Attr, uint64(r.probes[uint32(row.Field("type").Uint(q.Attr))]))
	return 0
}
