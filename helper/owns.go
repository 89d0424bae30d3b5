package helper

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/request"
)

// owning are the commands by whose packets it is asked whether the workload owns an
// object: the same packets open it, but for a flag (Call.Asks).
var owning = map[abi.Object]abi.Command{abi.Map: abi.MapGetFDByID, abi.Prog: abi.ProgGetFDByID, abi.BTF: abi.BTFGetFDByID}

// Owns asks whether a map, program or BTF was made for the workload, or was opened by it
// from a pin. It implements workload.Owner.
func (c *Client) Owns(kind abi.Object, id uint32) (bool, error) {
	command, ok := owning[kind]
	if !ok {
		return false, fmt.Errorf("nobody owns a %v", kind)
	}
	row := abi.RowOf(command)
	q := &request.Request{Call: request.Call{Command: command, Size: row.LastEnd}, Row: row, Size: row.LastEnd, Attr: make([]byte, abi.AttrSize)}
	row.Fields[0].Put(q.Attr, uint64(id))
	r := &perform.Result{FD: -1, Attr: make([]byte, abi.AttrSize)}
	c.channel.mu.Lock()
	defer c.channel.mu.Unlock()
	c.asks = true
	err := c.exchange(q, r, perform.Where{NetNS: -1, Path: -1})
	c.asks = false
	switch {
	case err == nil && r.Errno == 0:
		return true, nil
	case err == nil && r.Errno == sys.ENOENT:
		return false, nil
	case err == nil:
		err = r.Errno
	}
	return false, fmt.Errorf("ask whose the %v %d is: %w", kind, id, err)
}

// owns answers that. It takes no decision: the policy asks.
func (t *server) owns(seq uint32) error {
	c := &t.call.Call
	r := &perform.Result{FD: -1, Errno: sys.EINVAL}
	for kind, command := range owning {
		if c.Command != command || len(c.Segments) != 1 || c.Syscall != abi.SyscallBPF {
			continue
		}
		if r.Errno = sys.ENOENT; t.cfg.Objects.Owns(kind, uint32(abi.RowOf(command).Fields[0].Uint(c.Segments[0].Data))) {
			r.Errno = 0
		}
	}
	return t.answer(seq, r)
}
