package workload

import (
	"bytes"
	"fmt"
	"strconv"
)

// Tracepoints are the tracepoints of the kernel by their ids in tracefs: a line for each,
// as "316 sched:sched_switch".
type Tracepoints []byte

// Name is a tracepoint's.
func (t Tracepoints) Name(id uint64) (string, error) {
	key := strconv.AppendUint([]byte{'\n'}, id, 10)
	key = append(key, ' ')
	rest := []byte(t)
	if line := key[1:]; bytes.HasPrefix(rest, line) {
		rest = rest[len(line):]
	} else if at := bytes.Index(rest, key); at >= 0 {
		rest = rest[at+len(key):]
	} else {
		return "", fmt.Errorf("no tracepoint %d was there when the list of them was made", id)
	}
	name, _, _ := bytes.Cut(rest, []byte{'\n'})
	return string(name), nil
}
