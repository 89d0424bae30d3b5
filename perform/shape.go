package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Holds is what the values of a map are.
type Holds uint8

const (
	Others Holds = iota // of another kind, or another size for system calls than for programs
	Bytes               // what is written is read
	FDs                 // an fd is written
)

var holds = func() map[uint64]Holds {
	m := map[uint64]Holds{}
	for h, names := range map[Holds][]string{
		Bytes: {"hash", "array", "lru_hash", "lpm_trie", "queue", "stack"},
		FDs:   {"prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "hash_of_maps"},
	} {
		for _, name := range names {
			n, _ := abi.MapTypes.Value(name)
			m[n] = h
		}
	}
	return m
}()

// Shape is what the elements of a map look like.
type Shape struct {
	Type               uint64
	KeySize, ValueSize uint64 // bytes
	MaxEntries         uint64
	Holds              Holds
}

// ShapeOf asks for that of the map at fd.
func ShapeOf(fd int) (Shape, sys.Errno) {
	info := make([]byte, abi.MapInfo.Size)
	if e := ObjectInfo(fd, info); e != 0 {
		return Shape{}, e
	}
	field := func(name string) uint64 { return abi.MapInfo.Field(name).Uint(info) }
	s := Shape{Type: field("type"), KeySize: field("key_size"), ValueSize: field("value_size"), MaxEntries: field("max_entries")}
	s.Holds = holds[s.Type]
	return s, 0
}

// OfMaps says that there are maps in the map.
func (s Shape) OfMaps() bool {
	name := abi.MapTypes.Name(s.Type)
	return name == "array_of_maps" || name == "hash_of_maps"
}

// Single says that the map is one value: an array of one element.
func (s Shape) Single() bool { return s.Type == arrayType && s.MaxEntries == 1 }
