package object

import (
	"encoding/binary"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/digest"
)

// loads runs a command, and calls f for each program that it loads, by any of its
// threads and processes (ptrace(2)).
func loads(t *testing.T, cmd *exec.Cmd, f func(name string, p *digest.Program)) {
	t.Helper()
	runtime.LockOSThread() // it traces by thread
	defer runtime.UnlockOSThread()
	var stderr strings.Builder
	cmd.Stdout = io.Discard
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(done); _, _ = io.Copy(&stderr, pipe) }()
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		t.Fatal(err)
	}
	within := map[int]bool{} // in a system call
	for at := pid; ; {
		sig := 0
		switch {
		case status.Stopped() && status.StopSignal() == unix.SIGTRAP|0x80:
			if within[at] = !within[at]; within[at] {
				look(t, at, f)
			}
		case status.Stopped() && status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			sig = int(status.StopSignal())
		}
		if status.Stopped() {
			_ = unix.PtraceSyscall(at, sig) // it may be gone
		}
		if at, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		if at == pid && (status.Exited() || status.Signaled()) {
			break
		}
	}
	<-done
	if status.ExitStatus() != 0 {
		t.Fatalf("%v: exit status %d\n%s", cmd.Args, status.ExitStatus(), stderr.String())
	}
}

// look calls f if a thread is about to load a program.
func look(t *testing.T, tid int, f func(string, *digest.Program)) {
	t.Helper()
	nr, args := arguments(t, tid)
	const progLoad = 5
	if nr != unix.SYS_BPF || args[0] != progLoad {
		return
	}
	attr := memory(t, tid, args[1], int(args[2]))
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(attr[at:]) }
	// union bpf_attr: insn_cnt, insns, prog_name, fd_array.
	p := &digest.Program{Insns: memory(t, tid, binary.LittleEndian.Uint64(attr[8:]), 8*int(u32(4)))}
	name, _, _ := strings.Cut(string(attr[48:64]), "\x00")
	if len(attr) >= 128 {
		if array := binary.LittleEndian.Uint64(attr[120:]); array != 0 {
			p.FDArray = memory(t, tid, array, 64)
		}
	}
	f(name, p)
}

// memory is a part of a thread's.
func memory(t *testing.T, tid int, addr uint64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if n == 0 {
		return b
	}
	got, err := unix.PtracePeekData(tid, uintptr(addr), b)
	if err != nil || got != n {
		t.Fatalf("read %d bytes at %#x: %d, %v", n, addr, got, err)
	}
	return b
}
