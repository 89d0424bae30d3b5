package perform

import (
	"bytes"
	"strconv"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// paths looks up the paths of a request in the target's place, and has the
// kernel find the files that they lead to, at fds of ours: when it looks itself,
// it can't come to anything else.
func (p *Performer) paths(q *request.Request, r *Result, at Place) sys.Errno {
	for i := range q.Buffers {
		b := &q.Buffers[i]
		use := b.Field.Buffer.Path
		if use != abi.PathOpen && use != abi.PathCreate || b.Fault {
			continue
		}
		path, ok := bytes.CutSuffix(b.Data, []byte{0})
		if !ok || len(path) == 0 {
			continue // too long, or empty, for which each command has its own error
		}
		base := sys.AtCWD
		if f := q.Row.Field("path_fd"); f != nil && f.Live(q.Attr) {
			base = int(int32(f.Uint(q.Attr)))
		}
		out := p.mem.Alloc(abi.MaxPath)
		if out == nil {
			return sys.ENOMEM
		}
		r.Out[i] = p.path(out[:0], path, use, base, at, b.Field.Buffer.Kept)
		abi.Put(r.Attr, b.Offset, 8, sys.Addr(r.Out[i]))
	}
	return 0
}

const ownFDs = "/proc/thread-self/fd/"

// OpenPinned opens the object that is pinned at the file which is open at fd, with
// BPF_OBJ_GET's flags.
func OpenPinned(fd int, flags uint32) (int, sys.Errno) {
	o := own(abi.ObjGet)
	o.point("pathname", append(strconv.AppendInt([]byte(ownFDs), int64(fd), 10), 0))
	o.put("file_flags", uint64(flags))
	return o.do()
}

// path writes the path to out by which the kernel shall find the file. For one
// that can't be followed it is of nothing that there is: the kernel makes its
// other checks first, and then says ENOENT, which is to be pathErr. kept: the kernel will
// show the path.
func (p *Performer) path(out, path []byte, use abi.Path, base int, at Place, kept bool) []byte {
	dir, name := path, []byte(nil)
	if use == abi.PathCreate {
		dir, name = sys.SplitPath(path)
	}
	fd, e := at.OpenPath(base, dir)
	if e != 0 {
		p.pathErr = e
		return append(out, ownFDs+"none\x00"...)
	}
	p.pathFD = fd
	if kept {
		return append(appendNamed(out, fd, path), 0)
	}
	out = append(out, ownFDs...)
	out = strconv.AppendInt(out, int64(fd), 10)
	if use == abi.PathCreate {
		out = append(append(out, '/'), name...)
	}
	return append(out, 0)
}
