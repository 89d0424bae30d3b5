package helper

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/workload"
)

// TestLives asks about many objects, which takes several packets.
func TestLives(t *testing.T) {
	p := newPair(t, trusted(t))
	fd, id := newMap(t)
	var ask []workload.Held
	for i := range uint32(2*maxAsk + 3) {
		ask = append(ask, workload.Held{Kind: abi.Map, ID: 1<<30 + i})
	}
	for _, i := range []int{0, 9, maxAsk, len(ask) - 1} {
		ask[i].ID = id
	}
	ask[9].Kind = abi.Token // what isn't counted
	got, err := p.client.Lives(ask)
	if err != nil || len(got) != len(ask) {
		t.Fatalf("%d answers, %v", len(got), err)
	}
	for i, is := range got {
		if want := i == 0 || i == maxAsk || i == len(ask)-1; is != want {
			t.Errorf("object %d: lives: %v", i, is)
		}
	}
	if got, err := p.client.Lives([]workload.Held{{Kind: abi.Prog, ID: id + 1<<29}, {Kind: abi.Link, ID: id}}); err != nil || len(got) != 2 || got[0] {
		t.Errorf("of other kinds: %v, %v", got, err)
	}
	sys.Close(fd)
	if got, err := p.client.Lives(ask[:1]); err != nil || got[0] {
		t.Errorf("after its last fd is closed: %v, %v", got, err)
	}
	if got, err := p.client.Lives(nil); err != nil || len(got) != 0 {
		t.Errorf("of none: %v, %v", got, err)
	}
}

// TestLivesAgain: a daemon is killed before it answers, one has nonsense for an answer.
func TestLivesAgain(t *testing.T) {
	theirs, ours, err := sys.PacketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	defer ours.Close()
	sock, bell := int(ours.Fd()), uint32(0)
	c := new(Channel).NewClient(&sock, &bell)
	failed := make(chan error, 1)
	go func() {
		failed <- func() error {
			buf := make([]byte, packetSize)
			asked := func() (uint32, error) {
				if ok, err := sys.WaitReadable(int(theirs.Fd()), 10*time.Second); !ok {
					return 0, fmt.Errorf("nobody asks (%v)", err)
				}
				n, _, err := sys.RecvWithFDs(int(theirs.Fd()), buf)
				if err == nil && (n != askHead+9*askEach || buf[0] != kindAsk || buf[1] != askLives) {
					err = fmt.Errorf("asked % x", buf[:n])
				}
				return binary.LittleEndian.Uint32(buf[2:]), err
			}
			say := func(b ...byte) error { return sys.SendWithFDs(int(theirs.Fd()), b) }
			if _, err := asked(); err != nil {
				return err
			}
			if err := say(kindAgain); err != nil {
				return err
			}
			seq, err := asked()
			if err != nil {
				return err
			}
			if err := say(byte(seq)-1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1); err != nil { // of another question
				return err
			}
			if err := say(byte(seq), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1); err != nil {
				return err
			}
			if seq, err = asked(); err != nil {
				return err
			}
			return say(byte(seq), 0, 0, 0, 1)
		}()
	}()
	got, err := c.Lives(make([]workload.Held, 9))
	if fmt.Sprint(got, err) != "[true false false false false false false true true] <nil>" {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := c.Lives(make([]workload.Held, 9)); err == nil {
		t.Errorf("a short answer: %v", got)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
