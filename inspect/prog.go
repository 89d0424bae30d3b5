package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/digest"
)

// fSleepable is BPF_F_SLEEPABLE, in prog_flags.
const fSleepable = 1 << 4

func (i *Inspector) progLoad() {
	q, p := i.q, &i.f.Prog
	p.AttachType = progAttachType(p.Type, q.Field("expected_attach_type"))
	p.Sleepable = q.Field("prog_flags")&fSleepable != 0
	p.Signed = q.Field("signature") != 0
	if !i.needs.Any("prog.") {
		return
	}
	i.progCalls()
	if i.wants("prog.map_types") || i.wants("prog.map_ids") || i.wants("prog.foreign_map_ids") {
		i.progMaps()
	}
	if i.needs.Any("prog.target") {
		i.progTarget()
	}
	if i.wants("prog.digest") {
		i.progDigest()
	}
}

// progAttachType is the attach type that a program of that type expects. 0 is one only
// for types that have it, or for which the kernel takes it for another
// (kernel/bpf/syscall.c, bpf_prog_load_fixup_attach_type); of a struct_ops it is a
// member's number.
func progAttachType(prog string, expected uint64) string {
	switch {
	case prog == "struct_ops":
		return ""
	case expected != 0:
		return abi.AttachTypes.Name(expected)
	case prog == "cgroup_skb":
		return "cgroup_inet_ingress"
	case prog == "cgroup_sock":
		return "cgroup_inet_sock_create"
	case prog == "sk_reuseport":
		return "sk_reuseport_select"
	}
	return ""
}

// insns are the program's instructions; nil: they can't be looked at.
func (i *Inspector) insns() []byte {
	if b := i.q.Buffer("insns"); b != nil && !b.Fault {
		return b.Data
	}
	return nil
}

const noInsns = "the instructions can't be read"

func (i *Inspector) progCalls() {
	helpers, kfuncs := i.wants("prog.helpers"), i.wants("prog.kfuncs")
	stacks := i.wants("prog.kernel_stacks")
	if !helpers && !kfuncs && !stacks {
		return
	}
	insns, c := i.insns(), &i.calls
	if insns == nil {
		i.unknown("prog.helpers", noInsns)
		i.unknown("prog.kfuncs", noInsns)
		i.unknown("prog.kernel_stacks", noInsns)
		return
	}
	c.scan(insns)
	if stacks {
		for id := range stackHelpers {
			if c.helpers[id] {
				i.f.Prog.KernelStacks = kernelStacks(insns)
				break
			}
		}
	}
	if helpers {
		i.helpers = i.helpers[:0]
		for id, called := range c.helpers {
			if called {
				i.helpers = append(i.helpers, HelperName(int32(id)))
			}
		}
		for _, id := range c.strange {
			i.helpers = append(i.helpers, HelperName(id))
		}
		slices.Sort(i.helpers)
		i.f.Prog.Helpers = i.helpers
		if c.tooStrange {
			i.unknown("prog.helpers", fmt.Sprintf("it calls more than %d that aren't known", maxStrange))
		}
	}
	if kfuncs {
		i.progKfuncs()
	}
}

func (i *Inspector) progKfuncs() {
	const fact = "prog.kfuncs"
	i.kfuncs = i.kfuncs[:0]
	for _, k := range i.calls.kfuncs {
		btf, err := i.kfuncBTF(k.index)
		var name string
		if err == nil {
			name, err = i.at.TypeName(btf, uint32(k.id))
		}
		if err != nil {
			i.unknown(fact, fmt.Sprintf("the function with BTF id %d: %v", k.id, err))
			break
		}
		i.kfuncs = append(i.kfuncs, name)
	}
	slices.Sort(i.kfuncs)
	i.kfuncs = slices.Compact(i.kfuncs) // two modules may have one of that name
	i.f.Prog.Kfuncs = i.kfuncs
	if i.calls.tooManyKfuncs {
		i.unknown(fact, fmt.Sprintf("it calls more than %d", maxKfuncs))
	}
}

// kfuncBTF is the fd of the BTF that an index of fd_array names, for Place.TypeName.
func (i *Inspector) kfuncBTF(index int16) (int, error) {
	if index == 0 {
		return KernelBTF, nil
	}
	array := i.q.Buffer("fd_array")
	if index < 0 || array == nil || array.Fault || 4*int(index)+4 > len(array.Data) {
		return 0, fmt.Errorf("fd_array has no index %d", index)
	}
	fd := int(int32(abi.Uint(array.Data, 4*uint32(index), 4)))
	return fd, i.is(fd, abi.BTF)
}

// is says, by an error, that fd n isn't of that kind.
func (i *Inspector) is(n int, kind abi.Object) error {
	if f := i.q.File(n); f == nil || f.Kind&kind == 0 {
		return fmt.Errorf("fd %d is no %v", n, kind)
	}
	return nil
}

// progMaps lists the maps among the files: those that instructions and fd_array name.
func (i *Inspector) progMaps() {
	p := &i.f.Prog
	i.mapTypes, i.mapIDs = i.mapTypes[:0], i.mapIDs[:0]
	for _, f := range i.q.Files {
		if f.Kind != abi.Map {
			continue
		}
		typ, id, err := i.mapInfo(f.N)
		if err != nil {
			i.unknown("prog.map_types", err.Error())
			i.unknown("prog.map_ids", err.Error())
			i.unknown("prog.foreign_map_ids", err.Error())
			break
		}
		i.mapTypes, i.mapIDs = append(i.mapTypes, typ), append(i.mapIDs, id)
	}
	slices.Sort(i.mapTypes)
	slices.Sort(i.mapIDs)
	i.mapTypes, i.mapIDs = slices.Compact(i.mapTypes), slices.Compact(i.mapIDs)
	p.MapTypes, p.MapIDs = i.mapTypes, i.mapIDs
	if i.wants("prog.foreign_map_ids") {
		i.foreignMaps()
	}
}

// foreignMaps finds out which of the program's maps are neither the workload's nor
// shared with it.
func (i *Inspector) foreignMaps() {
	i.foreignMapIDs = i.foreignMapIDs[:0]
	for _, id := range i.mapIDs {
		own, shared, err := i.at.Owns(abi.Map, uint32(id))
		if !i.found("prog.foreign_map_ids", err) {
			return
		}
		if !own && !shared {
			i.foreignMapIDs = append(i.foreignMapIDs, id)
		}
	}
	i.f.Prog.ForeignMapIDs = i.foreignMapIDs
}

func (i *Inspector) mapInfo(n int) (typ string, id int64, err error) {
	l := &abi.MapInfo
	if err := i.ask(n, "id", l); err != nil {
		return "", 0, err
	}
	t := l.Field("type")
	return t.Values.Name(t.Uint(i.info[:])), id32(l.Field("id").Uint(i.info[:])), nil
}

// ask asks the kernel for the info of the object at fd n, up to a field.
func (i *Inspector) ask(n int, upTo string, l *abi.Layout) error {
	f := l.Field(upTo)
	clear(i.info[:])
	if e := i.at.ObjectInfo(n, i.info[:f.Offset+f.Size]); e != 0 {
		return fmt.Errorf("look at fd %d: %w", n, e)
	}
	return nil
}

// progTarget finds out what the program names by attach_btf_id (kernel/bpf/syscall.c,
// bpf_prog_load).
func (i *Inspector) progTarget() {
	q, t := i.q, &i.f.Prog.Target
	id := uint32(q.Field("attach_btf_id"))
	if id == 0 {
		return
	}
	n := int(int32(q.Field("attach_prog_fd"))) // or attach_btf_obj_fd, at the same place
	var name string
	var err error
	f := q.File(n)
	switch {
	case n == 0:
		t.Kind = "kernel"
		name, err = i.at.TypeName(KernelBTF, id)
	case f != nil && f.Kind == abi.Prog:
		t.Kind = "program"
		if e := i.ask(n, "id", &abi.ProgInfo); e != nil {
			i.unknown("prog.target_prog", e.Error())
		} else {
			t.Prog = id32(abi.ProgInfo.Field("id").Uint(i.info[:]))
		}
		name, err = i.at.ProgTypeName(n, id)
	case f != nil && f.Kind == abi.BTF:
		var of string
		if of, err = i.at.BTFName(n); err == nil && of == "" {
			err = errors.New("its BTF isn't the kernel's")
		}
		if err != nil {
			i.unknown("prog.target_kind", err.Error())
			i.unknown("prog.target_module", err.Error())
			break
		}
		if of == kernelBTF {
			t.Kind, n = "kernel", KernelBTF
		} else {
			t.Kind, t.Module = "module", of
		}
		name, err = i.at.TypeName(n, id)
	default:
		err = fmt.Errorf("fd %d is no program or BTF", n)
		i.unknown("prog.target_kind", err.Error())
	}
	if err != nil {
		i.unknown("prog.target", err.Error())
		return
	}
	t.Name = targetName(i.f.Prog.AttachType, name)
}

// kernelBTF is the name of the kernel's own BTF.
const kernelBTF = "vmlinux"

// targetName takes from a type's name what says what it is for: a tracepoint's typedef is
// btf_trace_NAME, an iterator's function bpf_iter_NAME.
func targetName(attachType, name string) string {
	switch attachType {
	case "trace_raw_tp":
		return strings.TrimPrefix(name, "btf_trace_")
	case "trace_iter":
		return strings.TrimPrefix(name, "bpf_iter_")
	}
	return name
}

func (i *Inspector) progDigest() {
	const fact = "prog.digest"
	p := digest.Program{Insns: i.insns()}
	if p.Insns == nil {
		i.unknown(fact, noInsns)
		return
	}
	if i.q.Field("core_relo_cnt") != 0 {
		i.unknown(fact, "the kernel relocates the instructions (core_relos): what is run differs from what is loaded")
		return
	}
	if array := i.q.Buffer("fd_array"); array != nil && !array.Fault {
		p.FDArray = array.Data
	}
	var failed error
	p.BTFName = func(fd int32) string {
		err := i.is(int(fd), abi.BTF)
		name := ""
		if err == nil {
			name, err = i.at.BTFName(int(fd))
		}
		if err != nil {
			failed = err
		}
		return name
	}
	sum := digest.Of(&p)
	if i.found(fact, failed) {
		i.f.Prog.Digest = sum.String()
	}
}
