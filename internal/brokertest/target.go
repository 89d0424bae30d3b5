package brokertest

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Target is a request.Target and a reply.Memory that is made up.
type Target struct {
	Space
	Files map[int]abi.Object // its open fds; 0: open, of no kind that bpf() takes
	Links map[int][]byte     // of its links, what the kernel says: struct bpf_link_info

	Taken []int // what Take was asked for, in order
}

// Take implements request.Target.
func (t *Target) Take(n int) (abi.Object, sys.Errno) {
	t.Taken = append(t.Taken, n)
	kind, ok := t.Files[n]
	if !ok {
		return 0, sys.EBADF
	}
	return kind, 0
}

// LinkInfo implements request.Target.
func (t *Target) LinkInfo(n int, info []byte) sys.Errno {
	if t.Files[n]&abi.Link == 0 {
		return sys.EINVAL
	}
	copy(info, t.Links[n])
	return 0
}
