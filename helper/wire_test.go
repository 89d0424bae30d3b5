package helper

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

func sample() Call {
	return Call{
		Call:   request.Call{Syscall: abi.SyscallPerfEventOpen, Command: abi.NoCommand, Addr: 1 << 40, Size: 77, Args: [6]uint64{1, 2, 3, 4, 5, 1 << 63}},
		Thread: 4711, Asks: true,
		Seq: 9, HasNetNS: true, HasPath: true, PathErr: sys.ENOENT, Numbers: []int32{3, -1, 1 << 30},
		Segments: []sys.Segment{{Addr: 5, Data: []byte("abc")}, {Addr: 1<<64 - 1, Data: []byte{}}},
	}
}

func TestCallOverTheWire(t *testing.T) {
	want := sample()
	var got Call
	if err := parseCall(appendCall(nil, &want), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwanted %+v", got, err, want)
	}
}

func TestAnswerOverTheWire(t *testing.T) {
	want := answer{Errno: sys.ENOSPC, Value: -5, FD: true, CloseOnExec: true, Attr: bytes.Repeat([]byte{7}, int(abi.AttrSize)), Out: []int32{-1, 0, 99}}
	var got answer
	rest, err := parseAnswer(append(appendAnswer(nil, &want), "rest"...), &got)
	if err != nil || !reflect.DeepEqual(got, want) || string(rest) != "rest" {
		t.Errorf("got %+v, %q, %v\nwanted %+v", got, rest, err, want)
	}
}

// What isn't whole, or has something behind it, is no call.
func TestCallCut(t *testing.T) {
	c := sample()
	whole := appendCall(nil, &c)
	for n := range whole {
		if parseCall(whole[:n], &Call{}) == nil {
			t.Errorf("the first %d of %d bytes are a call", n, len(whole))
		}
	}
	if parseCall(append(whole, 0), &Call{}) == nil {
		t.Error("a byte too many is part of a call")
	}
}

// FuzzCall: whatever a worker sends is a call that says the same again, or none.
func FuzzCall(f *testing.F) {
	c := sample()
	f.Add(appendCall(nil, &c))
	f.Add(appendCall(nil, &Call{}))
	f.Add([]byte{kindCall})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // the kind was read before
		}
		var c Call
		if parseCall(b, &c) != nil {
			return
		}
		if len(c.Numbers) > maxFDs || len(c.Segments) > maxSegments {
			t.Fatalf("%d numbers, %d segments", len(c.Numbers), len(c.Segments))
		}
		if got := appendCall(nil, &c); !bytes.Equal(got[1:], b[1:]) {
			t.Errorf("%x\nsays again %x", b, got)
		}
	})
}

// FuzzAnswer: no answer makes the worker go astray.
func FuzzAnswer(f *testing.F) {
	f.Add(appendAnswer(nil, &answer{Attr: make([]byte, abi.AttrSize), Out: []int32{1, -1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a answer
		if rest, err := parseAnswer(b, &a); err == nil && len(rest) > len(b) {
			t.Error("more is left than there was")
		}
	})
}

// FuzzAsk: whatever a worker asks about objects says the same again, or is refused.
func FuzzAsk(f *testing.F) {
	f.Add(appendAsk(nil, askOwn|askShared, 7, []workload.Held{{Kind: abi.Map, ID: 3}, {Kind: abi.Link, ID: 1<<32 - 1}}))
	f.Add(appendAsk(nil, askPrivate, 1, []workload.Held{{ID: 1}}))
	f.Add([]byte{kindAsk})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > packetSize {
			return // the kind was read before; there are no longer packets
		}
		what, seq, objects, err := parseAsk(b)
		if err != nil {
			return
		}
		if len(objects) > maxAsk || what&askPrivate != 0 && len(objects) != 1 {
			t.Fatalf("%d objects are asked about (%#x)", len(objects), what)
		}
		if got := appendAsk(nil, what, seq, objects); !bytes.Equal(got[1:], b[1:]) {
			t.Errorf("%x\nsays again %x", b, got)
		}
	})
}
