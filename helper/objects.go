package helper

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/workload"
)

// What a worker asks about objects: whose they are, whether the workload may see them,
// which of them live, which file systems are mounted for the workload alone (the kernel
// tells root). The question is a packet: what is
// asked, a number, which is the answer's, too, and for each object its kind and id; the
// answer is a byte for each, with those bits that were asked for and are so.
//
// A worker in the hands of its workload learns by it which ids there are on the host, and
// of no object that isn't the workload's anything else.
const (
	askLives = 1 << iota
	askOwn
	askShared
	askSees
	askPrivate // of a device, as sys.Device has it: its id
)

const (
	askHead = 1 + 1 + 4
	askEach = 4 + 4
	maxAsk  = (packetSize - askHead) / askEach // objects in one packet
)

func appendAsk(b []byte, what byte, seq uint32, objects []workload.Held) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, kindAsk, what), seq)
	for _, o := range objects {
		b = binary.LittleEndian.AppendUint32(b, uint32(o.Kind))
		b = binary.LittleEndian.AppendUint32(b, o.ID)
	}
	return b
}

// Lives asks which of the objects live. It is for workload.Holdings.Forget.
func (c *Client) Lives(objects []workload.Held) ([]bool, error) {
	out := make([]bool, 0, len(objects))
	for len(objects) > 0 {
		n := min(len(objects), maxAsk)
		bits, err := c.askAbout(askLives, objects[:n])
		if err != nil {
			return nil, err
		}
		for _, b := range bits {
			out = append(out, b&askLives != 0)
		}
		objects = objects[n:]
	}
	return out, nil
}

// Owns asks whether an object was made for the workload, or else is shared with it. It implements workload.Owner.
func (c *Client) Owns(kind abi.Object, id uint32) (own, shared bool, err error) {
	if c.channel.own.has(kind, id) {
		return true, false, nil
	}
	bits, err := c.askAbout(askOwn|askShared, []workload.Held{{Kind: kind, ID: id}})
	if err != nil {
		return false, false, fmt.Errorf("whose the %v %d is: %w", kind, id, err)
	}
	if own = bits[0]&askOwn != 0; own && kind != abi.Link { // which may come to be another program's
		c.channel.own.add(kind, id)
	}
	return own, bits[0]&askShared != 0, nil
}

// Own notes that the object was made for the workload, so that the daemon needn't be asked.
func (c *Client) Own(kind abi.Object, id uint32) { c.channel.own.add(kind, id) }

// owned are objects that a worker knows to be the workload's, for good: ids don't come to
// mean others'.
type owned struct {
	mu  sync.Mutex
	ids map[uint64]struct{} // kind << 32 | id
}

// maxOwned is how many a worker knows; then it begins anew.
const maxOwned = 1 << 14

func (o *owned) add(kind abi.Object, id uint32) {
	if id == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids == nil || len(o.ids) == maxOwned {
		o.ids = map[uint64]struct{}{}
	}
	o.ids[uint64(kind)<<32|uint64(id)] = struct{}{}
}

func (o *owned) has(kind abi.Object, id uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, is := o.ids[uint64(kind)<<32|uint64(id)]
	return is
}

// Private asks whether a file system in memory is mounted for the workload alone. It
// implements workload.Owner.
func (c *Client) Private(dev uint32) (bool, error) {
	bits, err := c.askAbout(askPrivate, []workload.Held{{ID: dev}})
	return err == nil && bits[0]&askPrivate != 0, err
}

// Sees implements perform.Host.
func (c *Client) Sees(kind abi.Object, id uint32) bool {
	bits, err := c.askAbout(askSees, []workload.Held{{Kind: kind, ID: id}})
	return err == nil && bits[0] != 0
}

// askAbout returns a byte for each of the objects.
func (c *Client) askAbout(what byte, objects []workload.Held) ([]byte, error) {
	c.channel.mu.Lock()
	defer c.channel.mu.Unlock()
	c.room()
	c.drain()
	c.channel.seq++
	seq := c.channel.seq
	ask := func() error { return c.send(c.drain, appendAsk(c.out[:0], what, seq, objects)) }
	if err := ask(); err != nil {
		return nil, fmt.Errorf("ask about objects: %w", err)
	}
	for end := time.Now().Add(deadline); ; {
		n, fds, err := c.packet(end)
		if err != nil {
			return nil, fmt.Errorf("ask about objects: %w", err)
		}
		for _, fd := range fds {
			sys.Close(fd)
		}
		if n == 1 && c.buf[0] == kindAgain { // another daemon, which may not have been asked
			if err := ask(); err != nil {
				return nil, fmt.Errorf("ask about objects: %w", err)
			}
			continue
		}
		r := reader{b: c.buf[:n]}
		if r.u32() != seq { // of a call that nobody waits for any more
			continue
		}
		if len(r.b) != len(objects) {
			return nil, fmt.Errorf("ask about objects: an answer of %d bytes about %d", len(r.b), len(objects))
		}
		return append([]byte(nil), r.b...), nil
	}
}

// parseAsk returns what is asked about which objects, of a packet of kindAsk.
func parseAsk(b []byte) (what byte, seq uint32, objects []workload.Held, err error) {
	r := reader{b: b[1:]}
	what, seq = r.u8(), r.u32()
	if r.short || len(r.b)%askEach != 0 || what&askPrivate != 0 && len(r.b) != askEach { // that takes long
		return 0, 0, nil, fmt.Errorf("a question of %d bytes", len(b))
	}
	objects = make([]workload.Held, len(r.b)/askEach)
	for i := range objects {
		objects[i] = workload.Held{Kind: abi.Object(r.u32()), ID: r.u32()}
	}
	return what, seq, objects, nil
}

// about answers that.
func (t *server) about(b []byte) error {
	what, seq, objects, err := parseAsk(b)
	if err != nil {
		return err
	}
	if seq == t.served {
		return nil // it was asked before kindAgain, which made the worker ask again
	}
	t.served = seq
	p := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(objects)), seq)
	for _, o := range objects {
		kind, id := o.Kind, o.ID
		var is byte
		set := func(bit byte, so func() bool) {
			if what&bit != 0 && so() {
				is |= bit
			}
		}
		set(askLives, func() bool { return lives(o) })
		set(askOwn, func() bool { return t.is(t.cfg.Objects.Owns, kind, id) })
		set(askShared, func() bool { return t.shares(kind, id) })
		set(askSees, func() bool { return t.performer.Sees(kind, id) })
		set(askPrivate, func() bool {
			alone, err := t.private(id)
			return alone && err == nil
		})
		p = append(p, is)
	}
	return t.send(p)
}

// private says whether a file system is mounted for the workload alone.
func (t *server) private(dev uint32) (bool, error) {
	return sys.InMemoryBelow(dev, t.cfg.Known.UserNS)
}

// is says whether an object is one of these, or a link of one.
func (t *server) is(these func(abi.Object, uint32) bool, kind abi.Object, id uint32) bool {
	if kind == abi.Link {
		return perform.LinkOf(id, these)
	}
	return these(kind, id)
}

// shares says whether an object isn't the workload's own, and its policy shares it: itself
// or, of a link, its program.
func (t *server) shares(kind abi.Object, id uint32) bool {
	return (t.cfg.Objects.Shares(kind, id) || t.is(t.cfg.Objects.Shares, kind, id)) && !t.is(t.cfg.Objects.Owns, kind, id)
}

// lives says whether an object does. What is none that is counted doesn't; one whose id
// couldn't be asked for is counted as long as the workload lives.
func lives(o workload.Held) bool {
	switch o.Kind {
	case abi.Map, abi.Prog, abi.Link, abi.BTF:
		return o.ID == 0 || perform.Lives(o.Kind, o.ID)
	}
	return false
}
