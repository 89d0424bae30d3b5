package perform

import (
	"runtime"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// A program of a scope is loaded twice: as it is, which gives the answer and the log, and,
// if the verifier takes it, with a guard before it, which is what the workload gets. The
// first one was never anybody's, and is gone before the answer.

// guarded loads the program with its guard; plain is the one without, which it closes.
func (p *Performer) guarded(q *request.Request, r *Result, plain int) (int, sys.Errno) {
	defer sys.Close(plain)
	attr, e, why := p.guardedAttr(q, r)
	fd := 0
	if e == 0 {
		why = "it does load, but not with the guard before it that limits it to the workload's tasks"
		fd, e = call(abi.ProgLoad, attr, q.Row.LastEnd)
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

// guardedAttr is the attribute of the second load, or why there is none. It has no log,
// which was written, and no signature, which is of the program alone and was checked.
func (p *Performer) guardedAttr(q *request.Request, r *Result) (attr []byte, e sys.Errno, why string) {
	row := q.Row
	foreign, err := guard.Foreign(abi.ProgTypes.Name(q.Field("prog_type")), abi.AttachTypes.Name(q.Field("expected_attach_type")))
	if err != nil {
		return nil, sys.EPERM, err.Error()
	}
	if !p.Guard.Known() {
		return nil, sys.EPERM, "the workload's cgroup isn't known"
	}
	plain := guard.Program{Insns: q.Buffer("insns").Data}
	need := len(plain.Insns) + guard.Size
	for _, t := range told {
		n, size := q.Field(t.prefix+"_cnt"), q.Field(t.prefix+"_rec_size")
		b := q.Buffer(t.pointer)
		if n == 0 || b == nil {
			continue
		}
		if b.Fault || uint64(len(b.Data)) != n*size {
			return nil, sys.EPERM, "what it says of its instructions wasn't read whole"
		}
		*t.of(&plain) = guard.Records{Data: b.Data, Size: int(size)}
		need += len(b.Data)
	}
	room := p.mem.Alloc(need)
	if attr = p.mem.Alloc(sys.AttrRoom); room == nil || attr == nil {
		return nil, sys.ENOMEM, "there is no memory for it"
	}
	g, err := p.Guard.Guard(&plain, foreign, room)
	if err != nil {
		return nil, sys.EPERM, err.Error()
	}
	copy(attr, r.Attr)
	row.Field("insns").Put(attr, sys.Addr(g.Insns))
	row.Field("insn_cnt").Put(attr, uint64(len(g.Insns)/guard.InsnSize))
	for _, t := range told {
		if of := t.of(g); len(of.Data) > 0 {
			row.Field(t.pointer).Put(attr, sys.Addr(of.Data))
		}
	}
	for _, none := range []string{"log_level", "log_size", "log_buf", "log_true_size", "signature", "signature_size", "keyring_id"} {
		row.Field(none).Put(attr, 0)
	}
	return attr, 0, ""
}

// unguard shows of a guarded program what there is without the guard: its instructions and
// where its functions and lines are. (The tag and the number of verified instructions are
// those of the whole, and so is the machine's code.)
func (p *Performer) unguard(q *request.Request, r *Result) {
	if q.Info != &abi.ProgInfo || r.Errno != 0 || !p.Guard.Known() {
		return
	}
	length := abi.ProgInfo.Field("xlated_prog_len")
	var info, shown []byte
	for i := range q.Buffers {
		switch b := &q.Buffers[i]; {
		case b.Parent == request.NoParent:
			info = r.Out[i]
		case b.Field.Name == "xlated_prog_insns":
			shown = r.Out[i]
		}
	}
	if uint32(len(info)) < length.Offset+length.Size {
		return
	}
	whole := length.Uint(info)
	if whole < guard.Size {
		return
	}
	fd, begin := int(int32(q.Field("bpf_fd"))), shown
	if len(begin) < guard.Size {
		if begin = make([]byte, guard.Size); !shownInsns(fd, begin) {
			return
		}
	}
	if !p.Guard.Begins(begin) {
		return
	}
	insns := p.mem.Alloc(int(min(whole, uint64(len(shown))+guard.Size)))
	if insns == nil || !shownInsns(fd, insns) {
		return
	}
	length.Put(info, whole-guard.Size)
	for i := range q.Buffers {
		b, out := &q.Buffers[i], r.Out[i]
		if b.Parent == request.NoParent || len(out) == 0 {
			continue
		}
		switch b.Field.Name {
		case "xlated_prog_insns":
			copy(out, insns[guard.Size:])
		case "func_info", "line_info":
			size := int(abi.ProgInfo.Field(b.Field.Name + "_rec_size").Uint(info))
			if size > 0 {
				of := guard.Records{Data: out[:len(out)/size*size], Size: size}
				of.Back()
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
