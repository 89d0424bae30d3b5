package helper

import (
	"encoding/binary"
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// The messages of the channel, a SOCK_SEQPACKET: one packet each, but for an
// answer with more data than a packet holds, which goes on in the next ones.
// Numbers are little-endian. The first byte says what it is.
//
// A worker may be in the hands of its workload: the daemon takes nothing in a
// packet for granted. A daemon is trusted by its workers.
const (
	kindBPFFS  = 1 + iota // number of the worker's fd of an fs context, 4 bytes: to be made a bpffs with the ceiling
	kindReady             // the worker could serve
	kindMade              // fd: a map, program or BTF that was made for the workload
	kindCall              // a call: see Call
	kindError             // why the worker can't serve: text
	kindDone              // daemon to worker: an errno, 4 bytes
	kindGo                // daemon to worker: serve
	kindOpened            // fd: a map, program or BTF that the workload has opened from a pin
	kindAsk               // about objects: see appendAsk
	kindAgain             // daemon to worker: it is another one now, and may not have said kindGo
)

const (
	// packetSize bounds a packet.
	packetSize = 64 << 10
	// maxFDs is how many fds a packet may carry: a call names three at most, and
	// has a network namespace and a path.
	maxFDs = 8
	// maxSegments is how many pieces of memory a call has: the attribute, and what
	// that points to.
	maxSegments = 8
)

// Call is a call as it goes over the channel: the arguments as the target made
// them, but that process ids are the host's, and what they point to.
type Call struct {
	request.Call
	Seq      uint32    // the answer's, too
	HasNetNS bool      // the first fd is the network namespace to make it in
	HasPath  bool      // the next one is what the call's path leads to
	Asks     bool      // the worker asks for itself, see asking
	PathErr  sys.Errno // or why it leads nowhere
	Thread   uint32    // the calling thread, by the host's number
	Numbers  []int32   // of the other fds, in the target's table
	Segments []sys.Segment
}

func appendCall(b []byte, c *Call) []byte {
	le := binary.LittleEndian
	b = append(b, kindCall, byte(c.Syscall), bit(c.HasNetNS)|bit(c.HasPath)<<1|bit(c.Asks)<<2)
	b = le.AppendUint32(b, c.Seq)
	b = le.AppendUint32(b, uint32(c.PathErr))
	b = le.AppendUint32(b, c.Thread)
	b = le.AppendUint32(b, uint32(c.Command))
	b = le.AppendUint64(b, c.Addr)
	b = le.AppendUint32(b, c.Size)
	for _, a := range c.Args {
		b = le.AppendUint64(b, a)
	}
	b = append(b, byte(len(c.Numbers)), byte(len(c.Segments)))
	for _, n := range c.Numbers {
		b = le.AppendUint32(b, uint32(n))
	}
	for _, s := range c.Segments {
		b = le.AppendUint64(b, s.Addr)
		b = le.AppendUint32(b, uint32(len(s.Data)))
		b = append(b, s.Data...)
	}
	return b
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// parseCall reads a packet of kindCall; the segments are parts of b.
func parseCall(b []byte, c *Call) error {
	r := reader{b: b}
	r.u8() // the kind
	*c = Call{Numbers: c.Numbers[:0], Segments: c.Segments[:0]}
	c.Syscall = abi.Syscall(r.u8())
	flags := r.u8()
	c.HasNetNS, c.HasPath, c.Asks = flags&1 != 0, flags&2 != 0, flags&4 != 0
	c.Seq = r.u32()
	c.PathErr = sys.Errno(r.u32())
	c.Thread = r.u32()
	c.Command = abi.Command(r.u32())
	c.Addr = r.u64()
	c.Call.Size = r.u32()
	for i := range c.Args {
		c.Args[i] = r.u64()
	}
	numbers, segments := int(r.u8()), int(r.u8())
	if numbers > maxFDs || segments > maxSegments || flags > 7 {
		return fmt.Errorf("a call with %d fds, %d segments, flags %#x", numbers, segments, flags)
	}
	for range numbers {
		c.Numbers = append(c.Numbers, int32(r.u32()))
	}
	for range segments {
		at, n := r.u64(), int(r.u32())
		c.Segments = append(c.Segments, sys.Segment{Addr: at, Data: r.bytes(n)})
	}
	if c.Syscall != abi.SyscallBPF && (c.Command != abi.NoCommand || abi.RowOfSyscall(c.Syscall) == nil) {
		return fmt.Errorf("a call of system call %d, command %d", c.Syscall, c.Command)
	}
	if r.short || len(r.b) != 0 {
		return fmt.Errorf("a call of %d bytes, which isn't what it says to hold", len(b))
	}
	return nil
}

// answer is what came of a call.
type answer struct {
	Errno       sys.Errno
	Value       int64
	FD          bool // one comes with it
	CloseOnExec bool
	Attr        []byte // abi.AttrSize bytes, or none: the call wasn't made
	// Out are the lengths of the buffers, -1 for none.
	Out []int32
}

func appendAnswer(b []byte, a *answer) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(a.Errno))
	b = le.AppendUint64(b, uint64(a.Value))
	b = append(b, bit(a.FD)|bit(a.CloseOnExec)<<1|bit(len(a.Attr) > 0)<<2)
	b = append(b, a.Attr...)
	b = append(b, byte(len(a.Out)))
	for _, n := range a.Out {
		b = le.AppendUint32(b, uint32(n))
	}
	return b
}

// parseAnswer reads the head of an answer, and returns what follows it.
func parseAnswer(b []byte, a *answer) (rest []byte, err error) {
	r := reader{b: b}
	*a = answer{Errno: sys.Errno(r.u32()), Value: int64(r.u64()), Out: a.Out[:0]}
	flags := r.u8()
	a.FD, a.CloseOnExec = flags&1 != 0, flags&2 != 0
	if flags&4 != 0 {
		a.Attr = r.bytes(int(abi.AttrSize))
	}
	for range r.u8() {
		a.Out = append(a.Out, int32(r.u32()))
	}
	if r.short {
		return nil, fmt.Errorf("an answer of %d bytes, which isn't what it says to hold", len(b))
	}
	return r.b, nil
}

// reader takes numbers from the front of b; short says that they weren't all there.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u8() byte {
	if p := r.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.bytes(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if p := r.bytes(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}
