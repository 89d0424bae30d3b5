package perform

import (
	"bytes"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/loader"
)

// maxBTF is more than any kernel's BTF has, in bytes.
const maxBTF = 64 << 20

// KernelBTFs calls f with the kernel's own BTF, then those of its modules, until it says
// that this is enough. The fd is f's to close; the types are there until f returns.
func (p *Performer) KernelBTFs(at Place, f func(fd int, types *loader.BTF) (enough bool)) sys.Errno {
	var base *loader.BTF
	var modules []uint64
	next := own(abi.BTFGetNextID)
	for {
		r, e := next.ask(p, at)
		if e == sys.ENOENT {
			break
		}
		if e != 0 {
			return e
		}
		id := next.row.Field("next_id").Uint(r.Attr)
		next.put("start_id", id)
		if base != nil {
			modules = append(modules, id)
			continue
		}
		fd, name, e := p.btfByID(id, at)
		if e != 0 {
			return e
		}
		if name != "vmlinux" {
			sys.Close(fd)
			modules = append(modules, id)
			continue
		}
		m, e := BTFData(fd)
		if e != 0 {
			sys.Close(fd)
			return e
		}
		defer m.Unmap() // modules' build on it
		if base, e = parsed(m, nil); e != 0 {
			sys.Close(fd)
			return e
		}
		if f(fd, base) {
			return 0
		}
	}
	for _, id := range modules {
		fd, name, e := p.btfByID(id, at)
		if e != 0 {
			continue // the module is gone
		}
		if name == "" { // the workload's own
			sys.Close(fd)
			continue
		}
		m, e := BTFData(fd)
		if e != 0 {
			sys.Close(fd)
			return e
		}
		types, e := parsed(m, base)
		if e != 0 {
			sys.Close(fd)
			m.Unmap()
			return e
		}
		enough := f(fd, types)
		m.Unmap()
		if enough {
			return 0
		}
	}
	return 0
}

func parsed(m sys.Mapping, base *loader.BTF) (*loader.BTF, sys.Errno) {
	types, err := loader.ParseBTF(m.Bytes, base)
	if err != nil {
		return nil, sys.EINVAL
	}
	return types, 0
}

// btfByID opens a BTF and says what it is of: "vmlinux", or a module; "" neither.
func (p *Performer) btfByID(id uint64, at Place) (fd int, of string, e sys.Errno) {
	o := own(abi.BTFGetFDByID)
	o.put("btf_id", id)
	r, e := o.ask(p, at)
	if e != 0 {
		return -1, "", e
	}
	of, _ = BTFName(r.FD)
	return r.FD, of, 0
}

// BTFName says what the BTF at fd is of: "vmlinux", or a module; "" neither.
func BTFName(fd int) (string, sys.Errno) {
	info, name := make([]byte, abi.BTFInfo.Size), make([]byte, 64)
	abi.BTFInfo.Field("name").Put(info, sys.Addr(name))
	abi.BTFInfo.Field("name_len").Put(info, uint64(len(name)))
	e := ObjectInfo(fd, info)
	if e != 0 || abi.BTFInfo.Field("kernel_btf").Uint(info) == 0 {
		return "", e
	}
	got, _, _ := bytes.Cut(name, []byte{0})
	return string(got), 0
}

// BTFData is the data of the BTF at fd, which the caller unmaps.
func BTFData(fd int) (sys.Mapping, sys.Errno) {
	info := make([]byte, abi.BTFInfo.Size)
	size := abi.BTFInfo.Field("btf_size")
	if e := ObjectInfo(fd, info); e != 0 {
		return sys.Mapping{}, e
	}
	n := size.Uint(info)
	if n == 0 || n > maxBTF {
		return sys.Mapping{}, sys.E2BIG
	}
	m, e := sys.MapGuarded(int(n))
	if e != 0 {
		return m, sys.ENOMEM
	}
	clear(info)
	size.Put(info, n)
	abi.BTFInfo.Field("btf").Put(info, sys.Addr(m.Bytes))
	if e := ObjectInfo(fd, info); e != 0 {
		m.Unmap()
		return m, e
	}
	return m, 0
}
