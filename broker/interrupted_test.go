package broker

import (
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/request"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestCalls: the same call of the same thread goes to who performs it, the newest one
// alone; another one doesn't.
func TestCalls(t *testing.T) {
	c := newCalls()
	call := func(cookie uint64, ip uint64, arg uint64) *notify.Notification {
		return &notify.Notification{Cookie: cookie, TID: 7, Data: sys.SeccompData{InstructionPointer: ip, Args: [6]uint64{arg}}}
	}
	q := func(data string) *request.Request {
		return &request.Request{Attr: make([]byte, abi.AttrSize), Buffers: []request.Buffer{{Data: []byte(data)}}}
	}
	begin := func(tid int, n *notify.Notification, q *request.Request) (*ongoing, <-chan struct{}) {
		return c.begin(tid, c.key(n, q), n)
	}
	first, over := begin(7, call(1, 10, 5), q("a"))
	if first == nil || over != nil {
		t.Fatal("a call isn't begun")
	}
	for what, other := range map[string]struct {
		tid  int
		n    *notify.Notification
		data string
	}{"thread": {8, call(2, 10, 5), "a"}, "place": {7, call(2, 11, 5), "a"}, "argument": {7, call(2, 10, 6), "a"}, "memory": {7, call(2, 10, 5), "b"}} {
		o, _ := begin(other.tid, other.n, q(other.data))
		if o == nil {
			t.Errorf("a call of another %s is taken for the same", what)
		} else if c.end(other.tid, o) != nil {
			t.Errorf("another %s: it was made again", what)
		}
	}
	_, second := begin(7, call(3, 10, 5), q("a"))
	_, third := begin(7, call(4, 10, 5), q("a"))
	if second == nil || third == nil || !isClosed(second) || isClosed(third) {
		t.Fatal("the newest isn't the one that is kept")
	}
	a := c.end(7, first)
	if a == nil || a.n.Cookie != 4 || isClosed(third) {
		t.Fatalf("the call isn't kept for when it was made again: %+v", a)
	}
	if close(a.over); !isClosed(third) {
		t.Error("who waits isn't told")
	}
	if c.end(7, first) != nil || len(c.ongoing) != 0 {
		t.Errorf("something is left: %+v", c.ongoing)
	}
}
