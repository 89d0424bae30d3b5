package loader

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

const (
	// MaxCalls is how many helpers a run may call. A loader calls one or two for each map,
	// program, symbol that a program uses, and fd to close; with bpftool -d five.
	MaxCalls = 65536
	// MaxSysBPF is how many of these may be bpf_sys_bpf, which is what costs. A loader has at
	// most 64 maps (with an inner one each, filled and frozen), 32 programs and BTF.
	MaxSysBPF = 64*4 + 32 + 1
	// MaxCopied is how many bytes helpers may move. A loader moves each map's initial value
	// once, and all of these fit into the value of its own map.
	MaxCopied = 256 << 20
	// maxName is more than any name is long (KSYM_NAME_LEN is 512).
	maxName = 4096
)

// helper is one of the kernel's, with its five arguments. An error says that the
// verifier would have refused the program, or that a bound is reached.
type helper func(r *run, a [5]uint64) (uint64, error)

// helpers are by their number, enum bpf_func_id.
var helpers = map[int32]helper{
	1:   (*run).mapLookupElem,
	6:   (*run).tracePrintk,
	113: (*run).probeReadKernel,
	148: (*run).copyFromUser,
	166: (*run).sysBPF,
	167: (*run).btfFindByNameKind,
	168: (*run).sysClose,
	179: (*run).kallsymsLookupName,
}

// call calls the helper of an instruction that Parse has checked.
func (r *run) call(id int32, a [5]uint64) (uint64, error) {
	if r.calls++; r.calls > MaxCalls {
		return 0, fmt.Errorf("more than %d calls of helpers", MaxCalls)
	}
	ret, err := helpers[id](r, a)
	if err != nil {
		return 0, fmt.Errorf("helper %d: %w", id, err)
	}
	return ret, nil
}

// errno is a helper's result.
func errno(e sys.Errno) uint64 { return -uint64(e) }

func noMemory(n, addr uint64) error {
	return fmt.Errorf("no memory of %d bytes at %#x", n, addr)
}

// bpf_map_lookup_elem(map, key)
func (r *run) mapLookupElem(a [5]uint64) (uint64, error) {
	for i, m := range r.maps {
		if a[0] != addrOf(structOf(i)) {
			continue
		}
		key := r.mem.at(a[1], 4, false)
		if key == nil {
			return 0, noMemory(4, a[1])
		}
		if m.Value == nil {
			return 0, errors.New("a map that isn't an array of one element")
		}
		if get(key) != 0 {
			return 0, nil
		}
		return addrOf(valueOf(i)), nil
	}
	return 0, fmt.Errorf("no map at %#x", a[0])
}

// bpf_trace_printk(fmt, fmt_size, ...)
func (r *run) tracePrintk([5]uint64) (uint64, error) { return 0, nil }

// dst is the memory that a helper is to fill, n bytes.
func (r *run) dst(addr, n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if n > MaxCopied-r.copied {
		return nil, fmt.Errorf("more than %d bytes copied", MaxCopied)
	}
	r.copied += n
	b := r.mem.at(addr, int(n), true)
	if b == nil {
		return nil, noMemory(n, addr)
	}
	return b, nil
}

// bpf_probe_read_kernel(dst, size, unsafe_ptr)
func (r *run) probeReadKernel(a [5]uint64) (uint64, error) {
	n := uint64(uint32(a[1]))
	dst, err := r.dst(a[0], n)
	if err != nil {
		return 0, err
	}
	if int64(a[2]) >= 0 { // user space, whatever the size: copy_from_kernel_nofault_allowed
		clear(dst)
		return errno(sys.ERANGE), nil
	}
	if n == 0 {
		return 0, nil
	}
	src := r.mem.at(a[2], len(dst), false)
	if src == nil {
		clear(dst)
		return errno(sys.EFAULT), nil
	}
	copy(dst, src)
	return 0, nil
}

// bpf_copy_from_user(dst, size, user_ptr)
func (r *run) copyFromUser(a [5]uint64) (uint64, error) {
	n := uint64(uint32(a[1]))
	dst, err := r.dst(a[0], n)
	if err != nil || n == 0 {
		return 0, err
	}
	got, e := r.env.ReadUser(a[2], dst)
	if e != 0 || got < len(dst) {
		clear(dst)
		return errno(sys.EFAULT), nil
	}
	return 0, nil
}

// bpf_sys_bpf(cmd, attr, attr_size)
func (r *run) sysBPF(a [5]uint64) (uint64, error) {
	cmd, attr, size := abi.Command(uint32(a[0])), a[1], uint32(a[2])
	if r.sysBPFs++; r.sysBPFs > MaxSysBPF {
		return 0, fmt.Errorf("more than %d calls of bpf()", MaxSysBPF)
	}
	if size == 0 || r.mem.at(attr, int(size), false) == nil {
		return 0, noMemory(uint64(size), attr)
	}
	if !sysBPFCommands[cmd] {
		return errno(sys.EINVAL), nil
	}
	ret, err := r.env.SysBPF(cmd, attr, size, r.mem)
	return uint64(int32(ret)), err
}

// sysBPFCommands are what bpf_sys_bpf takes (kernel/bpf/syscall.c). Before Linux 6.1
// it took BPF_PROG_TEST_RUN as well, which no loader made use of.
var sysBPFCommands = map[abi.Command]bool{
	0:  true, // BPF_MAP_CREATE
	2:  true, // BPF_MAP_UPDATE_ELEM
	3:  true, // BPF_MAP_DELETE_ELEM
	5:  true, // BPF_PROG_LOAD
	14: true, // BPF_MAP_GET_FD_BY_ID
	17: true, // BPF_RAW_TRACEPOINT_OPEN
	18: true, // BPF_BTF_LOAD
	22: true, // BPF_MAP_FREEZE
	28: true, // BPF_LINK_CREATE
}

// bpf_sys_close(fd)
func (r *run) sysClose(a [5]uint64) (uint64, error) {
	return errno(r.env.SysClose(int32(a[0]))), nil
}

// bpf_btf_find_by_name_kind(name, name_sz, kind, flags)
func (r *run) btfFindByNameKind(a [5]uint64) (uint64, error) {
	name, e, err := r.name(a[0], int32(a[1]))
	if err != nil {
		return 0, err
	}
	if int32(a[3]) != 0 {
		e = sys.EINVAL
	}
	if e != 0 {
		return errno(e), nil
	}
	id, fd, e := r.env.BTFFind(name, uint32(a[2]))
	if e != 0 {
		return errno(e), nil
	}
	return uint64(uint32(fd))<<32 | uint64(id), nil
}

// bpf_kallsyms_lookup_name(name, name_sz, flags, res)
func (r *run) kallsymsLookupName(a [5]uint64) (uint64, error) {
	res, err := r.dst(a[3], 8)
	if err != nil {
		return 0, err
	}
	clear(res)
	name, e, err := r.name(a[0], int32(a[1]))
	if err != nil {
		return 0, err
	}
	if int32(a[2]) != 0 {
		e = sys.EINVAL
	}
	if e != 0 {
		return errno(e), nil
	}
	addr, e := r.env.KallsymsLookup(name)
	if e != 0 {
		return errno(e), nil
	}
	put(res, addr)
	return 0, nil
}

// name is a name that comes with its size. The kernel wants its last byte to be NUL, and
// reads on up to the first.
func (r *run) name(addr uint64, size int32) (string, sys.Errno, error) {
	if size < 0 {
		return "", 0, fmt.Errorf("name of %d bytes", size)
	}
	if size <= 1 {
		return "", sys.EINVAL, nil
	}
	b := r.mem.at(addr, int(size), false)
	if b == nil {
		return "", 0, noMemory(uint64(size), addr)
	}
	if b[len(b)-1] != 0 {
		return "", sys.EINVAL, nil
	}
	// What is longer than any name is none, and cut it is none either.
	b = b[:min(len(b), maxName)]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b), 0, nil
}
