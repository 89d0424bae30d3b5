package request

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Every command at every size, at and across the end of memory: what the kernel's
// bpf_check_uarg_tail_zero, copy_from_user and CHECK_ATTR answer, in their order.
func TestAttribute(t *testing.T) {
	commands := []abi.Command{abi.Command(len(abi.Table())), 0xffffffff, abi.CommonAttrs | abi.ProgLoad}
	for _, r := range abi.Table() {
		commands = append(commands, r.Command)
	}
	for _, c := range commands {
		row := abi.RowOf(c)
		name, lastEnd := fmt.Sprintf("%#x", uint32(c)), int(abi.AttrSize)
		if row != nil {
			name, lastEnd = row.Kernel, int(row.LastEnd)
		}
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			read := func(addr uint64, size int) (*Request, sys.Errno) {
				e.fresh()
				return e.reader.Read(&e.Target, Call{Command: c, Addr: addr, Size: uint32(size)})
			}
			want := func(what string, got, want sys.Errno) {
				t.Helper()
				if got == 0 && row == nil {
					t.Errorf("%s: read, and the table doesn't know it", what)
				}
				if want == 0 && row == nil {
					want = sys.EINVAL
				}
				if got != want {
					t.Errorf("%s: got %v, wanted %v", what, got, want)
				}
			}

			q, errno := read(0, 0)
			want("NULL, size 0", errno, 0)
			if q != nil && (len(q.Attr) != int(abi.AttrSize) || !bytes.Equal(q.Attr, make([]byte, abi.AttrSize))) {
				t.Errorf("NULL, size 0: attribute %x", q.Attr)
			}
			for _, size := range []int{1, 8, int(abi.AttrSize), abi.PageSize} {
				_, errno = read(0, size)
				want(fmt.Sprint("NULL, size ", size), errno, sys.EFAULT)
			}
			for _, size := range []uint32{abi.PageSize + 1, 1 << 31, 1<<32 - 1} {
				_, errno := e.reader.Read(&e.Target, Call{Command: c, Addr: 0, Size: size})
				want(fmt.Sprint("size ", size), errno, sys.E2BIG)
			}

			full := fill(row)
			for size := 0; size <= len(full); size++ {
				e.Clear()
				addr := e.AtEnd(full[:size])
				q, errno := read(addr, size)
				want(fmt.Sprintf("the first %d bytes", size), errno, 0)
				if q != nil {
					if q.Size != uint32(size) || !bytes.Equal(q.Attr[:size], full[:size]) || !bytes.Equal(q.Attr[size:], make([]byte, len(full)-size)) {
						t.Errorf("the first %d bytes: got %d, %x", size, q.Size, q.Attr)
					}
					e.checkReads()
				}
				_, errno = read(addr, size+1)
				want(fmt.Sprintf("one behind the end at %d", size), errno, sys.EFAULT)
			}
			for size := len(full); size <= abi.PageSize; size += 61 {
				e.Clear()
				addr := e.AtEnd(append(bytes.Clone(full), make([]byte, size-len(full))...))
				_, errno := read(addr, size)
				want(fmt.Sprintf("%d bytes with a tail of zeros", size), errno, 0)
			}

			for at := lastEnd; at < abi.PageSize; at++ {
				if at > int(abi.AttrSize)+16 && at < abi.PageSize-16 && at%89 != 0 {
					continue
				}
				e.Clear()
				b := make([]byte, abi.PageSize)
				b[at] = 1
				expect := sys.EINVAL
				if at >= int(abi.AttrSize) {
					expect = sys.E2BIG
				}
				_, errno := read(e.AtEnd(b[:at+1]), at+1)
				want(fmt.Sprintf("1 at byte %d", at), errno, expect)
				if at+2 > abi.PageSize {
					continue
				}
				_, errno = read(e.AtEnd(b[:at+1]), at+2)
				if expect != sys.E2BIG {
					expect = sys.EFAULT
				}
				want(fmt.Sprintf("1 at byte %d, and one behind the end", at), errno, expect)
			}

			// The tail is there, what comes before it isn't.
			tail := e.AtEnd(make([]byte, abi.PageSize))
			e.Put(tail+200, []byte{7})
			_, errno = read(tail-uint64(abi.AttrSize)+8, int(abi.AttrSize)+300)
			want("a tail that isn't zero behind what isn't there", errno, sys.E2BIG)
			e.Put(tail+200, []byte{0})
			_, errno = read(tail-uint64(abi.AttrSize)+8, int(abi.AttrSize)+80)
			want("a tail of zeros behind what isn't there", errno, sys.EFAULT)
		})
	}
}

// fill returns an attribute with something in every field but pointers, and
// nothing behind the last.
func fill(row *abi.Row) []byte {
	b := make([]byte, abi.AttrSize)
	if row == nil {
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}
	for i := range row.LastEnd {
		b[i] = byte(i) | 1
	}
	for i := range row.Fields {
		if f := &row.Fields[i]; f.Class == abi.Pointer && f.Offset < row.LastEnd {
			f.Put(b, 0)
		}
	}
	return b
}

// A byte behind the last field matters only as far as the table knows the union:
// an application may use a header that knows more.
func TestSizesOfRealApplications(t *testing.T) {
	e := newEnv(t)
	for _, c := range []struct {
		command abi.Command
		sizes   []int
	}{
		{abi.ProgLoad, []int{64, 116, 128, 144, 168}}, {abi.MapCreate, []int{72, 96, 144}}, {abi.BTFLoad, []int{28, 40}},
		{abi.LinkCreate, []int{48, 64}}, {abi.ObjGetInfoByFD, []int{16, 144}}, {abi.ProgAttach, []int{20}},
	} {
		for _, size := range c.sizes {
			e.fresh()
			q, errno := e.reader.Read(&e.Target, Call{Command: c.command, Addr: e.AtEnd(make([]byte, size)), Size: uint32(size)})
			if errno != 0 || int(q.Size) != size {
				t.Errorf("%s with %d bytes: %v", abi.RowOf(c.command).Kernel, size, errno)
			}
		}
	}
}

func TestCallOf(t *testing.T) {
	args := [6]uint64{0x1_0000_0005, 0x7fff_ffff_f000, 0xffff_ffff_0000_0098, 1, 2, 3}
	got, ok := CallOf(&sys.SeccompData{Nr: sys.NrBPF, Args: args})
	if want := (Call{Command: abi.ProgLoad, Addr: 0x7fff_ffff_f000, Size: 0x98, Args: args}); !ok || got != want {
		t.Errorf("got %+v, wanted %+v: the kernel looks at the low 32 bits", got, want)
	}
	if _, ok := CallOf(&sys.SeccompData{Nr: 39, Args: args}); ok {
		t.Error("getpid() was taken for a call that is served")
	}
}

// Errors that aren't the memory's reach the caller as they are.
func TestTargetGone(t *testing.T) {
	e := newEnv(t)
	b := attr(t, abi.ProgLoad, map[string]uint64{"insns": 0x1000, "insn_cnt": 1})
	for stop := 1; stop <= 3; stop++ {
		e.fresh()
		dying := &dyingTarget{env: e, after: stop}
		q, errno := e.reader.Read(dying, Call{Command: abi.ProgLoad, Addr: e.AtEnd(b), Size: uint32(len(b))})
		if stop <= 2 && (q != nil || errno != sys.ESRCH) {
			t.Errorf("gone at read %d: got %v, %v", stop, q, errno)
		}
	}
}

// dyingTarget is gone from its after-th read on.
type dyingTarget struct {
	*env
	after, reads int
}

func (d *dyingTarget) Read(addr uint64, p []byte) (int, sys.Errno) {
	if d.reads++; d.reads >= d.after {
		return 0, sys.ESRCH
	}
	return d.env.Read(addr, p)
}
