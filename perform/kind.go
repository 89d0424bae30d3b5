package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// kinds of files, as abi speaks of them.
var kinds = map[sys.FileKind]abi.Object{
	sys.MapFile:        abi.Map,
	sys.ProgFile:       abi.Prog,
	sys.LinkFile:       abi.Link,
	sys.BTFFile:        abi.BTF,
	sys.TokenFile:      abi.Token,
	sys.PerfEventFile:  abi.PerfEvent,
	sys.PidfdFile:      abi.Pidfd,
	sys.NamespaceFile:  abi.Netns,
	sys.DirectoryFile:  abi.Cgroup | abi.Directory | abi.Bpffs,
	sys.CharDeviceFile: abi.Lirc,
	sys.StatsFile:      abi.Stats,
}

// ObjectOf says what a file of kind k is for bpf(); 0: nothing that it takes.
func ObjectOf(k sys.FileKind) abi.Object { return kinds[k] }

// FileKindOf is ObjectOf the other way.
func FileKindOf(o abi.Object) sys.FileKind {
	for k, of := range kinds {
		if of == o {
			return k
		}
	}
	return sys.OtherFile
}

// ObjectAt says what the file at fd is for bpf(); 0: nothing that it takes, or none.
func ObjectAt(fd int) abi.Object {
	k, _ := sys.KindOf(fd)
	return ObjectOf(k)
}
