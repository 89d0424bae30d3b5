package perform

import (
	"bytes"
	"slices"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/loader"
	"github.com/bpfbroker/bpfbroker/request"
)

// A program of type BPF_PROG_TYPE_SYSCALL makes bpf() calls when it is run, such as the
// loader of a light skeleton: with the rights of whoever runs it, and past every seccomp
// filter. So it never comes into a workload's hands. The kernel verifies it, and the
// workload gets a stub, a program of the same type that does nothing. Where the stub is
// run, the broker interprets what it stands for (package loader).
//
// A stub refers to all that is needed for that: a map that holds the program (its code),
// and the maps that the program names. So nothing needs to be remembered: the stub lives,
// and goes by fds, pins and ids, as the program would. And nothing is gained by forging
// one: whatever is interpreted, each of its calls is decided.

const (
	// codeName is the name of the map of the code.
	codeName = "bpfbroker.stub"
	// maxCode is as much as such a map holds: how many maps the instructions name; for
	// each the number of its map; the instructions.
	maxCode = numberSize + loader.MaxMaps*numberSize + loader.MaxInsns*insnSize

	numberSize = 4
	insnSize   = 8
)

var (
	syscallType, _ = abi.ProgTypes.Value("syscall")
	arrayType, _   = abi.MapTypes.Value("array")
)

// isLoader says whether a request loads a program that gets a stub.
func isLoader(q *request.Request) bool {
	return q.Command == abi.ProgLoad && q.Field("prog_type") == syscallType
}

// replace puts a stub in the place of the program that the request has loaded. That the
// program can't be interpreted is said when it is run: those that only try out what the
// kernel has never run theirs.
func (p *Performer) replace(q *request.Request, r *Result, at Place) {
	sys.Close(r.Value)
	r.Value = 0
	insns := q.Buffer("insns").Data
	var names []loader.MapRef
	if prog, err := loader.Parse(insns); err == nil {
		names = prog.Maps()
	}
	numbers, maps := places(q, names)
	code, e := p.codeMap(numbers, insns)
	if e == 0 {
		defer sys.Close(code)
		p.host.Made(code)
		r.Value, e = p.stub(q, at, append([]int{code}, maps...))
	}
	r.Errno = e
}

// places finds the maps that a program names, each once, as the kernel counts them, and
// for each name the number of its map, behind how many there are.
func places(q *request.Request, names []loader.MapRef) (numbers []byte, maps []int) {
	var ids []uint32
	numbers = append(numbers, byte(len(names)), 0, 0, 0)
	for _, name := range names {
		fd := int(name.N)
		if name.Index {
			fd = -1
			if array := q.Buffer("fd_array"); array != nil {
				fd = int(int32(abi.Uint(array.Data, uint32(name.N)*numberSize, numberSize)))
			}
		}
		id := ObjectID(abi.Map, fd)
		n := 0
		for n < len(ids) && ids[n] != id {
			n++
		}
		if n == len(ids) {
			ids, maps = append(ids, id), append(maps, fd)
		}
		numbers = append(numbers, byte(n), 0, 0, 0)
	}
	return numbers, maps
}

// oneCode lets one thread at a time join the pieces of a map of code.
var oneCode sync.Mutex

// codeMap makes the map of the code, which nobody can change.
func (p *Performer) codeMap(numbers, insns []byte) (int, sys.Errno) {
	const readOnly = 1 << 7 // BPF_F_RDONLY_PROG
	o := own(abi.MapCreate)
	o.put("map_type", arrayType)
	o.put("key_size", 4)
	o.put("value_size", uint64(len(insns)+len(numbers)))
	o.put("max_entries", 1)
	o.put("map_flags", readOnly)
	o.name("map_name", []byte(codeName))
	fd, e := o.doWith(p)
	if e != 0 {
		return -1, e
	}
	oneCode.Lock()
	e = UpdateElem(fd, make([]byte, 4), slices.Concat(numbers, insns), 0)
	oneCode.Unlock()
	if e == 0 {
		e = Freeze(fd)
	}
	if e != 0 {
		sys.Close(fd)
		return -1, e
	}
	return fd, 0
}

// stub loads the stub of a program: r1 = each map; r0 = 0; exit.
func (p *Performer) stub(q *request.Request, at Place, maps []int) (int, sys.Errno) {
	var insns []byte
	for _, fd := range maps {
		const ldImm64, pseudoMapFD = 0x18, 1
		insns = append(insns, instruction(ldImm64, 1|pseudoMapFD<<4, int32(fd))...)
		insns = append(insns, instruction(0, 0, 0)...)
	}
	const mov64Imm, exit = 0xb7, 0x95
	insns = append(insns, instruction(mov64Imm, 0, 0)...)
	insns = append(insns, instruction(exit, 0, 0)...)
	o := own(abi.ProgLoad)
	for _, same := range []string{"prog_type", "prog_flags", "expected_attach_type"} {
		o.put(same, q.Field(same)&^fromApplication[same])
	}
	name := q.Row.Field("prog_name")
	o.name("prog_name", q.Attr[name.Offset:name.Offset+name.Size])
	o.point("insns", insns)
	o.put("insn_cnt", uint64(len(insns)/insnSize))
	o.point("license", []byte("GPL\x00"))
	if e := at.Enter(needs(q)); e != 0 {
		return -1, e
	}
	defer at.Leave()
	return o.doWith(p)
}

// fromApplication are flags that speak of what a stub doesn't have.
var fromApplication = map[string]uint64{"prog_flags": abi.FTokenFD}

func instruction(code, regs byte, imm int32) []byte {
	b := make([]byte, insnSize)
	b[0], b[1] = code, regs
	abi.Put(b, 4, 4, uint64(uint32(imm)))
	return b
}

// Stub is what a stub stands for.
type Stub struct {
	Insns []byte
	maps  []int  // the maps' fds
	names []byte // for each map that the instructions name, its number among them
}

// Map is the fd of the i-th map that the instructions name, -1 for none.
func (s *Stub) Map(i int) int {
	if at := i * numberSize; at+numberSize <= len(s.names) {
		if n := abi.Uint(s.names, uint32(at), numberSize); n < uint64(len(s.maps)) {
			return s.maps[n]
		}
	}
	return -1
}

// OpenStub opens what the stub at fd stands for. nil: it is no stub. keep is called for
// each fd that is opened, moves it to where it may stay, and closes it at last.
func (p *Performer) OpenStub(fd int, at Place, keep func(fd int) (int, sys.Errno)) (*Stub, sys.Errno) {
	info, ids := make([]byte, abi.ProgInfo.Size), make([]byte, numberSize*loader.MaxMaps)
	count := abi.ProgInfo.Field("nr_map_ids")
	if e := ObjectInfo(fd, info); e != 0 {
		return nil, e
	}
	if abi.ProgInfo.Field("type").Uint(info) != syscallType || count.Uint(info) == 0 {
		return nil, 0
	}
	clear(info)
	count.Put(info, loader.MaxMaps)
	abi.ProgInfo.Field("map_ids").Put(info, sys.Addr(ids))
	if e := ObjectInfo(fd, info); e != 0 {
		return nil, e
	}
	s := &Stub{}
	for i := range uint32(min(count.Uint(info), loader.MaxMaps)) {
		m, e := p.mapByID(abi.Uint(ids, i*numberSize, numberSize), at)
		if e == 0 {
			m, e = keep(m)
		}
		if e != 0 {
			return nil, e
		}
		if i > 0 {
			s.maps = append(s.maps, m)
		} else if is, e := s.read(m); e != 0 || !is {
			return nil, e
		}
	}
	return s, 0
}

// read reads the code from the map that holds it. False: it holds none.
func (s *Stub) read(fd int) (bool, sys.Errno) {
	info := make([]byte, abi.MapInfo.Size)
	if e := ObjectInfo(fd, info); e != 0 {
		return false, e
	}
	name, size := abi.MapInfo.Field("name"), abi.MapInfo.Field("value_size").Uint(info)
	if got, _, _ := bytes.Cut(info[name.Offset:name.Offset+name.Size], []byte{0}); string(got) != codeName || size > maxCode {
		return false, 0
	}
	code := make([]byte, size)
	if e := LookupElem(fd, make([]byte, 4), code); e != 0 {
		return false, e
	}
	names := numberSize + numberSize*abi.Uint(code, 0, numberSize)
	if names > size {
		return false, 0
	}
	s.names, s.Insns = code[numberSize:names], code[names:]
	return true, 0
}

// mapByID opens a map of the workload's.
func (p *Performer) mapByID(id uint64, at Place) (int, sys.Errno) {
	o := own(abi.MapGetFDByID)
	o.put("map_id", id)
	r, e := o.ask(p, at)
	if e != 0 {
		return -1, e
	}
	return r.FD, 0
}
