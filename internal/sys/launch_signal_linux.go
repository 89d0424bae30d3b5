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

// FromKernel says that no process sent the signal: the terminal did, and so it
// reached the whole foreground process group.
func (s SigInfo) FromKernel() bool { return s.Code > 0 }

const sigInfoSize = 128

// siginfoFD is the pipe that siginfoHandler (assembly) writes to.
var siginfoFD int32 = -1

// siginfoEntry returns the addresses of siginfoHandler and siginfoReturn.
func siginfoEntry() (handler, restorer uintptr)

// SigInfos receives signals with their siginfo, which os/signal doesn't show.
type SigInfos struct{ r *os.File }

// CatchSigInfo makes the process receive the signals through the value it
// returns instead of by their default action. There is one per process; it must
// not overlap with os/signal. A child's handlers are reset by exec, as ever.
func CatchSigInfo(sigs ...unix.Signal) (*SigInfos, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("signal pipe: %w", err)
	}
	siginfoFD = int32(p[1])
	for _, sig := range sigs {
		if e := catchOne(sig); e != 0 {
			return nil, fmt.Errorf("catch %s: %w", unix.SignalName(sig), e)
		}
	}
	return &SigInfos{os.NewFile(uintptr(p[0]), "signals")}, nil
}

func catchOne(sig unix.Signal) Errno {
	h, r := siginfoEntry()
	// ONSTACK: goroutine stacks are too small. RESTART: the runtime relies on it.
	a := sigaction{handler: h, flags: saSiginfo | saOnstack | saRestart, mask: ^uint64(0)}
	if r != 0 {
		a.restorer, a.flags = r, a.flags|saRestorer
	}
	return rtSigaction(sig, &a, nil)
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
	le := binary.LittleEndian
	return SigInfo{
		Signal: unix.Signal(le.Uint32(b[0:])),
		Code:   int32(le.Uint32(b[8:])),
		PID:    int32(le.Uint32(b[16:])),
		UID:    le.Uint32(b[20:]),
	}, nil
}

// Close ends Next. The signals stay caught, and are lost.
func (s *SigInfos) Close() { s.r.Close() }

// StopLike stops this process by the signal's default action, as a shell
// expects of a job. It returns when the process continues; at once if the
// kernel doesn't stop it, which is so for SIGTSTP, SIGTTIN and SIGTTOU in an
// orphaned process group. The signal is caught by CatchSigInfo afterwards.
func StopLike(sig unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if sig != unix.SIGSTOP {
		rtSigaction(sig, &sigaction{handler: sigDFL}, nil)
		defer catchOne(sig)
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
