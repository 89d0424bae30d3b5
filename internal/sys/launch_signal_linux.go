package sys

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SignalSet is a set of signals: bit n-1 is signal n.
type SignalSet uint64

// Has says whether a signal is in the set.
func (s SignalSet) Has(sig unix.Signal) bool { return s&(1<<(sig-1)) != 0 }

// sigaction is the kernel's struct sigaction, of x86-64 and arm64 alike.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	sigDFL, sigIGN = 0, 1
	saRestorer     = 0x04000000 // SA_RESTORER
	nSignals       = 64
)

func rtSigaction(sig unix.Signal, to, old *sigaction) Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return e
}

// InheritedIgnored returns the signals that this process was started with
// ignored, as nohup and a shell's & leave them. The Go runtime keeps that for
// SIGHUP and SIGINT and for signals it has no use for; what it replaced, it
// remembers in runtime.fwdSig, which is found by its ELF symbol: in a stripped
// binary (-ldflags=-s) the others count as not ignored.
//
// The answer is right if the first call comes before any use of os/signal.
var InheritedIgnored = sync.OnceValue(func() SignalSet {
	var set SignalSet
	saved := runtimeSavedActions()
	for sig := unix.Signal(1); sig <= nSignals; sig++ {
		var now sigaction
		if rtSigaction(sig, nil, &now) == 0 && now.handler == sigIGN ||
			saved != nil && saved[sig] == sigIGN {
			set |= 1 << (sig - 1)
		}
	}
	return set
})

// runtimeSavedActions returns runtime.fwdSig; nil where it can't be found.
func runtimeSavedActions() *[nSignals + 1]uintptr {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil || e.Type != elf.ET_EXEC { // a PIE's addresses aren't the symbols'
		return nil
	}
	syms, strs := e.Section(".symtab"), e.Section(".strtab")
	if syms == nil || strs == nil {
		return nil
	}
	names, err := strs.Data()
	if err != nil {
		return nil
	}
	at := bytes.Index(names, []byte("\x00runtime.fwdSig\x00"))
	if at < 0 {
		return nil
	}
	table, err := syms.Data()
	if err != nil {
		return nil
	}
	var sym elf.Sym64
	size := binary.Size(sym)
	for ; len(table) >= size; table = table[size:] {
		if binary.LittleEndian.Uint32(table) != uint32(at+1) {
			continue
		}
		if err := binary.Read(bytes.NewReader(table[:size]), binary.LittleEndian, &sym); err != nil {
			return nil
		}
		var saved *[nSignals + 1]uintptr
		if sym.Size != uint64(unsafe.Sizeof(*saved)) {
			return nil // another Go version's
		}
		p := uintptr(sym.Value)
		return *(**[nSignals + 1]uintptr)(unsafe.Pointer(&p))
	}
	return nil
}

// SigInfo is a signal that this process received: the head of siginfo_t.
type SigInfo struct {
	Signal unix.Signal
	Code   int32 // SI_USER, SI_KERNEL, …
	PID    int32 // of the sender, where Code is not positive
	UID    uint32
}

// SignalProcess sends a signal to the process that a pidfd is open at, as kill(2).
func SignalProcess(pidfd int, sig unix.Signal) error {
	return unix.PidfdSendSignal(pidfd, sig, nil, 0)
}

// FromKernel says that no process sent the signal: the terminal did, and so it
// reached the whole foreground process group.
func (s SigInfo) FromKernel() bool { return s.Code > 0 }

const sigInfoSize = 128

// siginfoFD is the pipe that siginfoHandler writes to.
//
//lint:ignore U1000 it is read in assembly
var siginfoFD int32 = -1

// siginfoEntry returns the addresses of siginfoHandler and siginfoReturn.
func siginfoEntry() (handler, restorer uintptr)

// SigInfos receives signals with their siginfo, which os/signal doesn't show.
type SigInfos struct {
	r      *os.File
	fd     int // r's, for reading without waiting
	before map[unix.Signal]sigaction
}

// siginfos is the only one: signals belong to the process. Its pipe stays open
// for good, as a handler may be about to write to it at any moment.
var siginfos struct {
	sync.Mutex
	SigInfos
	inUse bool
}

// CatchSigInfo makes the process receive the signals through the value it
// returns, instead of as they were handled before, until Close. A process does
// so once at a time (EBUSY), and not for signals that os/signal handles. The
// handlers of a child are reset by exec, as ever.
func CatchSigInfo(sigs ...unix.Signal) (*SigInfos, error) {
	siginfos.Lock()
	defer siginfos.Unlock()
	s := &siginfos.SigInfos
	if siginfos.inUse {
		return nil, fmt.Errorf("catch signals: %w", unix.EBUSY)
	}
	if s.r == nil {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return nil, fmt.Errorf("signal pipe: %w", err)
		}
		s.r, s.fd, siginfoFD = os.NewFile(uintptr(p[0]), "signals"), p[0], int32(p[1])
	}
	s.Pending() // what came too late for the one before
	if err := s.r.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("signal pipe: %w", err)
	}
	s.before = make(map[unix.Signal]sigaction)
	if err := s.Catch(sigs...); err != nil {
		return nil, err
	}
	siginfos.inUse = true
	return s, nil
}

// Catch catches more signals.
func (s *SigInfos) Catch(sigs ...unix.Signal) error {
	for _, sig := range sigs {
		var before sigaction
		if e := catchOne(sig, &before); e != 0 {
			return fmt.Errorf("catch %s: %w", unix.SignalName(sig), e)
		}
		if _, again := s.before[sig]; !again {
			s.before[sig] = before
		}
	}
	return nil
}

func catchOne(sig unix.Signal, before *sigaction) Errno {
	h, r := siginfoEntry()
	// ONSTACK: goroutine stacks are too small. RESTART: the runtime relies on it.
	a := sigaction{handler: h, flags: saSiginfo | saOnstack | saRestart, mask: ^uint64(0)}
	if r != 0 {
		a.restorer, a.flags = r, a.flags|saRestorer
	}
	return rtSigaction(sig, &a, before)
}

const (
	saSiginfo = 0x4
	saOnstack = 0x08000000
	saRestart = 0x10000000
)

// Next waits for a signal. An error: Close was called.
func (s *SigInfos) Next() (SigInfo, error) {
	var b [sigInfoSize]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		return SigInfo{}, err
	}
	return parseSigInfo(b), nil
}

// Pending returns what Next would without waiting.
func (s *SigInfos) Pending() []SigInfo {
	var out []SigInfo
	for {
		var b [sigInfoSize]byte
		switch n, err := unix.Read(s.fd, b[:]); {
		case err == unix.EINTR:
		case n != len(b):
			return out
		default:
			out = append(out, parseSigInfo(b))
		}
	}
}

func parseSigInfo(b [sigInfoSize]byte) SigInfo {
	le := binary.LittleEndian
	return SigInfo{
		Signal: unix.Signal(le.Uint32(b[0:])),
		Code:   int32(le.Uint32(b[8:])),
		PID:    int32(le.Uint32(b[16:])),
		UID:    le.Uint32(b[20:]),
	}
}

// SetDefault gives the caught signals their default action, as the program has
// that is executed next. Those that were ignored since are left so.
func (s *SigInfos) SetDefault() {
	h, _ := siginfoEntry()
	for sig := range s.before {
		var now sigaction
		if rtSigaction(sig, nil, &now) == 0 && now.handler == h {
			rtSigaction(sig, &sigaction{handler: sigDFL}, nil)
		}
	}
}

// Close has the signals handled as before CatchSigInfo, and ends Next.
func (s *SigInfos) Close() {
	siginfos.Lock()
	defer siginfos.Unlock()
	for sig, before := range s.before {
		rtSigaction(sig, &before, nil)
	}
	s.before, siginfos.inUse = nil, false
	s.r.SetReadDeadline(time.Unix(1, 0))
}

// StopLike stops this process by the signal's default action, as a shell
// expects of a job. It returns when the process continues; at once if the
// kernel doesn't stop it, which is so for SIGTSTP, SIGTTIN and SIGTTOU in an
// orphaned process group. The signal is caught by CatchSigInfo afterwards.
func StopLike(sig unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if sig != unix.SIGSTOP {
		rtSigaction(sig, &sigaction{handler: sigDFL}, nil)
		defer catchOne(sig, nil)
	}
	// To this thread: so it has acted when tgkill returns.
	unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
}

// DieLike ends this process by the signal's default action, without a core dump.
// It returns where that isn't to die.
func DieLike(sig unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	rtSigaction(sig, &sigaction{handler: sigDFL}, nil)
	set := unix.Sigset_t{}
	set.Val[0] = 1 << (sig - 1)
	unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
	unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
}
