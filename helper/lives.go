package helper

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Which of the objects that a workload was allowed to make live, the kernel tells root
// alone. The question is a packet: a number, which is the answer's, too, and for each object
// its kind and id; the answer is a bit for each. Whose an object is doesn't matter: a worker
// in the hands of its workload learns which ids there are, and no more.

const (
	livesHead = 1 + 4
	livesEach = 4 + 4
	maxLives  = (packetSize - livesHead) / livesEach // in one packet
)

func appendLives(b []byte, seq uint32, objects []workload.Held) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, kindLives), seq)
	for _, o := range objects {
		b = binary.LittleEndian.AppendUint32(b, uint32(o.Kind))
		b = binary.LittleEndian.AppendUint32(b, o.ID)
	}
	return b
}

// Lives asks which of the objects live. It is for workload.Holdings.Forget.
func (c *Client) Lives(objects []workload.Held) ([]bool, error) {
	c.channel.mu.Lock()
	defer c.channel.mu.Unlock()
	c.room()
	out := make([]bool, 0, len(objects))
	for len(objects) > 0 {
		n := min(len(objects), maxLives)
		bits, err := c.lives(objects[:n])
		if err != nil {
			return nil, fmt.Errorf("ask what lives: %w", err)
		}
		for i := range n {
			out = append(out, bits[i/8]&(1<<(i%8)) != 0)
		}
		objects = objects[n:]
	}
	return out, nil
}

func (c *Client) lives(objects []workload.Held) ([]byte, error) {
	c.drain()
	c.channel.seq++
	seq := c.channel.seq
	ask := func() error { return c.send(c.drain, appendLives(c.out[:0], seq, objects)) }
	if err := ask(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(deadline); ; {
		n, fds, err := c.packet(end)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			sys.Close(fd)
		}
		if n == 1 && c.buf[0] == kindAgain { // another daemon, which may not have been asked
			if err := ask(); err != nil {
				return nil, err
			}
			continue
		}
		r := reader{b: c.buf[:n]}
		if r.u32() != seq { // of a call that nobody waits for any more
			continue
		}
		if len(r.b) != (len(objects)+7)/8 {
			return nil, fmt.Errorf("an answer of %d bytes about %d objects", len(r.b), len(objects))
		}
		return r.b, nil
	}
}

// lives answers that.
func (t *server) lives(b []byte) error {
	r := reader{b: b[1:]}
	seq := r.u32()
	if r.short || len(r.b)%livesEach != 0 {
		return fmt.Errorf("a question of %d bytes", len(b))
	}
	if seq == t.served {
		return nil // it was asked before kindAgain, which made the worker ask again
	}
	t.served = seq
	n := len(r.b) / livesEach
	p := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+(n+7)/8), seq)
	p = p[:4+(n+7)/8]
	for i := range n {
		if lives(workload.Held{Kind: abi.Object(r.u32()), ID: r.u32()}) {
			p[4+i/8] |= 1 << (i % 8)
		}
	}
	return t.send(p)
}

// lives says whether an object does. What is none that is counted doesn't.
func lives(o workload.Held) bool {
	switch o.Kind {
	case abi.Map, abi.Prog, abi.Link:
		return perform.Lives(o.Kind, o.ID)
	}
	return false
}
