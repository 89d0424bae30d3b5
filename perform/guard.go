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
	attr, no := p.guardedAttr(q, r)
	if no != (refusal{}) {
		return no.fail(p, q, r)
	}
	fd, errno := load(attr)
	if errno != 0 {
		return refusal{errno, "it does load, but not with the guard before it that limits it to the workload's tasks"}.fail(p, q, r)
	}
	return fd, 0
}

func load(attr []byte) (int, sys.Errno) {
	row := abi.RowOf(abi.ProgLoad)
	fd, e := sys.BPF(uint32(abi.ProgLoad), attr, row.LastEnd)
	for tries := 0; e == sys.EAGAIN && tries < maxStops; tries++ {
		fd, e = sys.BPF(uint32(abi.ProgLoad), attr, row.LastEnd)
	}
	return fd, e
}

// guardedAttr is the attribute of the second load. It has no log, which was written, and no
// signature, which is of the program alone and was checked.
func (p *Performer) guardedAttr(q *request.Request, r *Result) (attr []byte, no refusal) {
	row := q.Row
	no.errno = sys.EPERM
	foreign, err := guard.Foreign(abi.ProgTypes.Name(q.Field("prog_type")), abi.AttachTypes.Name(q.Field("expected_attach_type")))
	if err != nil {
		no.why = err.Error()
		return nil, no
	}
	if !p.Guard.Known() {
		no.why = "the workload's cgroup isn't known"
		return nil, no
	}
	plain := guard.Program{Insns: q.Buffer("insns").Data}
	records := []struct {
		what string
		of   *guard.Records
	}{{"func_info", &plain.FuncInfo}, {"line_info", &plain.LineInfo}, {"core_relo", &plain.CoreRelos}}
	pointer := func(what string) string {
		if what == "core_relo" {
			return "core_relos"
		}
		return what
	}
	need := len(plain.Insns) + guard.Size
	for _, f := range records {
		n, size := q.Field(f.what+"_cnt"), q.Field(f.what+"_rec_size")
		b := q.Buffer(pointer(f.what))
		if n == 0 || b == nil {
			continue
		}
		if b.Fault || uint64(len(b.Data)) != n*size {
			no.why = "what it says of its instructions wasn't read whole"
			return nil, no
		}
		*f.of = guard.Records{Data: b.Data, Size: int(size)}
		need += len(b.Data)
	}
	room := p.mem.Alloc(need)
	if attr = p.mem.Alloc(sys.AttrRoom); room == nil || attr == nil {
		return nil, refusal{sys.ENOMEM, "there is no memory for it"}
	}
	g, err := p.Guard.Guard(&plain, foreign, room)
	if err != nil {
		no.why = err.Error()
		return nil, no
	}
	copy(attr, r.Attr)
	row.Field("insns").Put(attr, sys.Addr(g.Insns))
	row.Field("insn_cnt").Put(attr, uint64(len(g.Insns)/guard.InsnSize))
	for what, of := range map[string]guard.Records{"func_info": g.FuncInfo, "line_info": g.LineInfo, "core_relos": g.CoreRelos} {
		if len(of.Data) > 0 {
			row.Field(what).Put(attr, sys.Addr(of.Data))
		}
	}
	for _, none := range []string{"log_level", "log_size", "log_buf", "log_true_size", "signature", "signature_size", "keyring_id"} {
		row.Field(none).Put(attr, 0)
	}
	runtime.KeepAlive(room)
	return attr, refusal{}
}

// refusal is why a program that loads isn't handed out.
type refusal struct {
	errno sys.Errno
	why   string
}

// fail answers with it, and says why in the log, if there is one.
func (e refusal) fail(p *Performer, q *request.Request, r *Result) (int, sys.Errno) {
	if Logs(q) {
		log := logOf(q)
		out := r.Out[log.buffer]
		text := "bpfbroker: the program isn't handed out: " + e.why + "\n"
		if n := copy(out, text); n == len(out) && n > 0 {
			out[n-1] = 0
		} else if n < len(out) {
			out[n] = 0
		}
		if tellsTrueSize() {
			log.true.Put(r.Attr, uint64(len(text)+1))
		}
	}
	return 0, e.errno
}

// unguard shows of a guarded program what there is without the guard: its instructions and
// where its functions and lines are. (The tag and the number of verified instructions are
// those of the whole, and so is the machine's code.)
func (p *Performer) unguard(q *request.Request, r *Result) {
	if q.Info != &abi.ProgInfo || r.Errno != 0 || !p.Guard.Known() {
		return
	}
	length := abi.ProgInfo.Field("xlated_prog_len")
	var info []byte
	given := uint64(0)
	for i := range q.Buffers {
		switch b := &q.Buffers[i]; {
		case b.Parent == request.NoParent:
			info = r.Out[i]
		case b.Field.Name == "xlated_prog_insns":
			given = uint64(len(r.Out[i]))
		}
	}
	if uint32(len(info)) < length.Offset+length.Size {
		return
	}
	whole := length.Uint(info)
	if whole < guard.Size {
		return
	}
	insns := p.mem.Alloc(int(min(whole, given+guard.Size)))
	if insns == nil || !shownInsns(int(int32(q.Field("bpf_fd"))), insns) || !p.Guard.Begins(insns) {
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
