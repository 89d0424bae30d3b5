package loader

import (
	"bytes"
	"testing"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// testMemory is a run's, with a context of 4 bytes and a map with a value of 8.
func testMemory() *Memory {
	m := &Memory{regions: make([]region, regionMaps+2)}
	m.regions[regionCtx].data = []byte{1, 2, 3, 4}
	m.regions[valueOf(0)].data = []byte{11, 12, 13, 14, 15, 16, 17, 18}
	m.regions[structOf(0)] = region{data: bytes.Repeat([]byte{9}, 32), readOnly: true}
	return m
}

func TestMemory(t *testing.T) {
	ctx, value, hash := addrOf(regionCtx), addrOf(valueOf(0)), addrOf(structOf(0))
	for _, c := range []struct {
		name        string
		addr        uint64
		n           int
		read, wrote int // how many bytes; -1: EFAULT
	}{
		{"a region", ctx, 4, 4, 4},
		{"a part", value + 3, 2, 2, 2},
		{"the last byte", value + 7, 1, 1, 1},
		{"beyond the end", value + 6, 8, 2, 2},
		{"at the end", value + 8, 1, -1, -1},
		{"at the end, nothing", value + 8, 0, 0, 0},
		{"before the beginning", value - 1, 8, -1, -1},
		{"an empty region", addrOf(regionStack), 1, -1, -1},
		{"what is read only", hash, 32, 32, -1},
		{"what is read only, nothing", hash, 0, 0, 0},
		{"beyond what is read only", hash + 31, 2, 1, -1},
		{"the first address", base, 1, -1, -1},
		{"before the first address", base - 1, 1, -1, -1},
		{"the last address", base + uint64(regionMaps+2)*span - 1, 1, -1, -1},
		{"after the last address", base + uint64(regionMaps+2)*span, 1, -1, -1},
		{"a context's distance after the last", addrOf(regionMaps + 2), 1, -1, -1},
		{"0", 0, 1, -1, -1},
		{"the highest of all", ^uint64(0), 1, -1, -1},
		{"a whole span on", ctx + span, 1, -1, -1},
	} {
		m := testMemory()
		check := func(what string, want, n int, e sys.Errno) {
			wantErrno := sys.Errno(0)
			if want < 0 {
				want, wantErrno = 0, sys.EFAULT
			}
			if n != want || e != wantErrno {
				t.Errorf("%s: %s %d bytes, %v, wanted %d, %v", c.name, what, n, e, want, wantErrno)
			}
		}
		old := make([]byte, c.n)
		n, e := m.Read(c.addr, old)
		check("read", c.read, n, e)

		if all := m.ReadAll([]sys.Segment{{Addr: ctx, Data: make([]byte, 4)}, {Addr: c.addr, Data: make([]byte, c.n)}}); all != (c.read == c.n) {
			t.Errorf("%s: read all of it: %v", c.name, all)
		}

		p := bytes.Repeat([]byte{0xaa}, c.n)
		n, e = m.Write(c.addr, p)
		check("wrote", c.wrote, n, e)
		if n > 0 {
			got := make([]byte, n)
			m.Read(c.addr, got)
			if !bytes.Equal(got, p[:n]) {
				t.Errorf("%s: %x was written, and %x read", c.name, p[:n], got)
			}
			m.Write(c.addr, old[:n])
		}
		for i, r := range testMemory().regions {
			if !bytes.Equal(r.data, m.regions[i].data) {
				t.Errorf("%s: wrote to region %d, which is %x", c.name, i, m.regions[i].data)
			}
		}
	}
}

func TestMemoryReadAll(t *testing.T) {
	m := testMemory()
	a, b := make([]byte, 2), make([]byte, 3)
	if !m.ReadAll([]sys.Segment{{Addr: addrOf(regionCtx), Data: a}, {Addr: addrOf(valueOf(0)) + 5, Data: b}}) || !bytes.Equal(a, []byte{1, 2}) || !bytes.Equal(b, []byte{16, 17, 18}) {
		t.Errorf("got %v, %v", a, b)
	}
	if !m.ReadAll(nil) {
		t.Error("nothing to read isn't there")
	}
}

// No address of a program's looks like one of user space, nor does any of user space like
// a program's.
func TestMemoryHas(t *testing.T) {
	m := testMemory()
	last := base + uint64(len(m.regions))*span - 1
	for _, addr := range []uint64{base, addrOf(regionCtx), addrOf(structOf(0)), last} {
		if !m.Has(addr) {
			t.Errorf("%#x isn't the program's", addr)
		}
		if int64(addr) > 0 || addr<<8>>63 == 0 {
			t.Errorf("%#x may be an address of user space, the upper byte being a tag", addr)
		}
	}
	for _, addr := range []uint64{0, 1, 0x7fff_ffff_f000, 1<<56 - 1, base - 1, last + 1, 0xffff_8880_0000_0000, ^uint64(0)} {
		if m.Has(addr) {
			t.Errorf("%#x is the program's", addr)
		}
	}
}
