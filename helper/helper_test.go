package helper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// The first thread is main's own, as in the daemon: /proc/self/fd is its table.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if err := sys.PlacePoller(); err != nil { // as a daemon does, before anything else
		panic(err)
	}
	brokertest.Main(m)
}

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
}

// pair is a worker's thread and the daemon's side of it. The worker's thread is this
// one: its fds are the process's.
type pair struct {
	t      *testing.T
	server *Server
	sock   int
	client *Client
	mem    *arena.Arena
	ours   *os.File
	bell   uint32
}

func newPair(t *testing.T, pol policy.Policy) *pair {
	t.Helper()
	needRoot(t)
	theirs, ours, err := sys.PacketPair()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, ours: ours, sock: int(ours.Fd()), mem: arena.New(arena.NewBudget(64 << 20))}
	p.server = Serve(Config{Socket: theirs, Known: &workload.Known{}, Policy: pol, Objects: workload.NewObjects(nil), Bell: &p.bell, Worker: os.Getpid()})
	p.client = new(Channel).NewClient(&p.sock, &p.bell)
	t.Cleanup(func() {
		ours.Close()
		<-p.server.Ended()
		theirs.Close()
	})
	return p
}

func trusted(t *testing.T) policy.Policy {
	p, err := policy.Builtin("trusted")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// at is the place of a target that is this process.
type at struct{ perform.Place }

func (at) Enter(perform.Needs) sys.Errno          { return 0 }
func (at) Leave()                                 {}
func (at) UIDIn(uid uint32) (uint32, sys.Errno)   { return uid, 0 }
func (at) PIDIn(pid uint32) (uint32, sys.Errno)   { return pid, 0 }
func (at) PIDFrom(pid uint32) (uint32, sys.Errno) { return pid, 0 }
func (at) TID() uint32                            { return uint32(os.Getpid()) }
func (at) NetNS() (int, sys.Errno)                { return -1, sys.EPERM }
func (at) OpenPath(int, []byte) (int, sys.Errno)  { return -1, sys.ENOENT }

// call makes a call as a worker does for a target whose memory is made up.
func (p *pair) call(c abi.Command, fields map[string]uint64, kinds map[int]abi.Object, space *brokertest.Target) *perform.Result {
	p.t.Helper()
	p.mem.Reset()
	row := abi.RowOf(c)
	attr := make([]byte, row.LastEnd)
	for name, v := range fields {
		row.Field(name).Put(attr, v)
	}
	if space == nil {
		space = &brokertest.Target{}
	}
	space.Files = kinds
	q, e := request.NewReader(p.mem, nil).Read(space, request.Call{Command: c, Addr: space.AtEnd(attr), Size: uint32(len(attr))})
	if e != 0 {
		p.t.Fatalf("read: %v", e)
	}
	return perform.NewForWorker(p.mem, p.client, nil).Do(q, at{}, perform.Quiet, nil)
}

func newMap(t *testing.T) (fd int, id uint32) {
	t.Helper()
	row := abi.RowOf(abi.MapCreate)
	attr := make([]byte, 1024)
	for name, v := range map[string]uint64{"map_type": 2, "key_size": 4, "value_size": 4, "max_entries": 1} {
		row.Field(name).Put(attr, v)
	}
	fd, e := sys.BPF(uint32(abi.MapCreate), attr, row.LastEnd)
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return fd, perform.ObjectID(abi.Map, fd)
}

// A workload finds by id what the worker has shown, and nothing else.
func TestObjects(t *testing.T) {
	p := newPair(t, trusted(t))
	own, ownID := newMap(t)
	_, otherID := newMap(t)
	p.client.Made(own)
	r := p.call(abi.MapGetFDByID, map[string]uint64{"map_id": uint64(ownID)}, nil, nil)
	if r.Errno != 0 || r.FD < 0 || perform.ObjectID(abi.Map, r.FD) != ownID {
		t.Errorf("own map: %+v", r)
	} else {
		sys.Close(r.FD)
	}
	if r := p.call(abi.MapGetFDByID, map[string]uint64{"map_id": uint64(otherID)}, nil, nil); r.Errno != sys.ENOENT || r.FD >= 0 {
		t.Errorf("another's map: %+v", r)
	}
	r = p.call(abi.MapGetNextID, nil, nil, nil)
	if got := uint32(abi.RowOf(abi.MapGetNextID).Field("next_id").Uint(r.Attr)); r.Errno != 0 || got != ownID {
		t.Errorf("the first id: %d, %v, wanted %d", got, r.Errno, ownID)
	}
	if r := p.call(abi.MapGetNextID, map[string]uint64{"start_id": uint64(ownID)}, nil, nil); r.Errno != sys.ENOENT {
		t.Errorf("the second id: %+v", r)
	}
	// What isn't an object isn't one by being shown.
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p.client.Made(int(null.Fd()))
	if r := p.call(abi.MapGetNextID, map[string]uint64{"start_id": uint64(ownID)}, nil, nil); r.Errno != sys.ENOENT {
		t.Errorf("after /dev/null was shown: %+v", r)
	}
}

// An answer may be longer than a packet.
func TestLongAnswer(t *testing.T) {
	p := newPair(t, trusted(t))
	const insns = 20000
	prog := bytes.Repeat([]byte{0xb7, 0, 0, 0, 0, 0, 0, 0}, insns-1) // r0 = 0
	prog = append(prog, 0x95, 0, 0, 0, 0, 0, 0, 0)                   // exit
	license := []byte("GPL\x00")
	row := abi.RowOf(abi.ProgLoad)
	attr := make([]byte, 1024)
	for name, v := range map[string]uint64{"prog_type": 1, "insn_cnt": insns, "insns": sys.Addr(prog), "license": sys.Addr(license)} {
		row.Field(name).Put(attr, v)
	}
	fd, e := sys.BPF(uint32(abi.ProgLoad), attr, row.LastEnd)
	if e != 0 {
		t.Fatal(e)
	}
	defer sys.Close(fd)
	info := make([]byte, abi.ProgInfo.Size)
	var space brokertest.Target
	room := make([]byte, insns*8)
	abi.ProgInfo.Field("xlated_prog_insns").Put(info, space.AtEnd(room))
	abi.ProgInfo.Field("xlated_prog_len").Put(info, uint64(len(room)))
	r := p.call(abi.ObjGetInfoByFD, map[string]uint64{"bpf_fd": uint64(fd), "info_len": uint64(len(info)), "info": space.AtEnd(info)},
		map[int]abi.Object{fd: abi.Prog}, &space)
	if r.Errno != 0 || len(r.Out) != 2 {
		t.Fatalf("%+v", r.Errno)
	}
	if !bytes.Equal(r.Out[1], prog) {
		t.Error("the instructions aren't those that were loaded")
	}
	// The daemon's own addresses aren't the worker's business.
	if v := abi.Uint(r.Out[0], abi.ProgInfo.Field("xlated_prog_insns").Offset, 8); v > 1 {
		t.Errorf("the info has an address of the daemon's: %#x", v)
	}
}

// Whose an object is, the daemon says whatever the policy allows.
func TestOwns(t *testing.T) {
	p := newPair(t, careful{trusted(t)})
	own, id := newMap(t)
	p.client.Made(own)
	_, other := newMap(t)
	for _, c := range []struct {
		kind abi.Object
		id   uint32
		want bool
	}{{abi.Map, id, true}, {abi.Map, other, false}, {abi.Prog, id, false}, {abi.BTF, 1, false}} {
		if got, shared, err := p.client.Owns(c.kind, c.id); got != c.want || shared || err != nil {
			t.Errorf("%v %d: got %v (%v), wanted %v", c.kind, c.id, got, err, c.want)
		}
	}
	if r := p.call(abi.MapGetFDByID, map[string]uint64{"map_id": uint64(id)}, nil, nil); r.Errno != sys.EPERM {
		t.Errorf("opening what may be asked for: %v", r.Errno)
	}
}

// careful allows one command alone.
type careful struct{ policy.Policy }

func (c careful) Decide(f *facts.Facts) policy.Decision {
	if f.Command == "map_get_next_id" {
		return policy.Decision{Verdict: policy.Allow}
	}
	return policy.Decision{}
}

// What the policy doesn't allow, and what needs nobody's help, isn't performed,
// whoever asks.
func TestRefused(t *testing.T) {
	p := newPair(t, careful{trusted(t)})
	own, id := newMap(t)
	p.client.Made(own)
	if r := p.call(abi.MapGetNextID, nil, nil, nil); r.Errno != 0 {
		t.Errorf("what is allowed: %v", r.Errno)
	}
	if r := p.call(abi.MapGetFDByID, map[string]uint64{"map_id": uint64(id)}, nil, nil); r.Errno != sys.EPERM || r.FD >= 0 {
		t.Errorf("what isn't: %+v", r)
	}
	q := newPair(t, trusted(t))
	row := abi.RowOf(abi.MapCreate)
	attr := make([]byte, row.LastEnd)
	for name, v := range map[string]uint64{"map_type": 2, "key_size": 4, "value_size": 4, "max_entries": 1} {
		row.Field(name).Put(attr, v)
	}
	c := Call{Call: request.Call{Command: abi.MapCreate, Addr: 4096, Size: uint32(len(attr))}, Seq: 1, Segments: []sys.Segment{{Addr: 4096, Data: attr}}}
	if a := q.raw(appendCall(nil, &c)); a == nil || a.Errno != sys.EPERM || a.FD {
		t.Errorf("map_create by the daemon: %+v", a)
	}
}

// raw sends a packet, and returns the answer; nil: there is none, the connection
// has ended.
func (p *pair) raw(b []byte, fds ...int) *answer {
	p.t.Helper()
	if err := sys.SendWithFDs(p.sock, b, fds...); err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, packetSize)
	n, got, err := sys.RecvWithFDs(p.sock, buf)
	for _, fd := range got {
		sys.Close(fd)
	}
	if err != nil || n == 0 {
		return nil
	}
	var a answer
	if _, err := parseAnswer(buf[4:n], &a); err != nil {
		p.t.Fatal(err)
	}
	return &a
}

// A worker that sends what none of ours sends isn't served any more.
func TestHostilePackets(t *testing.T) {
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	one := func(c Call) []byte { return appendCall(nil, &c) }
	next := request.Call{Command: abi.MapGetNextID, Addr: 4096, Size: 8}
	segment := []sys.Segment{{Addr: 4096, Data: make([]byte, 8)}}
	for name, packet := range map[string]struct {
		b   []byte
		fds int
	}{
		"unknown kind":          {[]byte{0}, 0},
		"kind of the daemon":    {[]byte{kindDone}, 0},
		"half a call":           {[]byte{kindCall, 0}, 0},
		"fds that aren't there": {one(Call{Call: next, Numbers: []int32{3}, Segments: segment}), 0},
		"fds of nothing":        {one(Call{Call: next, Segments: segment}), 2},
		"more fds than it says": {one(Call{Call: next, HasNetNS: true, Segments: segment}), maxFDs},
		"half a question":       {[]byte{kindAsk, 1, 1, 0}, 0},
		"many devices":          {appendAsk(nil, askPrivate, 1, make([]workload.Held, 2)), 0},
		"half an object":        {[]byte{kindAsk, 1, 1, 0, 0, 0, 1, 0, 0}, 0},
		"a bpffs of nothing":    {[]byte{kindBPFFS}, 1},
	} {
		p := newPair(t, trusted(t))
		var fds []int
		for range packet.fds {
			fds = append(fds, int(null.Fd()))
		}
		if a := p.raw(packet.b, fds...); a != nil {
			t.Errorf("%s: got %+v", name, a)
		}
		<-p.server.Ended()
		if p.server.Err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	p := newPair(t, trusted(t))
	ready := make(chan error)
	go func() { ready <- Ready(p.sock) }()
	if err := <-p.server.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.server.Go(), <-ready); err != nil {
		t.Fatal(err)
	}
	if a := p.raw(append([]byte{kindBPFFS}, 2, 0, 0, 0)); a != nil {
		t.Errorf("a bpffs for a worker that serves: %+v", a)
	}
}

// What a daemon left unanswered when it was killed, the next one is asked again,
// also in the middle of an answer.
func TestAgain(t *testing.T) {
	theirs, ours, err := sys.PacketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	defer ours.Close()
	p := &pair{t: t, sock: int(ours.Fd()), mem: arena.New(arena.NewBudget(1 << 20))}
	p.client = new(Channel).NewClient(&p.sock, &p.bell)
	failed := make(chan error, 1)
	go func() { failed <- daemons(int(theirs.Fd())) }()
	space := &brokertest.Target{}
	row := abi.RowOf(abi.TaskFDQuery)
	text := make([]byte, 200)
	r := p.call(abi.TaskFDQuery, map[string]uint64{"pid": 1, "buf_len": uint64(len(text)), "buf": space.AtEnd(text)}, nil, space)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if r.Errno != 0 || row.Field("prog_id").Uint(r.Attr) != 77 || !bytes.Equal(r.Out[0], bytes.Repeat([]byte{'x'}, 200)) {
		t.Errorf("got %+v", r)
	}
}

// daemons are three of them: one is killed before it answers, one in the middle.
func daemons(sock int) error {
	buf := make([]byte, packetSize)
	var c Call
	asked := func() error {
		if ok, err := sys.WaitReadable(sock, 10*time.Second); !ok {
			return fmt.Errorf("nobody asks (%v)", err)
		}
		n, _, err := sys.RecvWithFDs(sock, buf)
		if err != nil {
			return err
		}
		return parseCall(buf[:n], &c)
	}
	answers := func(whole bool) error {
		attr := make([]byte, abi.AttrSize)
		copy(attr, c.Segments[0].Data)
		abi.RowOf(abi.TaskFDQuery).Field("prog_id").Put(attr, 77)
		seq := []byte{byte(c.Seq), byte(c.Seq >> 8), byte(c.Seq >> 16), byte(c.Seq >> 24)}
		out := bytes.Repeat([]byte{'x'}, 200)
		head := append(appendAnswer(bytes.Clone(seq), &answer{Attr: attr, Out: []int32{200}}), out[:50]...)
		if err := sys.SendWithFDs(sock, head); err != nil || !whole {
			return err
		}
		return sys.SendWithFDs(sock, append(seq, out[50:]...))
	}
	for _, step := range []func() error{
		asked,
		func() error { return sys.SendWithFDs(sock, []byte{kindAgain}) },
		asked,
		func() error { return answers(false) },
		func() error { return sys.SendWithFDs(sock, []byte{kindAgain}) },
		asked,
		func() error { return answers(true) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
