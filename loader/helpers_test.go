package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What a helper does, and what it doesn't do, for arguments of all kinds. The context
// begins with what r0 is afterwards; then come names.
func TestHelpers(t *testing.T) {
	const (
		none      = "no memory of "
		failed    = -int64(sys.EFAULT)
		invalid   = -int64(sys.EINVAL)
		zeros     = "\x00\x00\x00\x00\x00\x00\x00\x00"
		ctxLen    = 8192
		longStart = 2048
	)
	at := func(off int64) int64 { return int64(addrOf(regionCtx)) + off }
	var (
		name     = at(8)         // "name\0"
		broken   = at(16)        // "x\0y\0", a NUL within
		long     = at(longStart) // a name of 5000 bytes
		value    = int64(addrOf(valueOf(0)))
		ofMap    = int64(addrOf(structOf(0)))
		ofOther  = int64(addrOf(structOf(1)))
		valueLen = int64(32)
	)
	for _, c := range []struct {
		name string
		id   asm.BuiltinFunc
		args []int64
		want int64
		err  string
		call string // of env
		mem  string // how the map's value begins, "" where it is still "value"
	}{
		{name: "lookup", id: asm.FnMapLookupElem, args: []int64{ofMap, at(512)}, want: value},
		{name: "lookup of element 1", id: asm.FnMapLookupElem, args: []int64{ofMap, at(16)}, want: 0},
		{name: "lookup, key outside", id: asm.FnMapLookupElem, args: []int64{ofMap, at(ctxLen - 3)}, err: none},
		{name: "lookup, no key", id: asm.FnMapLookupElem, args: []int64{ofMap, 0}, err: none},
		{name: "lookup in a value", id: asm.FnMapLookupElem, args: []int64{value, at(512)}, err: "no map at"},
		{name: "lookup in nothing", id: asm.FnMapLookupElem, args: []int64{0, at(512)}, err: "no map at"},
		{name: "lookup within a map", id: asm.FnMapLookupElem, args: []int64{ofMap + 1, at(512)}, err: "no map at"},
		{name: "lookup in a map without value", id: asm.FnMapLookupElem, args: []int64{ofOther, at(512)}, err: "isn't an array of one"},

		{name: "printk", id: asm.FnTracePrintk, args: []int64{0, -1, 0, 0, 0}, want: 0},

		{name: "probe_read", id: asm.FnProbeReadKernel, args: []int64{value, 4, name}, want: 0, mem: "namee"},
		{name: "probe_read to itself", id: asm.FnProbeReadKernel, args: []int64{value + 1, 4, value}, want: 0, mem: "vvalu"},
		{name: "probe_read of 0, as loaders clear", id: asm.FnProbeReadKernel, args: []int64{value, 4, 0}, want: -int64(sys.ERANGE), mem: "\x00\x00\x00\x00e"},
		{name: "probe_read beyond the source", id: asm.FnProbeReadKernel, args: []int64{value, 4, at(ctxLen - 3)}, want: failed, mem: "\x00\x00\x00\x00e"},
		{name: "probe_read of kernel memory", id: asm.FnProbeReadKernel, args: []int64{value, 1, -1 << 47}, want: failed, mem: "\x00alue"},
		{name: "probe_read of nothing", id: asm.FnProbeReadKernel, args: []int64{0, 0, name}, want: 0},
		{name: "probe_read of 2^32", id: asm.FnProbeReadKernel, args: []int64{0, 1 << 32, name}, want: 0},
		{name: "probe_read beyond the destination", id: asm.FnProbeReadKernel, args: []int64{value, valueLen + 1, name}, err: none},
		{name: "probe_read before the destination", id: asm.FnProbeReadKernel, args: []int64{value - 1, 4, name}, err: none},
		{name: "probe_read to what is read only", id: asm.FnProbeReadKernel, args: []int64{ofMap, 4, name}, err: none},
		{name: "probe_read of -1", id: asm.FnProbeReadKernel, args: []int64{value, -1, name}, err: "bytes copied"},
		{name: "probe_read of 2^31", id: asm.FnProbeReadKernel, args: []int64{value, 1 << 31, name}, err: "bytes copied"},

		{name: "copy_from_user", id: asm.FnCopyFromUser, args: []int64{value, 3, 0x1000}, want: 0, call: "read 0x1000 3", mem: "useue"},
		{name: "copy_from_user that faults", id: asm.FnCopyFromUser, args: []int64{value, 3, 0xdead}, want: failed, call: "read 0xdead 3", mem: "\x00\x00\x00u"},
		{name: "copy_from_user that is short", id: asm.FnCopyFromUser, args: []int64{value, 3, 0x2000}, want: failed, call: "read 0x2000 3", mem: "\x00\x00\x00u"},
		{name: "copy_from_user of nothing", id: asm.FnCopyFromUser, args: []int64{0, 0, 0}, want: 0},
		{name: "copy_from_user to what is read only", id: asm.FnCopyFromUser, args: []int64{ofMap, 1, 0x1000}, err: none},
		{name: "copy_from_user to a user's address", id: asm.FnCopyFromUser, args: []int64{0x1000, 1, 0x1000}, err: none},
		{name: "copy_from_user of -1", id: asm.FnCopyFromUser, args: []int64{value, -1, 0x1000}, err: "bytes copied"},

		{name: "sys_bpf", id: asm.FnSysBpf, args: []int64{5, name, 8}, want: 3, call: "bpf 5 name 8"},
		{name: "sys_bpf, what is read only", id: asm.FnSysBpf, args: []int64{0, ofMap, 32}, want: 3, call: "bpf 0  32"},
		{name: "sys_bpf that fails", id: asm.FnSysBpf, args: []int64{22, name, 8}, want: -1, call: "bpf 22 name 8"},
		{name: "sys_bpf, upper halves", id: asm.FnSysBpf, args: []int64{1<<32 + 5, name, 1<<32 + 8}, want: 3, call: "bpf 5 name 8"},
		{name: "sys_bpf that ends the run", id: asm.FnSysBpf, args: []int64{28, name, 8}, err: "helper 166: enough", call: "bpf 28 name 8"},
		{name: "sys_bpf, a test run", id: asm.FnSysBpf, args: []int64{10, name, 8}, want: invalid},
		{name: "sys_bpf, a command that isn't", id: asm.FnSysBpf, args: []int64{-1, name, 8}, want: invalid},
		{name: "sys_bpf of common attributes", id: asm.FnSysBpf, args: []int64{abi.CommonAttrs | 5, name, 8}, want: invalid},
		{name: "sys_bpf of nothing", id: asm.FnSysBpf, args: []int64{5, name, 0}, err: none},
		{name: "sys_bpf, nowhere", id: asm.FnSysBpf, args: []int64{5, 0x1000, 8}, err: none},
		{name: "sys_bpf, beyond the end", id: asm.FnSysBpf, args: []int64{5, at(ctxLen - 7), 8}, err: none},
		{name: "sys_bpf of -1", id: asm.FnSysBpf, args: []int64{5, name, -1}, err: none},
		{name: "sys_bpf of 2^31", id: asm.FnSysBpf, args: []int64{5, name, 1 << 31}, err: none},

		{name: "sys_close", id: asm.FnSysClose, args: []int64{3}, want: 0, call: "close 3"},
		{name: "sys_close, upper half", id: asm.FnSysClose, args: []int64{1<<32 + 3}, want: 0, call: "close 3"},
		{name: "sys_close of -1", id: asm.FnSysClose, args: []int64{-1}, want: -int64(sys.EBADF), call: "close -1"},

		{name: "btf_find", id: asm.FnBtfFindByNameKind, args: []int64{name, 5, 12, 0}, want: 9<<32 | 8, call: "btf name 12"},
		{name: "btf_find of what isn't there", id: asm.FnBtfFindByNameKind, args: []int64{name, 5, 4, 0}, want: -int64(sys.ENOENT), call: "btf name 4"},
		{name: "btf_find, flags", id: asm.FnBtfFindByNameKind, args: []int64{name, 5, 12, 1}, want: invalid},
		{name: "btf_find, flags of 64 bits", id: asm.FnBtfFindByNameKind, args: []int64{name, 5, 12, 1 << 32}, want: 9<<32 | 8, call: "btf name 12"},
		{name: "btf_find, a NUL within", id: asm.FnBtfFindByNameKind, args: []int64{broken, 4, 12, 0}, want: 9<<32 | 8, call: "btf x 12"},
		{name: "btf_find, no NUL", id: asm.FnBtfFindByNameKind, args: []int64{name, 4, 12, 0}, want: invalid},
		{name: "btf_find, an empty name", id: asm.FnBtfFindByNameKind, args: []int64{at(512), 2, 12, 0}, want: 9<<32 | 8, call: "btf  12"},
		{name: "btf_find of 1", id: asm.FnBtfFindByNameKind, args: []int64{0, 1, 12, 0}, want: invalid},
		{name: "btf_find of 0", id: asm.FnBtfFindByNameKind, args: []int64{0, 0, 12, 0}, want: invalid},
		{name: "btf_find of -1", id: asm.FnBtfFindByNameKind, args: []int64{name, -1, 12, 0}, err: "name of -1 bytes"},
		{name: "btf_find of 2^31", id: asm.FnBtfFindByNameKind, args: []int64{name, 1 << 31, 12, 0}, err: "name of -2147483648 bytes"},
		{name: "btf_find of 2^31-1", id: asm.FnBtfFindByNameKind, args: []int64{name, 1<<31 - 1, 12, 0}, err: none},
		{name: "btf_find, nowhere", id: asm.FnBtfFindByNameKind, args: []int64{0, 5, 12, 0}, err: none},

		{name: "kallsyms", id: asm.FnKallsymsLookupName, args: []int64{name, 5, 0, value}, want: 0, call: "symbol name", mem: "\x88\x77\x66\x55\x44\x33\x22\x11"},
		{name: "kallsyms of what isn't there", id: asm.FnKallsymsLookupName, args: []int64{broken, 4, 0, value}, want: -int64(sys.ENOENT), call: "symbol x", mem: zeros},
		{name: "kallsyms, flags", id: asm.FnKallsymsLookupName, args: []int64{name, 5, 1, value}, want: invalid, mem: zeros},
		{name: "kallsyms, no NUL", id: asm.FnKallsymsLookupName, args: []int64{name, 4, 0, value}, want: invalid, mem: zeros},
		{name: "kallsyms, the result over the name", id: asm.FnKallsymsLookupName, args: []int64{name, 5, 0, name}, want: 0, call: "symbol "},
		{name: "kallsyms, a long name", id: asm.FnKallsymsLookupName, args: []int64{long, 5001, 0, value}, want: -int64(sys.ENOENT), call: "symbol " + strings.Repeat("n", maxName), mem: zeros},
		{name: "kallsyms, no room", id: asm.FnKallsymsLookupName, args: []int64{name, 5, 0, value + valueLen - 7}, err: none},
		{name: "kallsyms, to what is read only", id: asm.FnKallsymsLookupName, args: []int64{name, 5, 0, ofMap}, err: none},
		{name: "kallsyms of -1", id: asm.FnKallsymsLookupName, args: []int64{name, -1, 0, value}, err: "name of -1 bytes", mem: zeros},
	} {
		insns := asm.Instructions{
			asm.LoadMapPtr(asm.R0, mapFD), asm.LoadMapPtr(asm.R0, mapFD+1),
			asm.Mov.Reg(asm.R6, asm.R1),
		}
		for i, v := range c.args {
			insns = append(insns, asm.LoadImm(asm.R1+asm.Register(i), v, asm.DWord))
		}
		p := parse(t, append(insns, c.id.Call(), asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord), asm.Return()))
		ctx := make([]byte, ctxLen)
		copy(ctx[8:], "name\x00")
		copy(ctx[16:], "x\x00y\x00")
		copy(ctx[longStart:], strings.Repeat("n", 5000))
		m := Map{Value: append([]byte("value"), make([]byte, valueLen-5)...)}

		call := ""
		_, err := p.Run(ctx, []Map{m, {}}, recorder(&call))
		switch got := int64(binary.LittleEndian.Uint64(ctx)); {
		case c.err != "":
			wantErr(t, c.name, err, c.err)
		case err != nil || got != c.want:
			t.Errorf("%s: got %d, %v, wanted %d", c.name, got, err, c.want)
		}
		if call != c.call {
			t.Errorf("%s: called %.100q, wanted %.100q", c.name, call, c.call)
		}
		if c.mem == "" {
			c.mem = "value"
		}
		if !bytes.HasPrefix(m.Value, []byte(c.mem)) {
			t.Errorf("%s: left %q, wanted %q", c.name, m.Value, c.mem)
		}
	}
}

// recorder is an Env that says how it was called last.
func recorder(call *string) *fakeEnv {
	return &fakeEnv{
		sysBPF: func(cmd abi.Command, attr uint64, size uint32, mem *Memory) (int, error) {
			p := make([]byte, size)
			if n, _ := mem.Read(attr, p); n < len(p) {
				return 0, errors.New("no attribute")
			}
			text, _, _ := bytes.Cut(p, []byte{0})
			*call = fmt.Sprintf("bpf %d %s %d", cmd, text, size)
			switch cmd {
			case 22:
				return -int(sys.EPERM), nil
			case abi.LinkCreate:
				return 0, errors.New("enough")
			}
			return 3, nil
		},
		sysClose: func(fd int32) sys.Errno {
			*call = fmt.Sprintf("close %d", fd)
			if fd < 0 {
				return sys.EBADF
			}
			return 0
		},
		btfFind: func(name string, kind uint32) (uint32, int32, sys.Errno) {
			*call = fmt.Sprintf("btf %s %d", name, kind)
			if kind != 12 {
				return 0, 0, sys.ENOENT
			}
			return 8, 9, 0
		},
		kallsyms: func(name string) (uint64, sys.Errno) {
			*call = "symbol " + name
			if name == "x" || len(name) > 512 {
				return 0, sys.ENOENT
			}
			return 0x1122334455667788, 0
		},
		readUser: func(addr uint64, p []byte) (int, sys.Errno) {
			*call = fmt.Sprintf("read %#x %d", addr, len(p))
			n := copy(p, "user")
			switch addr {
			case 0x1000:
				return n, 0
			case 0x2000:
				return 1, 0
			}
			return 0, sys.EFAULT
		},
	}
}
