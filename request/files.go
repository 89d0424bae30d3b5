package request

import (
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// struct bpf_insn: code u8, dst_reg:4 src_reg:4, off s16, imm s32.
const (
	insnSize   = 8
	ldImm64    = 0x18 // BPF_LD | BPF_IMM | BPF_DW
	call       = 0x85 // BPF_JMP | BPF_CALL
	pseudoKfun = 2    // BPF_PSEUDO_KFUNC_CALL

	pseudoMapFD       = 1 // BPF_PSEUDO_MAP_FD
	pseudoMapValue    = 2 // BPF_PSEUDO_MAP_VALUE
	pseudoBTFID       = 3 // BPF_PSEUDO_BTF_ID
	pseudoMapIdx      = 5 // BPF_PSEUDO_MAP_IDX
	pseudoMapIdxValue = 6 // BPF_PSEUDO_MAP_IDX_VALUE
)

// references walks instructions as the kernel's resolve_pseudo_ldimm64 and
// add_subprog_and_kfunc do (kernel/bpf/verifier.c), and calls fd for every fd in
// them and index for every index into fd_array. It may call them for more than
// the kernel looks at, as an invalid program ends earlier there, never for less.
func references(insns []byte, fd, index func(int32)) {
	second := false // the second half of an instruction of 16 bytes
	for i := 0; i+insnSize <= len(insns); i += insnSize {
		code, src := insns[i], insns[i+1]>>4
		if code == call && src == pseudoKfun {
			// Also in a second half: whether it is one is checked later.
			if off := int16(abi.Uint(insns, uint32(i)+2, 2)); off != 0 {
				index(int32(off))
			}
		}
		if second || code != ldImm64 {
			second = false
			continue
		}
		second = true
		imm := int32(abi.Uint(insns, uint32(i)+4, 4))
		switch src {
		case pseudoMapFD, pseudoMapValue:
			fd(imm)
		case pseudoMapIdx, pseudoMapIdxValue:
			index(imm)
		case pseudoBTFID: // a module's BTF, in the second half; 0: the kernel's
			if n := int32(abi.Uint(insns, uint32(i+insnSize)+4, 4)); n != 0 {
				fd(n)
			}
		}
	}
}

// fdArray copies fd_array: all of it where fd_array_cnt says how long it is, and
// of what lies behind that the elements that instructions name, each read by
// itself as the kernel does.
//
// The kernel adds an instruction's index to the array's address without a look
// at fd_array_cnt, and its log shows the number that it finds there. So the copy
// goes as far as the largest index, or else the kernel would read memory of ours;
// with an index that no copy can reach the whole array is an address that faults.
func (r *Reader) fdArray(t Target, q *Request, u *Buffer) sys.Errno {
	count := int(min(u.Len, u.Field.Buffer.Len.Max)) / 4
	end, outside := count, false
	r.numbers = r.numbers[:0]
	if insns := q.Buffer("insns"); insns != nil {
		references(insns.Data, func(int32) {}, func(i int32) {
			switch {
			case i < 0 || i >= abi.MaxFDArray:
				outside = true
			case int(i) >= count:
				end = max(end, int(i)+1)
				r.add(int(i))
			}
		})
	}
	if outside {
		u.Fault = true
		return 0
	}
	if end == 0 {
		return 0
	}
	if u.Data = r.mem.Alloc(4 * end); u.Data == nil {
		return sys.ENOMEM
	}
	for i := 4 * count; i < len(u.Data); i++ {
		u.Data[i] = 0xff // -1: an fd that nobody has
	}
	if got, e := t.Read(u.Addr, u.Data[:4*count]); got < 4*count {
		u.Fault = true
		if e != sys.EFAULT {
			return e
		}
		return 0
	}
	for _, i := range r.numbers {
		if n, e := t.Read(u.Addr+uint64(4*i), u.Data[4*i:4*i+4]); n < 4 {
			u.Fault = true
			if e != sys.EFAULT {
				return e
			}
			return 0
		}
	}
	return 0
}

// add notes a number once, up to the most that a request may name.
func (r *Reader) add(n int) {
	if len(r.numbers) < abi.MaxFiles && !slices.Contains(r.numbers, n) {
		r.numbers = append(r.numbers, n)
	}
}

// collect lists the fd numbers that the request names.
func (r *Reader) collect(q *Request) {
	r.numbers = r.numbers[:0]
	r.fields(&q.Row.Layout, q.Attr)
	for i := range q.Buffers {
		u := &q.Buffers[i]
		switch rule := u.Field.Buffer; {
		case rule.Elem == abi.ElemInsns:
			references(u.Data, func(n int32) { r.add(int(n)) }, func(int32) {})
		case rule.Elem == abi.ElemFDs:
			for o := 0; o+4 <= len(u.Data); o += 4 {
				if n := int32(abi.Uint(u.Data, uint32(o), 4)); n >= 0 {
					r.add(int(n))
				}
			}
		case rule.Struct != nil && rule.Dir == abi.In:
			r.fields(rule.Struct, u.Data)
		}
	}
}

func (r *Reader) fields(l *abi.Layout, b []byte) {
	for i := range l.Fields {
		f := &l.Fields[i]
		if f.Class != abi.FD || int(f.Offset+f.Size) > len(b) || !f.Live(b) {
			continue
		}
		n := int32(f.Uint(b))
		if n < 0 || (n == 0 && f.ZeroIsNone) {
			continue
		}
		r.add(int(n))
	}
}

// take takes the files, in the order of their numbers: a copy then mostly lands
// at its number at once.
func (r *Reader) take(t Target, q *Request) sys.Errno {
	slices.Sort(r.numbers)
	for _, n := range r.numbers {
		if n < 0 {
			continue
		}
		kind, e := t.Take(n)
		if e != 0 && e != sys.EBADF {
			return e
		}
		q.Files = append(q.Files, File{N: n, Kind: kind, Err: e})
	}
	return 0
}
