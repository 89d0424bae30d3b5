package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// TestKill kills processes of a workload at random moments, in the middle of all
// kinds of calls, with signals flying. Another process of the workload must get
// just what it asks for meanwhile; and after each round nothing of the dead may be
// left: no fd in the worker, no map, no program, no thread.
func TestKill(t *testing.T) {
	needRoot(t)
	rounds := count("BPFBROKER_KILL_ROUNDS", 40)
	marker := fmt.Sprintf("k%07x", rand.Uint32()>>4)
	began := time.Now()
	s := start(t, brokered(probe("kill", marker)))
	worker := s.findWorker()
	s.expect("ready")
	atRest := look(worker)
	rain := startShower(200*time.Microsecond, worker)

	var total killRound
	peak := 0
	for round := range rounds {
		// Most calls take less than 100 µs; some, a second.
		after := time.Duration(rand.Int64N(int64(3 * time.Millisecond)))
		if round%4 == 0 {
			after *= 30
		}
		s.say(strconv.FormatInt(int64(after), 10))
		var r killRound
		if err := json.Unmarshal([]byte(s.hear()), &r); err != nil {
			t.Fatal(err)
		}
		s.expect("ready")
		total.Right += r.Right
		total.Wrong += r.Wrong
		total.Killed += r.Killed
		for _, w := range r.Examples {
			t.Errorf("round %d: %s", round, w)
		}
		peak = max(peak, look(worker).threads)
		// The worker may be at work still for those who are gone, and so may the
		// kernel, which frees objects later.
		var now workerState
		left := 0
		for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
			s.say("clean")
			s.expect("ready")
			now, left = look(worker), named(t, marker)
			if left == 0 && len(now.objects) == 0 && now.most <= atRest.most+1 && now.threads <= atRest.threads+runtimeThreads {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("round %d, killed after %v: %d maps and programs are left; the worker has %+v, before it had %+v", round, after, left, now, atRest)
			}
		}
		if t.Failed() {
			break
		}
	}
	sent := rain.end()
	if total.Right == 0 || total.Killed == 0 {
		t.Errorf("nothing was tested: %+v", total)
	}
	if peak > maxServing+atRest.threads+runtimeThreads {
		t.Errorf("the worker had %d threads", peak)
	}
	mem := statusField(worker, "VmRSS")
	s.end(true)
	// One line for docs/results/kill.md.
	fmt.Printf("kill: %d rounds, %d processes killed, %d signals to the worker, %d calls of others right, %d wrong, at most %d worker threads, %d MiB resident at the end, %v\n",
		rounds, total.Killed, sent, total.Right, total.Wrong, peak, mem>>10, time.Since(began).Round(100*time.Millisecond))
}

const (
	// maxServing is broker's maxThreads.
	maxServing = 128
	// runtimeThreads is how many threads the Go runtime may come to start for
	// itself (it doesn't end them).
	runtimeThreads = 16
)

type killRound struct {
	Right, Wrong, Killed int
	Examples             []string
}

func init() {
	probes["kill"] = func() {
		marker := os.Args[1]
		for {
			line := ask("ready")
			for line == "clean" {
				pins, _ := filepath.Glob("/sys/fs/bpf/" + marker + "*")
				for _, p := range pins {
					os.Remove(p)
				}
				line = ask("ready")
			}
			n, err := strconv.ParseInt(line, 10, 64)
			if err != nil {
				fail("%v", err)
			}
			out, _ := json.Marshal(round(marker, time.Duration(n)))
			fmt.Println(string(out))
		}
	}
	probes["victim"] = func() { victim(os.Args[1]) }
}

// round starts processes, kills them, and makes calls of its own meanwhile.
func round(marker string, after time.Duration) (r killRound) {
	const processes = 3
	var victims []*exec.Cmd
	pids := []int{os.Getpid()}
	for range processes {
		c := exec.Command("/proc/self/exe", marker)
		c.Env = append(os.Environ(), probeEnv+"=victim")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			fail("%v", err)
		}
		if err := c.Start(); err != nil {
			fail("%v", err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it is at work
			fail("victim: %v", err)
		}
		victims = append(victims, c)
		pids = append(pids, c.Process.Pid)
	}
	rain := startShower(200*time.Microsecond, pids...)
	var (
		stop atomic.Bool
		done sync.WaitGroup
		mu   sync.Mutex
	)
	for range 2 {
		done.Go(func() {
			for i := 0; !stop.Load(); i++ {
				h := variety(i)
				fd, e := h.create("other")
				var err error
				if e != 0 {
					err = e
				} else if err = h.check(fd); err == nil {
					unix.Close(fd)
				}
				mu.Lock()
				if err == nil {
					r.Right++
				} else if r.Wrong++; r.Wrong < 10 {
					r.Examples = append(r.Examples, fmt.Sprintf("%+v: %v", h, err))
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(after)
	for _, c := range victims {
		c.Process.Kill()
		time.Sleep(time.Duration(rand.Int64N(int64(after)/2 + 1)))
	}
	for _, c := range victims {
		c.Wait()
		if ws := c.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
			r.Wrong++
			r.Examples = append(r.Examples, "victim: "+c.ProcessState.String())
		}
		r.Killed++
	}
	// What was underway for the dead must not come to the living.
	mu.Lock()
	for enough := r.Right + r.Wrong + 20; r.Right+r.Wrong < enough; {
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
	}
	mu.Unlock()
	stop.Store(true)
	done.Wait()
	rain.end()
	return r
}

// victim makes all kinds of calls on several threads until it is killed.
func victim(marker string) {
	signal.Notify(make(chan os.Signal, 1), unix.SIGURG, unix.SIGUSR1, unix.SIGCHLD, unix.SIGWINCH, unix.SIGUSR2)
	need := func(what string) func(int, sys.Errno) int {
		return func(fd int, e sys.Errno) int {
			if e != 0 {
				fail("victim: %s: %v", what, e)
			}
			return fd
		}
	}
	const (
		cgroupSKB = 8
		ingress   = 0
	)
	cgroup, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		fail("victim: %v", err)
	}
	for id, step := range []func(i int){
		func(i int) {
			h := variety(i)
			fd := need("map_create")(h.create(marker))
			if err := h.check(fd); err != nil {
				fail("victim: %+v: %v", h, err)
			}
			unix.Close(fd)
		},
		func(i int) {
			fd := need("prog_load")(load(progTypeSocket, marker, returns(int32(i)), 0, nil))
			unix.Close(fd)
		},
		func(i int) {
			// More log than there is room for, which the kernel says in the end.
			if fd, e := load(progTypeSocket, marker, slow(100000+int32(i%7)), 1, make([]byte, 1<<20)); e != sys.ENOSPC {
				fail("victim: slow prog_load: %d, %v", fd, e)
			}
		},
		func(i int) {
			h := variety(i)
			fd := need("map_create")(h.create(marker))
			path := []byte(fmt.Sprintf("/sys/fs/bpf/%s-%d-%d\x00", marker, os.Getpid(), i))
			need("obj_pin")(bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(fd)), 16, path))
			unix.Close(fd)
			fd = need("obj_get")(bpf(cmdObjGet, new(attr).u64(0, sys.Addr(path)), 16, path))
			if err := h.check(fd); err != nil {
				fail("victim: after obj_get, %+v: %v", h, err)
			}
			unix.Unlink(string(path[:len(path)-1]))
			unix.Close(fd)
		},
		func(i int) {
			prog := need("prog_load")(load(cgroupSKB, marker, returns(1), 0, nil))
			link := need("link_create")(bpf(cmdLinkCreate, new(attr).u32(0, uint32(prog)).u32(4, uint32(cgroup)).u32(8, ingress), 16))
			unix.Close(prog)
			unix.Close(link)
		},
		func(i int) {
			h := variety(i)
			fd := need("map_create")(h.create(marker))
			b, e := info(fd)
			need("obj_get_info")(0, e)
			if k, v := binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:]); int(k) != h.key || int(v) != h.value {
				fail("victim: info of %+v: key %d, value %d", h, k, v)
			}
			unix.Close(fd)
		},
	} {
		go func() {
			for i := id; ; i++ {
				step(i)
			}
		}()
	}
	fmt.Println()
	select {}
}
