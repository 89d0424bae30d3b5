package brokertest

import (
	"bytes"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
)

// fuzzKinds are what fds 0 to 31 of a FuzzTarget are, in turn.
var fuzzKinds = []abi.Object{0, abi.Prog, abi.Map, abi.BTF, abi.Link, abi.Token, abi.Cgroup | abi.Directory | abi.Bpffs, abi.Pidfd, abi.PerfEvent}

// FuzzTarget returns a target whose memory is mem, from the second page on, and
// the attribute, which ends where its page does; and the attribute's address.
//
// It makes addresses of most of the numbers that attr has where the row has
// pointers, so that a fuzzer needn't find out where there is memory.
func FuzzTarget(row *abi.Row, attr, mem []byte) (*Target, uint64) {
	t := &Target{Files: map[int]abi.Object{}, Links: map[int][]byte{}}
	for n := range 32 {
		t.Files[n] = fuzzKinds[n%len(fuzzKinds)]
		t.Links[n] = mem[min(len(mem), 8*n):]
	}
	t.Put(PageSize, mem)
	if row != nil && len(mem) > 0 {
		whole := slices.Concat(attr, make([]byte, row.Size))
		for i := range row.Fields {
			f := &row.Fields[i]
			if f.Class != abi.Pointer || int(f.Offset+f.Size) > len(attr) || !f.Live(whole) {
				continue
			}
			if v := f.Uint(attr); v%4 != 3 {
				f.Put(attr, PageSize+v%uint64(len(mem)+16))
			}
		}
	}
	return t, t.AtEnd(attr)
}

// CallOf is the call that a fuzzed command means: of another system call than bpf() at
// the upper end of the numbers.
func CallOf(command uint32) (abi.Syscall, abi.Command) {
	if n := uint32(abi.NoCommand) - command; n < 8 && abi.RowOfSyscall(abi.Syscall(n+1)) != nil {
		return abi.Syscall(n + 1), abi.NoCommand
	}
	return abi.SyscallBPF, abi.Command(command)
}

// Seeds calls add with what is worth starting to fuzz from: for every command
// attributes with something in all fields, and memory for them.
func Seeds(add func(command, size uint32, attr, mem []byte)) {
	mem := bytes.Repeat([]byte{0x18, 0x11, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0}, 48)
	for _, r := range abi.Rows() {
		command := uint32(r.Command) - uint32(max(r.Syscall, 1)-1)
		attr := make([]byte, r.Size)
		for i := range r.Fields {
			f := &r.Fields[i]
			switch f.Class {
			case abi.Pointer:
				f.Put(attr, uint64(i)*8)
			case abi.FD, abi.Scalar, abi.PID:
				f.Put(attr, uint64(i)+1)
			}
		}
		attr = attr[:r.LastEnd]
		add(command, r.LastEnd, attr, mem)
		if f := r.Field("attach_type"); f != nil {
			for at := range abi.AttachTypes.Names {
				attr := bytes.Clone(attr)
				f.Put(attr, uint64(at))
				add(command, r.LastEnd, attr, mem)
			}
		}
		for i := range r.Fields {
			if f := &r.Fields[i]; f.Class == abi.Flags && f.Offset+f.Size <= r.LastEnd {
				for _, b := range f.Values.Bits {
					attr := bytes.Clone(attr)
					f.Put(attr, b.Bit)
					add(command, r.LastEnd, attr, mem)
				}
			}
		}
	}
	// What an information structure may be about: fds of all kinds.
	info := abi.RowOf(abi.ObjGetInfoByFD)
	for n := range fuzzKinds {
		attr := make([]byte, info.LastEnd)
		info.Field("bpf_fd").Put(attr, uint64(n))
		info.Field("info_len").Put(attr, 256)
		info.Field("info").Put(attr, 4)
		add(uint32(info.Command), info.LastEnd, attr, mem)
	}
	add(uint32(abi.ProgLoad), PageSize, make([]byte, PageSize), mem)
}
