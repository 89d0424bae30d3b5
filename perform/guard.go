package perform

import (
	"encoding/binary"
	"runtime"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// A program of a scope is loaded twice: as it is, which gives the answer and the log, and,
// if the verifier takes it, with a guard before it, which is what the workload gets. The
// first one was never anybody's, and is gone before the answer. What the kernel says of it
// that it can't say of the other one, the guard has in it.

// guarded loads the program with its guard; plain is the one without, which it closes.
func (p *Performer) guarded(q *request.Request, r *Result, plain int) (int, sys.Errno) {
	defer sys.Close(plain)
	attr, e, why := p.guardedAttr(q, r, plain)
	fd := 0
	if e == 0 {
		why = "it does load, but not with the guard before it that limits it to the workload's tasks"
		fd, e = call(abi.ProgLoad, attr, q.Row.LastEnd)
	}
	if e == 0 {
		if o, e := original(fd); e == 0 {
			r.Tag = binary.BigEndian.Uint64(o.Tag[:])
		}
	}
	if e != 0 && Logs(q) {
		writeLog(q, r, "bpfbroker: the program isn't handed out: "+why+"\n")
	}
	return fd, e
}

// told is what BPF_PROG_LOAD is told of a program's instructions: the pointer's field, what
// those of the number and the size of records begin with, and where a guard has them.
var told = [...]struct {
	pointer, prefix string
	of              func(*guard.Program) *guard.Records
}{
	{"func_info", "func_info", func(p *guard.Program) *guard.Records { return &p.FuncInfo }},
	{"line_info", "line_info", func(p *guard.Program) *guard.Records { return &p.LineInfo }},
	{"core_relos", "core_relo", func(p *guard.Program) *guard.Records { return &p.CoreRelos }},
}

// guardedAttr is the attribute of the second load, or why there is none.
func (p *Performer) guardedAttr(q *request.Request, r *Result, plain int) (attr []byte, e sys.Errno, why string) {
	row := q.Row
	foreign, err := guard.Foreign(abi.ProgTypes.Name(q.Field("prog_type")), abi.AttachTypes.Name(q.Field("expected_attach_type")))
	switch {
	case err != nil:
		return nil, sys.EPERM, err.Error()
	case !p.Guard.Known():
		return nil, sys.EPERM, "the workload's cgroup isn't known"
	case p.Numbered && p.IDs.Unusable() != "":
		return nil, sys.EPERM, p.IDs.Unusable()
	}
	prog := guard.Program{Insns: q.Buffer("insns").Data}
	for _, t := range told {
		n, size := q.Field(t.prefix+"_cnt"), q.Field(t.prefix+"_rec_size")
		b := q.Buffer(t.pointer)
		if n == 0 || b == nil {
			continue
		}
		if b.Fault || uint64(len(b.Data)) != n*size {
			return nil, sys.EPERM, "what it says of its instructions wasn't read whole"
		}
		*t.of(&prog) = guard.Records{Data: b.Data, Size: int(size)}
	}
	g := guard.Guard{Scope: p.Guard, Foreign: foreign}
	if g.Original, e = original(plain); e != 0 {
		return nil, e, "the kernel doesn't say what it is"
	}
	if p.Numbered {
		g.IDs = p.IDs
	}
	if g.IDs.NeedsDepths(prog.Insns) {
		if g.Depths, e, why = p.depths(q, r); e != 0 {
			return nil, e, why
		}
	}
	made, err := g.Program(&prog, p.mem.Alloc)
	if err != nil {
		return nil, sys.EPERM, err.Error()
	}
	if attr = p.unlogged(r); attr == nil {
		return nil, sys.ENOMEM, "there is no memory for it"
	}
	row.Field("insns").Put(attr, sys.Addr(made.Insns))
	row.Field("insn_cnt").Put(attr, uint64(len(made.Insns)/guard.InsnSize))
	for _, t := range told {
		if of := t.of(made); len(of.Data) > 0 {
			row.Field(t.pointer).Put(attr, sys.Addr(of.Data))
		}
	}
	return attr, 0, ""
}

// unlogged is the attribute of a load again, without a log, which was written, and without
// a signature, which is of the program alone and was checked.
func (p *Performer) unlogged(r *Result) []byte {
	attr := p.mem.Alloc(sys.AttrRoom)
	if attr == nil {
		return nil
	}
	copy(attr, r.Attr)
	for _, none := range []string{"log_level", "log_size", "log_buf", "log_true_size", "signature", "signature_size", "keyring_id"} {
		abi.RowOf(abi.ProgLoad).Field(none).Put(attr, 0)
	}
	return attr
}

// depths has the verifier say what the program's functions use of their stacks.
func (p *Performer) depths(q *request.Request, r *Result) ([]int, sys.Errno, string) {
	const room, stats = 8 << 10, 4 // bytes; BPF_LOG_STATS, a few lines
	attr, log := p.unlogged(r), p.mem.Alloc(room)
	if attr == nil || log == nil {
		return nil, sys.ENOMEM, "there is no memory for it"
	}
	q.Row.Field("log_level").Put(attr, stats)
	q.Row.Field("log_size").Put(attr, room)
	q.Row.Field("log_buf").Put(attr, sys.Addr(log))
	fd, e := call(abi.ProgLoad, attr, q.Row.LastEnd)
	if e != 0 {
		return nil, e, "it does load, but not a second time"
	}
	sys.Close(fd)
	text, _, _ := strings.Cut(string(log), "\x00")
	depths, err := guard.StackDepths(text)
	if err != nil {
		return nil, sys.EPERM, err.Error()
	}
	return depths, 0, ""
}

// original is what the kernel says of the program at fd, before somebody edits it or after.
func original(fd int) (o guard.Original, e sys.Errno) {
	info := make([]byte, abi.ProgInfo.Size)
	if e := ObjectInfo(fd, info); e != 0 {
		return o, e
	}
	copy(o.Tag[:], info[abi.ProgInfo.Field("tag").Offset:])
	o.Verified = uint32(abi.ProgInfo.Field("verified_insns").Uint(info))
	return o, 0
}

// unguard shows of a guarded program what the kernel would show of it as it was: its
// instructions, where its functions and lines are, its tag, how many instructions were
// verified. (The machine's code is of the whole.)
func (p *Performer) unguard(q *request.Request, r *Result) {
	if q.Info != &abi.ProgInfo || r.Errno != 0 || !p.Guard.Known() {
		return
	}
	length := abi.ProgInfo.Field("xlated_prog_len")
	var info, out []byte
	for i := range q.Buffers {
		switch b := &q.Buffers[i]; {
		case b.Parent == request.NoParent:
			info = r.Out[i]
		case b.Field.Name == "xlated_prog_insns":
			out = r.Out[i]
		}
	}
	if uint32(len(info)) < length.Offset+length.Size {
		return
	}
	fd := int(int32(q.Field("bpf_fd")))
	begin := out
	if len(begin) < guard.Size {
		if begin = make([]byte, guard.Size); !shownInsns(fd, begin) {
			return
		}
	}
	if _, is := p.Guard.Begins(begin); !is {
		return
	}
	whole := p.mem.Alloc(int(length.Uint(info)))
	if whole == nil || !shownInsns(fd, whole) {
		return
	}
	shown, is := p.Guard.Undo(whole, p.IDs)
	if !is {
		return
	}
	insns, err := shown.Insns(whole)
	if err != nil {
		return
	}
	length.Put(info, uint64(len(insns)))
	tag, verified := abi.ProgInfo.Field("tag"), abi.ProgInfo.Field("verified_insns")
	copy(info[tag.Offset:], shown.Tag[:])
	if uint32(len(info)) >= verified.Offset+verified.Size {
		verified.Put(info, uint64(shown.Verified))
	}
	for i := range q.Buffers {
		b, out := &q.Buffers[i], r.Out[i]
		if b.Parent == request.NoParent || len(out) == 0 {
			continue
		}
		switch b.Field.Name {
		case "xlated_prog_insns":
			copy(out, insns)
		case "func_info", "line_info":
			size := int(abi.ProgInfo.Field(b.Field.Name + "_rec_size").Uint(info))
			if size > 0 {
				shown.Records(&guard.Records{Data: out[:len(out)/size*size], Size: size})
			}
		}
	}
}

// shownInsns asks the kernel for the first instructions of the program at fd.
func shownInsns(fd int, insns []byte) bool {
	info := make([]byte, abi.ProgInfo.Size)
	length, at := abi.ProgInfo.Field("xlated_prog_len"), abi.ProgInfo.Field("xlated_prog_insns")
	length.Put(info, uint64(len(insns)))
	at.Put(info, sys.Addr(insns))
	e := ObjectInfo(fd, info)
	runtime.KeepAlive(insns)
	return e == 0 && at.Uint(info) != 0
}
