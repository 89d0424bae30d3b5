package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestStorm makes many calls while signals hit all threads of the worker and of
// the target. Each must return an fd of just the map that it asked for: the
// kernel's one-step way of handing over an fd returns 0 when a signal comes at
// the wrong moment (docs/architecture.md, "Handing over an fd").
func TestStorm(t *testing.T) {
	needRoot(t)
	total := count("BPFBROKER_STORM", 20000)
	for _, mode := range []string{"restart", "interrupt"} {
		t.Run(mode, func(t *testing.T) {
			began := time.Now()
			s := start(t, brokered(probe("storm", mode, strconv.Itoa(total/2))))
			pid, err := strconv.Atoi(s.hear())
			if err != nil {
				t.Fatal(err)
			}
			rain := startShower(100*time.Microsecond, s.findWorker(), pid)
			s.say("go")
			var r stormResult
			if err := json.Unmarshal([]byte(s.hearWithin(time.Hour)), &r); err != nil {
				t.Fatal(err)
			}
			sent := rain.end()
			s.end(true)
			for _, w := range r.Examples {
				t.Error(w)
			}
			if r.Wrong != 0 || r.Right+r.Interrupted != total/2 {
				t.Errorf("%d of %d calls gave a wrong result", r.Wrong, total/2)
			}
			if mode == "restart" && r.Interrupted != 0 {
				t.Errorf("%d calls were interrupted though all handlers have SA_RESTART", r.Interrupted)
			}
			// One line for docs/results/storm.md.
			fmt.Printf("storm %s: %d calls, %d signals, %d wrong, %d interrupted (EINTR), %v\n",
				mode, total/2, sent, r.Wrong, r.Interrupted, time.Since(began).Round(100*time.Millisecond))
		})
	}
}

type stormResult struct {
	Right, Wrong int
	// Interrupted are the calls that failed with EINTR. Without SA_RESTART a
	// signal does that to a call that nobody has received yet: the kernel can't be
	// told not to. Nothing has happened then.
	Interrupted int
	Examples    []string
}

func init() {
	probes["storm"] = func() {
		mode, n := os.Args[1], os.Args[2]
		total, _ := strconv.Atoi(n)
		// Notify's channel is never read: the handler is what counts.
		signal.Notify(make(chan os.Signal, 1), unix.SIGURG, unix.SIGUSR1, unix.SIGCHLD, unix.SIGWINCH, unix.SIGUSR2)
		if mode == "interrupt" {
			for _, s := range signals {
				withoutRestart(s)
			}
		}
		ask(strconv.Itoa(os.Getpid()))
		out, _ := json.Marshal(stormCalls(4, total))
		fmt.Println(string(out))
	}
}

// stormCalls makes the calls, on several threads at once.
func stormCalls(threads, total int) (r stormResult) {
	var (
		next atomic.Int64
		mu   sync.Mutex
		done sync.WaitGroup
	)
	note := func(to *int, err error) {
		mu.Lock()
		defer mu.Unlock()
		*to++
		if err != nil && len(r.Examples) < 10 {
			r.Examples = append(r.Examples, err.Error())
		}
	}
	for range threads {
		done.Go(func() {
			for i := int(next.Add(1)); i <= total; i = int(next.Add(1)) {
				h := variety(i)
				fd, e := h.create("storm")
				if e == unix.EINTR {
					note(&r.Interrupted, nil)
					continue
				}
				if e != 0 {
					note(&r.Wrong, fmt.Errorf("call %d: %w", i, e))
					continue
				}
				if err := h.check(fd); err != nil {
					note(&r.Wrong, fmt.Errorf("call %d, %+v: %w", i, h, err))
					continue // and keep it: it may be one of ours
				}
				note(&r.Right, nil)
				unix.Close(fd)
			}
		})
	}
	done.Wait()
	return r
}

// withoutRestart takes SA_RESTART from the handler of a signal.
func withoutRestart(s unix.Signal) {
	var act struct { // struct sigaction of the system call
		handler, flags, restorer uintptr
		mask                     uint64
	}
	const restart = 0x10000000 // SA_RESTART
	call := func(set, get unsafe.Pointer) {
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(set), uintptr(get), 8, 0, 0); e != 0 {
			fail("rt_sigaction: %v", e)
		}
	}
	call(nil, unsafe.Pointer(&act))
	act.flags &^= restart
	call(unsafe.Pointer(&act), nil)
}
