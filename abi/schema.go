package abi

// Command is the first argument of bpf(): enum bpf_cmd of
// include/uapi/linux/bpf.h.
type Command uint32

// CommonAttrs is the flag BPF_COMMON_ATTRS that kernels after 6.18 or into the
// command. This table doesn't know the attribute that comes with it, so such a
// command is answered as Linux 6.18 does: EINVAL.
const CommonAttrs = 1 << 16

// Class says what a field is. Every field has exactly one.
type Class uint8

const (
	Scalar  Class = iota + 1 // a plain number, copied as it is
	Enum                     // a number out of Field.Values
	Flags                    // a bit set out of Field.Values
	Name                     // char[16], NUL-terminated, [A-Za-z0-9_.]
	FD                       // a file descriptor of the target
	ID                       // a kernel-wide object id
	Ifindex                  // a network interface index, in a network namespace
	PID                      // a process or thread id, in a pid namespace
	UID                      // a user id, in a user namespace
	Pointer                  // an address in the target's memory
	Bytes                    // a fixed array of bytes
)

var classNames = [...]string{Scalar: "scalar", Enum: "enum", Flags: "flags", Name: "name", FD: "fd", ID: "id", Ifindex: "ifindex", PID: "pid", UID: "uid", Pointer: "pointer", Bytes: "bytes"}

func (c Class) String() string { return classNames[c] }

// Dir says who writes a field or a buffer.
type Dir uint8

const (
	In    Dir = iota // the application writes, the kernel reads
	Out              // the kernel writes and doesn't read
	InOut            // the kernel reads, then writes
)

func (d Dir) String() string { return [...]string{"in", "out", "inout"}[d] }

// Object is a set of kinds of files or objects.
type Object uint32

const (
	Map Object = 1 << iota
	Prog
	Link
	BTF
	Token
	Cgroup    // a directory of cgroup v2
	PerfEvent // from perf_event_open
	Netns     // /proc/PID/ns/net
	Directory // any directory, for path_fd
	Bpffs     // the root directory of a bpffs
	Lirc      // /dev/lircN
	Pidfd     // from pidfd_open
	Stats     // from BPF_ENABLE_STATS
	Iter      // from BPF_ITER_CREATE
)

var objectNames = []string{"map", "prog", "link", "btf", "token", "cgroup", "perf_event", "netns", "directory", "bpffs", "lirc", "pidfd", "stats", "iter"}

// String joins the names of the kinds in the set with "|".
func (o Object) String() string {
	s := ""
	for i, n := range objectNames {
		if o&(1<<i) != 0 {
			if s != "" {
				s += "|"
			}
			s += n
		}
	}
	return s
}

// Field is one member of an attribute, or of a structure that an attribute
// points to. Members of nested structures carry a dotted name
// ("uprobe_multi.path").
type Field struct {
	Name   string
	Offset uint32 // from the start of the attribute or structure, bytes
	Size   uint32 // bytes
	Class  Class
	Dir    Dir     // of the field itself; of what a pointer points to, see Buffer
	Values *Values // Enum, Flags: the names
	Object Object  // FD, ID: of what

	// ZeroIsNone marks an fd or id field where the kernel takes 0 for "none".
	ZeroIsNone bool

	Buffer *Buffer // Pointer: what it points to

	// Maybe marks an output that a call which succeeds may leave as it was. All
	// others are written then, also with the value that they had: into read-only
	// memory, that is EFAULT.
	Maybe bool

	// When holds the conditions under which the kernel reads or writes the
	// field: any one of them suffices; none means always. A field whose
	// condition doesn't hold is performed with the application's value, unless it
	// is a pointer or shares bytes with one (Overlaps): then as zero.
	When     []Cond
	Overlaps bool

	Since string // the first kernel that has it, "" where that is the command's
	Fact  string // its name as a fact, "" for none; package inspect derives those that policies see
	Need  string // what this row can't say yet, "" for nothing
}

// Layout is an ordered list of fields with their offsets: a command's part of
// union bpf_attr, or a structure in memory.
type Layout struct {
	Name   string
	Size   uint32 // bytes
	Fields []Field

	index map[string]int
}

// Field returns the field called name, or nil.
func (l *Layout) Field(name string) *Field {
	if i, ok := l.index[name]; ok {
		return &l.Fields[i]
	}
	return nil
}

// Result says what a successful call returns.
type Result struct {
	FD Object // a new fd of one of these kinds; 0: the value 0
}

// Row describes one command of bpf(), or another system call.
type Row struct {
	Syscall Syscall // SyscallBPF: the fields are those of union bpf_attr; else Command is NoCommand
	Command Command
	Kernel  string // BPF_MAP_CREATE
	Name    string // map_create, as the bpffs delegation options have it
	Since   string // the first kernel that has the command
	Member  string // member of union bpf_attr, "" for the anonymous ones
	Last    string // the kernel's BPF_…_LAST_FIELD: nothing behind it may be set
	Returns Result
	// Args names the fields that are the call's arguments themselves, by their number,
	// where it isn't bpf(); "" for an argument that is none.
	Args []string

	// Native commands act on the caller's own fds and reach nothing else: the
	// seccomp filter leaves them to the kernel. Why says so, or why not.
	Native bool
	Why    string
	// NativeSince is the first kernel that wants no capability for a Native command.
	// On older ones it is intercepted. "": all.
	NativeSince string

	// Creds says that the kernel looks at the uid, gid or groups of whoever
	// performs the command.
	Creds bool

	// Host says which capability of the initial user namespace the kernel asks for
	// whoever performs the command, whatever token it has; "" where it asks for none.
	// Such a command is performed by the daemon. See InfoNeedsHost for one more.
	// (BPF_BTF_GET_FD_BY_ID takes a token, but it would open every BTF of the host.)
	Host string
	// TokenFlags and TokenFD are the fields that name a token (BPF_F_TOKEN_FD in the
	// flags), "" where the command takes none.
	TokenFlags, TokenFD string

	// Effect says that the command does something that remains when its performer
	// dies: all that others do is make an fd, or look.
	Effect bool

	// Order lists the outputs in the order in which the kernel writes them, where
	// that isn't the order of the fields.
	Order []string

	// Net lists the conditions under which the command looks at the network
	// namespace of whoever performs it, beside those with an ifindex field.
	Net []Cond
	// CgroupNS lists those under which it looks at the cgroup namespace.
	CgroupNS []Cond

	Layout
	LastEnd uint32 // offset of the first byte behind Last
}

// Makes says whether the fd that the command returns is of an object that nobody
// had before.
func (r *Row) Makes() bool {
	switch r.Command {
	case ObjGet, ProgGetFDByID, MapGetFDByID, BTFGetFDByID, LinkGetFDByID:
		return false
	}
	return r.Returns.FD != 0
}

// Buffer is what a pointer field points to.
type Buffer struct {
	Dir   Dir
	Elem  Elem
	Len   Len
	Wrote Wrote // Out and InOut: how much of it the kernel wrote
	Path  Path  // a string that is a path in the caller's file system
	Kept  bool  // of a path: the kernel keeps it as it is given, and shows it later
	// Struct is the layout of an Elem Struct. A nil Struct with Elem Struct means
	// that the layout depends on the file that is asked about (see InfoLayout).
	Struct *Layout
}

// Path says what the kernel does with a path.
type Path uint8

const (
	NoPath     Path = iota
	PathOpen        // it is looked up, symbolic links followed
	PathCreate      // its directory is, and a file made there
	PathShown       // the kernel writes it, as seen from the caller's root
)

// Elem says what a buffer is made of.
type Elem uint8

const (
	ElemBytes   Elem = iota + 1
	ElemString       // bytes up to and including a NUL
	ElemInsns        // struct bpf_insn, 8 bytes each, with fds inside
	ElemFDs          // array of s32 fds
	ElemU32          // array of u32
	ElemU64          // array of u64
	ElemStrings      // array of pointers to strings
	ElemStruct       // one structure, Buffer.Struct
)

var elemNames = [...]string{ElemBytes: "bytes", ElemString: "string", ElemInsns: "insns", ElemFDs: "fds", ElemU32: "u32[]", ElemU64: "u64[]", ElemStrings: "string[]", ElemStruct: "struct"}

func (e Elem) String() string { return elemNames[e] }

// Wrote says how the bytes that the kernel wrote are found after the call.
type Wrote uint8

const (
	WroteNothing Wrote = iota // an In buffer
	WroteLog                  // min(true size, size) bytes; see kernel/bpf/log.c, bpf_vlog_finalize
	WroteString               // up to and including the first NUL
	WroteCount                // min(length asked for, length the kernel wrote back)
	WroteElems                // those elements that no longer hold the fill byte 0xff
	WroteStruct               // the structure's first *_len bytes, if the kernel got that far
	WroteAll                  // the whole length, on success
)

func (w Wrote) String() string {
	return [...]string{"", "log", "string", "count", "elements", "struct", "all"}[w]
}

// Len is the rule for a buffer's length in bytes:
// Count × (Elem, or the field Rec), or the fixed length Elem where Count is "".
type Len struct {
	Count string // the field that holds the number of elements
	Elem  uint32 // bytes an element
	Rec   string // the field that holds the bytes an element instead
	Max   uint64 // bytes; what the kernel itself would take at most

	// Clamp names the rule (lengths.go) that may shorten the copy.
	Clamp Clamp
}

// Cond is a conjunction of tests on other fields of the same layout.
type Cond []Test

// Test compares a field with values.
type Test struct {
	Field  string
	Op     Op
	Values []uint64

	offset, size uint32
}

// Op is the comparison of a Test.
type Op uint8

const (
	OpIn      Op = iota + 1 // is one of Values
	OpNotIn                 // is none of Values
	OpHas                   // has all the bits of Values[0]
	OpHasNot                // has none of the bits of Values[0]
	OpNonZero               // isn't 0
)

// Holds says whether any of the conditions holds for the bytes of b, which is
// the whole layout's size; no conditions hold always.
func Holds(conds []Cond, b []byte) bool {
	if len(conds) == 0 {
		return true
	}
	for _, c := range conds {
		ok := true
		for i := range c {
			if !c[i].holds(b) {
				ok = false
				break
			}
		}
		if ok {
			return true
		}
	}
	return false
}

func (t *Test) holds(b []byte) bool {
	v := Uint(b, t.offset, t.size)
	switch t.Op {
	case OpNonZero:
		return v != 0
	case OpHas:
		return v&t.Values[0] == t.Values[0]
	case OpHasNot:
		return v&t.Values[0] == 0
	case OpIn, OpNotIn:
		for _, w := range t.Values {
			if v == w {
				return t.Op == OpIn
			}
		}
		return t.Op == OpNotIn
	}
	return false
}

// Live says whether the kernel looks at the field in an attribute of these bytes.
func (f *Field) Live(b []byte) bool { return Holds(f.When, b) }

// Uint reads the field's value from the bytes of its layout, zero-extended.
func (f *Field) Uint(b []byte) uint64 { return Uint(b, f.Offset, f.Size) }

// Put writes the field's value.
func (f *Field) Put(b []byte, v uint64) { Put(b, f.Offset, f.Size, v) }

// Put writes v at offset in size (1, 2, 4 or 8) little-endian bytes.
func Put(b []byte, offset, size uint32, v uint64) {
	for i := uint32(0); i < size; i++ {
		b[offset+i] = byte(v >> (8 * i))
	}
}

// Uint reads size (1, 2, 4 or 8) little-endian bytes at offset; 0 where b is
// too short. Both architectures that we build for are little-endian.
func Uint(b []byte, offset, size uint32) uint64 {
	if uint64(offset)+uint64(size) > uint64(len(b)) {
		return 0
	}
	var v uint64
	for i := uint32(0); i < size && i < 8; i++ {
		v |= uint64(b[offset+i]) << (8 * i)
	}
	return v
}
