package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a workload might try, or do without meaning to, that would make the broker
// act on something else than what it decided, or for someone else, or stop.

// logAddr is where two processes have memory that both know.
const logAddr = 0x7e0000000000

// memoryAt maps n bytes at an address.
func memoryAt(addr uintptr, n int) []byte {
	p, err := unix.MmapPtr(-1, 0, unsafe.Add(nil, addr), uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
	if err != nil {
		fail("mmap: %v", err)
	}
	return unsafe.Slice((*byte)(p), n)
}

// TestRecycledID kills a target while its program is verified, and lets another
// process, outside of the workload, have its id: the log must not land there.
func TestRecycledID(t *testing.T) {
	needRoot(t)
	for range 5 {
		if recycledID(t) {
			return
		}
	}
	t.Fatal("others start too many processes: the id can't be had again")
}

// recycledID returns false if someone else got the id.
func recycledID(t *testing.T) bool {
	s := start(t, brokered(probe("recycled")))
	id, err := strconv.Atoi(s.hear())
	if err != nil {
		t.Fatal(err)
	}
	worker := s.findWorker()
	eventually(t, "the worker at work", func() bool { return cpuTicks(worker) > 20 })
	s.say("kill")
	s.expect("killed")
	for range 20 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(id-1)), 0); err != nil {
			t.Fatal(err)
		}
		b := start(t, probe("bystander"))
		b.expect("filled")
		if b.cmd.Process.Pid == id {
			rest(t, worker)
			b.say("look")
			b.expect("intact")
			b.end(true)
			s.end(true)
			return true
		}
		b.say("look")
		b.expect("intact")
		b.end(true)
	}
	s.end(true)
	return false
}

// cpuTicks is how long a process has run, in ticks of 10 ms.
func cpuTicks(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

// rest waits until a worker has nothing to do any more.
func rest(t *testing.T, worker int) {
	t.Helper()
	eventually(t, "the worker at rest", func() bool {
		before := cpuTicks(worker)
		time.Sleep(500 * time.Millisecond)
		return cpuTicks(worker) == before
	})
}

func init() {
	probes["recycled"] = func() {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), probeEnv+"=recycled-target")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			fail("%v", err)
		}
		if err := c.Start(); err != nil {
			fail("%v", err)
		}
		id, _ := bufio.NewReader(out).ReadString('\n')
		ask(strings.TrimSpace(id))
		c.Process.Kill()
		c.Wait()
		ask("killed")
	}
	probes["recycled-target"] = func() {
		log := memoryAt(logAddr, 4096)
		runtime.LockOSThread()
		fmt.Println(unix.Gettid())
		_, e := load(progTypeSocket, "recycled", slow(60000), 2, log)
		fail("not killed: %v", e)
	}
	probes["bystander"] = func() {
		log := memoryAt(logAddr, 4096)
		fill := bytes.Repeat([]byte{0xaa}, len(log))
		copy(log, fill)
		ask("filled")
		if bytes.Equal(log, fill) {
			ask("intact")
		} else {
			ask(fmt.Sprintf("the log of another's program is in my memory: %.60q", log))
		}
	}
}
