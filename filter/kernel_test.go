package filter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// answered is what the tests' supervisor answers: no bpf() returns it natively.
const answered = unix.Errno(77) // EBADFD

// struct seccomp_notif and seccomp_notif_resp, include/uapi/linux/seccomp.h.
type notif struct {
	id         uint64
	pid, flags uint32
	data       struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
}

type notifResp struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// inChild runs the calling test again in a process of its own, and returns true in
// that process: a filter can't be taken off again. In the parent it reports how
// that went.
func inChild(t *testing.T) bool {
	const env = "BPFBROKER_FILTER_TEST_CHILD"
	if os.Getenv(env) != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		t.Fatalf("a call was not answered in 30 s:\n%s", out)
	case err != nil:
		t.Fatalf("%v:\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("skipped in the child:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("the child ran no test:\n%s", out)
	}
	return false
}

// supervise puts the calling thread under the filter, for good, and starts a
// supervisor, which runs unfiltered on another thread. The channel gets args[0] of
// each notification before the call is answered, with errno 77. A signal (the Go
// runtime sends many) doesn't repeat a notification that was received:
// WAIT_KILLABLE_RECV.
func supervise(t *testing.T) <-chan uint64 {
	t.Helper()
	p, err := Program(native)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	fprog := unix.SockFprog{Len: uint16(len(p)), Filter: (*unix.SockFilter)(unsafe.Pointer(&p[0]))}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(p)
	switch e {
	case 0:
	case unix.EBUSY:
		t.Skip("these tests themselves run under a seccomp listener, and the kernel allows one")
	default:
		t.Fatalf("install filter: %v", e)
	}

	notified := make(chan uint64, 1000)
	go func() {
		for {
			var n notif
			if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
				continue // a signal to us, or to the target before we received, which calls again
			} else if err != nil {
				panic(fmt.Sprintf("receive notification: %v", err))
			}
			notified <- n.data.args[0]
			r := notifResp{id: n.id, error: -int32(answered)}
			if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.ENOENT) {
				panic(fmt.Sprintf("send answer: %v", err))
			}
		}
	}()
	return notified
}

func ioctl(fd uintptr, req uint, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(req), uintptr(p)); e != 0 {
		return e
	}
	return nil
}

// drain returns what was notified since the last call.
func drain(notified <-chan uint64) (args []uint64) {
	for {
		select {
		case a := <-notified:
			args = append(args, a)
		default:
			return args
		}
	}
}

func callBPF(cmd uint64, attr []byte) (int, unix.Errno) {
	r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(unsafe.SliceData(attr))), uintptr(len(attr)))
	return int(r), e
}

// TestKernel: under the filter, native commands do what they do without it, and
// every other one is notified, exactly once, with what the target passed.
func TestKernel(t *testing.T) {
	if !inChild(t) {
		return
	}
	runtime.LockOSThread() // and never unlock: the thread ends with the test

	// With bad fds everywhere, most native commands fail with EBADF, some with
	// EINVAL: whatever it is, it must not change.
	attr := make([]byte, 64)
	for i := range attr {
		attr[i] = 0xff
	}
	highs := []uint64{0, 1 << 32, 0xffffffff << 32}
	isNative := make(map[uint64]bool)
	type outcome struct {
		r int
		e unix.Errno
	}
	before := make(map[uint64][2]outcome)
	both := func(cmd uint64) (o [2]outcome) {
		for i, a := range [][]byte{nil, attr} {
			o[i].r, o[i].e = callBPF(cmd, a)
		}
		return o
	}
	for _, c := range native {
		isNative[uint64(c)] = true
		for _, h := range highs {
			before[h|uint64(c)] = both(h | uint64(c))
		}
	}
	ppid := unix.Getppid()

	notified := supervise(t)

	for cmd := range uint64(129) {
		for _, h := range highs {
			cmd := h | cmd
			got, args := both(cmd), drain(notified)
			if isNative[cmd&0xffffffff] {
				if got != before[cmd] || len(args) != 0 {
					t.Errorf("command %#x: got %v, notified %#x; wanted %v as without the filter, not notified", cmd, got, args, before[cmd])
				}
				continue
			}
			if want := (outcome{-1, answered}); got != [2]outcome{want, want} || len(args) != 2 || args[0] != cmd || args[1] != cmd {
				t.Errorf("command %#x: got %v, notified %#x; wanted errno %d twice, notified as passed", cmd, got, args, answered)
			}
		}
	}
	for _, cmd := range []uint64{1<<16 | 1, 1<<16 | 2, 1<<16 | 5, 1<<31 | 1, 0xffffffff, 0xffffffff_ffff0001} {
		if _, e := callBPF(cmd, nil); e != answered || len(drain(notified)) != 1 {
			t.Errorf("command %#x: got %v, wanted errno %d", cmd, e, answered)
		}
	}
	if got := unix.Getppid(); got != ppid || len(drain(notified)) != 0 {
		t.Errorf("getppid: got %d, wanted %d, not notified", got, ppid)
	}
	// Each other number, unless it is one that would hurt: those that the kernel
	// doesn't have.
	for nr := uintptr(600); nr < 1024; nr++ {
		if _, _, e := unix.Syscall(nr, 1, 0, 0); e != unix.ENOSYS || len(drain(notified)) != 0 {
			t.Errorf("system call %d: got %v, wanted %v, not notified", nr, e, unix.ENOSYS)
		}
	}
}

// TestKernelForeign: the other ABIs of an x86-64 kernel are no way around.
func TestKernelForeign(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the foreign ABI of arm64 needs a 32-bit ARM program")
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc, for a program that uses int 0x80")
	}
	if !inChild(t) {
		return
	}
	helper := filepath.Join(t.TempDir(), "foreign")
	if out, err := exec.Command(gcc, "-O1", "-static", "-o", helper, "testdata/foreign.c").CombinedOutput(); err != nil {
		t.Fatalf("build testdata/foreign.c: %v\n%s", err, out)
	}
	run := func() map[string]string {
		t.Helper()
		out, err := exec.Command(helper).CombinedOutput()
		if err != nil {
			t.Fatalf("run testdata/foreign.c: %v\n%s", err, out)
		}
		m := make(map[string]string)
		for line := range strings.Lines(string(out)) {
			name, result, _ := strings.Cut(strings.TrimSpace(line), " ")
			m[name] = result
		}
		return m
	}

	runtime.LockOSThread() // exec.Command forks on the calling thread: the helper inherits the filter
	before := run()
	notified := supervise(t)
	after := run()
	args := drain(notified)

	const enosys, as77 = "-38", "-77"
	want := map[string]string{
		"i386-map_lookup_elem":             enosys,
		"i386-map_create":                  enosys,
		"i386-99":                          enosys,
		"i386-signalfd":                    before["i386-signalfd"],
		"i386-getppid":                     "1",
		"x32-map_lookup_elem":              enosys,
		"x32-map_create":                   enosys,
		"x86-64-357":                       enosys, // no such call: the kernel's own answer
		"x86-64-map_lookup_elem":           before["x86-64-map_lookup_elem"],
		"x86-64-map_lookup_elem-high-bits": before["x86-64-map_lookup_elem"],
		"x86-64-nr-high-bits":              as77,
		"x86-64-map_create":                as77,
		"i386-set_bpf":                     enosys,
		"i386-query_bpf":                   before["i386-query_bpf"],
		"i386-tcgets":                      before["i386-tcgets"],
		"x32-set_bpf":                      enosys,
		"x86-64-set_bpf":                   as77,
		"x86-64-set_bpf-high-bits":         as77,
		"x86-64-query_bpf":                 as77,
		"x86-64-tcgets":                    before["x86-64-tcgets"],
		"x86-64-54":                        before["x86-64-54"],
	}
	if before["i386-getppid"] != "1" {
		// CONFIG_IA32_EMULATION is off, or ia32_emulation=0: there is no such way.
		t.Logf("this kernel has no i386 ABI: its calls fail with and without the filter")
		want["i386-getppid"] = before["i386-getppid"]
	} else if before["i386-map_lookup_elem"] == enosys {
		t.Errorf("i386 bpf() gives ENOSYS without the filter: the test shows nothing")
	}
	for name := range want {
		if after[name] != want[name] {
			t.Errorf("%s: got %s under the filter, %s without, wanted %s", name, after[name], before[name], want[name])
		}
	}
	if len(after) != len(want) {
		t.Errorf("got %d results, wanted %d", len(after), len(want))
	}
	if want := []uint64{99, 0, 7, 8, 9}; !slices.Equal(args, want) {
		t.Errorf("notified, first arguments: got %d, wanted %d", args, want)
	}
	t.Logf("without the filter: %v", before)
}
