package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
)

// TestChaos kills worker and daemon at random instants, while the threads of a
// workload make all kinds of calls and look closely at each result. They must
// notice nothing: no call fails, happens twice, or hangs; and no fd, object or
// attachment is left over.
func TestChaos(t *testing.T) {
	needRoot(t)
	rounds := count("BPFBROKER_CHAOS_ROUNDS", 10)
	began := time.Now()
	c := startChaos(t)
	took := map[string][]time.Duration{}
	killed := 0
	for n, lastLook := 0, 0; n < rounds; n++ {
		kind := chaosKinds[rand.IntN(len(chaosKinds))]
		c.pause()
		took[kind] = append(took[kind], c.kill(kind))
		if killed = c.killed["worker"] + c.killed["daemon"]; killed-lastLook >= 25 {
			lastLook = killed
			c.look()
		}
	}
	c.look()
	c.board.calm.Store(true)
	for n := range rounds / 5 {
		time.Sleep(100 * time.Millisecond)
		kind := chaosKinds[0]
		if n%2 == 1 {
			kind = "daemon"
		}
		took["calm, "+kind] = append(took["calm, "+kind], c.kill(kind))
	}
	c.look()
	calls := c.calls()
	c.say("end")
	c.end(false)
	if c.err != nil {
		t.Errorf("%v: %v\n%s", c.cmd.Args, c.err, c.stderr.String())
	}
	for line := range strings.Lines(c.stderr.String()) {
		if !deaths.MatchString(line) {
			t.Errorf("bpfbroker says: %s", line)
		}
	}
	// Lines for docs/results/chaos.md.
	fmt.Printf("chaos: %d rounds, %d workers and %d daemons killed, %s, 0 failures, 0 hangs, 0 duplicates, 0 leaked, %v\n",
		rounds, c.killed["worker"], c.killed["daemon"], calls, time.Since(began).Round(100*time.Millisecond))
	fmt.Printf("chaos: calls over which workers were killed, by how far they had come: %v\n", c.phases)
	for _, kind := range slices.Sorted(maps.Keys(took)) {
		if d := took[kind]; len(d) > 0 {
			slices.Sort(d)
			fmt.Printf("chaos: %s: %d rounds, served again after %d ms (median), %d ms (nine in ten), %d ms (longest)\n", kind, len(d),
				d[len(d)/2].Milliseconds(), d[len(d)*9/10].Milliseconds(), d[len(d)-1].Milliseconds())
		}
	}
}

// chaosKinds are what a round kills, as often as it is drawn.
var chaosKinds = []string{
	"worker", "worker", "worker", "worker",
	"daemon", "daemon", "daemon",
	"worker, then daemon", "worker, then daemon",
	"daemon, then worker", "daemon, then worker",
	"worker, then the next one as it begins", "worker, then the next one as it begins",
	"daemon, then the next one as it begins",
}

// deaths are what may be said of those that were killed, or of a worker whose daemon
// was killed while it began.
var deaths = regexp.MustCompile(`^bpfbroker: (.*(; another takes over|: it died before it was executed|: the worker ended before it served)|worker: .*(broken pipe|connection reset by peer|no answer.*|it is gone.*))\n$`)

// hangs is how long a thread may be without progress.
const hangs = 30 * time.Second

// chaosThreads is how many threads the probe has.
const chaosThreads = 9

// chaosBoard is memory that the test and its probe share: a look at it costs the
// probe nothing. Times are sys.Monotonic.
type chaosBoard struct {
	mark  atomic.Int64    // of interest is what begins after it
	first [2]atomic.Int64 // when the first such call was done; and one that the daemon performs
	calm  atomic.Bool     // the threads are to do next to nothing

	threads [chaosThreads]struct {
		calls, steps atomic.Uint64
		done         atomic.Int64  // when the last call was
		began        atomic.Int64  // when the one under way did, 0: there is none
		command      atomic.Uint32 // of that
	}
}

// chaos is a probe under chaos.
type chaos struct {
	*session
	marker string
	board  *chaosBoard
	id     string // the workload's
	probe  int    // its process id
	fds    []string
	atRest workerState
	ours   map[string]int // how many files those who serve have open at rest
	killed map[string]int
	ledger *ledger.Ledger
	phases map[string]int // how far the calls had come over which workers were killed
	last   []string       // rounds: what was killed, and when
	since  int64          // when the threads began to run
}

// startChaos starts a probe and lets its threads go.
func startChaos(t *testing.T) *chaos {
	t.Helper()
	c := &chaos{marker: fmt.Sprintf("c%07x", rand.Uint32()>>4), killed: map[string]int{}, phases: map[string]int{}}
	memory, err := sys.SharedMemory[chaosBoard]("chaos")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	board, unmap, err := sys.MapShared[chaosBoard](int(memory.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	c.board = board
	cmd := brokered(probe("chaos", c.marker), "--net=private")
	cmd.ExtraFiles = []*os.File{memory}
	c.session = start(t, cmd)
	t.Cleanup(unmap)
	var digest string
	if _, err := fmt.Sscanf(c.hear(), "ready %d %s", &c.probe, &digest); err != nil {
		t.Fatal(err)
	}
	log := chaosLog()
	fd, e := load(progTypeSocket, c.marker, slow(chaosSlow), 2, log)
	if e != 0 {
		t.Fatal(e)
	}
	unix.Close(fd)
	if want := fmt.Sprintf("%x", sha256.Sum256(log)); digest != want {
		t.Errorf("the verifier's log, natively of %d bytes, is another one in the workload", bytes.IndexByte(log, 0))
	}
	eventually(t, "a daemon", func() bool {
		for pid, args := range ours("daemon") {
			if statusField(pid, "PPid") == cmd.Process.Pid {
				c.id = args[2]
			}
		}
		return c.id != ""
	})
	for _, f := range openFiles(cmd.Process.Pid) {
		number, to, _ := strings.Cut(f, " → ")
		if strings.HasPrefix(to, "/memfd:bpfbroker-ledger") {
			file, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%s", cmd.Process.Pid, number), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if c.ledger, err = ledger.Open(int(file.Fd())); err != nil {
				t.Fatal(err)
			}
			file.Close()
		}
	}
	c.fds = openFiles(c.probe)
	c.atRest = look(c.find("worker"))
	c.ours = c.openByUs()
	c.proceed()
	return c
}

func (c *chaos) proceed() {
	c.since = sys.Monotonic()
	c.say("go")
}

// find waits for the worker or daemon, and wants it to be the only one: of a worker
// whose daemon was killed at its start nobody knows, and it ends by itself.
func (c *chaos) find(role string) int {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		c.sound()
		var pids []int
		for pid, args := range ours(role) {
			if args[2] == c.id {
				pids = append(pids, pid)
			}
		}
		if len(pids) == 1 {
			return pids[0]
		}
		if time.Now().After(end) {
			c.t.Fatalf("after %v, the processes that are %s are %v, for %v", c.killed, role, pids, patience)
		}
	}
}

// sound wants the probe to run, and its threads to get ahead.
func (c *chaos) sound() {
	c.t.Helper()
	select {
	case <-c.ended:
		c.t.Fatalf("after %v, %v ended: %v\n%s\n%s", c.killed, c.cmd.Args, c.err, c.stderr.String(), strings.Join(c.last, "\n"))
	default:
	}
	if c.since == 0 {
		return
	}
	for i := range c.board.threads {
		th := &c.board.threads[i]
		if since := max(th.done.Load(), c.since); sys.Since(since) > hangs {
			c.t.Fatalf("after %v, thread %d (%s) hangs for %v: %d calls done, command %d under way: %v\n%s", c.killed, i, chaosSteps[i].name,
				sys.Since(since), th.calls.Load(), th.command.Load(), th.began.Load() != 0, c.state())
		}
	}
}

// state says what processes and threads do; for who must find out why they hang.
func (c *chaos) state() string {
	var out strings.Builder
	for _, role := range []string{"daemon", "worker"} {
		for pid, args := range ours(role) {
			if args[2] != c.id {
				continue
			}
			fmt.Fprintln(&out, role, pid)
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
			for _, task := range tasks {
				where, _ := os.ReadFile(task + "/wchan")
				call, _ := os.ReadFile(task + "/syscall")
				fmt.Fprintf(&out, "  %s %s %s\n", filepath.Base(task), where, bytes.TrimSpace(call))
			}
		}
	}
	return out.String()
}

// openFiles lists what a process has open.
func openFiles(pid int) (out []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		to, err := os.Readlink(filepath.Join(dir, n.Name()))
		if err == nil {
			out = append(out, n.Name()+" → "+to)
		}
	}
	return out
}

// openByUs counts what run and daemon have open.
func (c *chaos) openByUs() map[string]int {
	return map[string]int{"run": len(openFiles(c.cmd.Process.Pid)), "daemon": len(openFiles(c.find("daemon")))}
}

// leaked says which open files are new, and of maps and programs what is known.
func (c *chaos) leaked(now []string) string {
	var out []string
	pidfd, err := unix.PidfdOpen(c.probe, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	for _, f := range now {
		if slices.Contains(c.fds, f) {
			continue
		}
		number, _, _ := strings.Cut(f, " ")
		n, _ := strconv.Atoi(number)
		if fd, e := sys.PidfdGetFD(pidfd, n); e == 0 {
			b, e := info(fd)
			unix.Close(fd)
			f = fmt.Sprintf("%s: %v %q", f, e, b)
		}
		out = append(out, f)
	}
	return strings.Join(out, "\n")
}

// pause lets the threads run: for so long that some are in the middle of a call,
// and sometimes so long that those who are killed haven't just begun (who ends
// soon is followed by another after a pause).
func (c *chaos) pause() {
	switch n := rand.IntN(10); {
	case n < 2: // at once
	case n < 7:
		time.Sleep(time.Duration(rand.Int64N(int64(30 * time.Millisecond))))
	default:
		time.Sleep(100*time.Millisecond + time.Duration(rand.Int64N(int64(30*time.Millisecond))))
	}
}

// kill makes a round: it kills, and waits until all are there again and serve. It
// returns how long that took.
func (c *chaos) kill(kind string) time.Duration {
	began := sys.Monotonic()
	c.last = append(c.last[max(0, len(c.last)-4):], fmt.Sprintf("killed at %d µs: %s", began/1000, kind))
	roles := strings.Split(kind, ", then ")
	if len(roles) == 1 || roles[1] == "the next one as it begins" {
		c.killOne(roles[0], c.find(roles[0]))
		if len(roles) > 1 {
			// It sets itself up, or goes on with what the last one has left.
			next := c.find(roles[0])
			time.Sleep(time.Duration(rand.Int64N(int64(60 * time.Millisecond))))
			c.killOne(roles[0], next)
		}
	} else {
		first, second := c.find(roles[0]), c.find(roles[1])
		began = sys.Monotonic()
		c.killOne(roles[0], first)
		if rand.IntN(2) == 0 {
			time.Sleep(time.Duration(rand.Int64N(int64(3 * time.Millisecond))))
		}
		c.killOne(roles[1], second)
	}
	b := c.board
	for i := range b.first {
		b.first[i].Store(0)
	}
	b.mark.Store(sys.Monotonic())
	for _, role := range []string{"daemon", "worker"} {
		c.find(role)
	}
	last := int64(0)
	for i := range b.first {
		for b.first[i].Load() == 0 {
			c.sound()
			time.Sleep(100 * time.Microsecond)
		}
		if i == 0 || strings.Contains(kind, "daemon") {
			last = max(last, b.first[i].Load())
		}
	}
	b.mark.Store(0)
	return time.Duration(last - began)
}

// killOne kills a process, which may have ended meanwhile, and waits for its end.
func (c *chaos) killOne(role string, pid int) {
	c.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if args := ours(role)[pid]; args == nil || args[2] != c.id {
		return
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return
	}
	c.killed[role]++
	if ok, err := sys.WaitReadable(fd, patience); !ok {
		c.t.Fatalf("%s %d was killed and doesn't end: %v", role, pid, err)
	}
	if role == "worker" && c.ledger != nil { // no other worker can have begun to serve yet
		for i := range ledger.Slots {
			if s := c.ledger.Slot(i); s.Taken() {
				c.phases[phaseName(s.Phase())]++
			}
		}
	}
}

func phaseName(p ledger.Phase) string {
	switch p {
	case ledger.Reading:
		return "reading"
	case ledger.Calling:
		return "calling"
	case ledger.Performing:
		return "performing"
	case ledger.Performed:
		return "performed"
	}
	return "answering"
}

// look has the threads finish what they do, and looks for what shouldn't be there.
func (c *chaos) look() {
	c.t.Helper()
	c.say("pause")
	for paused := false; !paused; {
		select {
		case line, ok := <-c.lines:
			if !ok {
				<-c.ended
				c.sound()
			}
			paused = line == "paused"
		case <-time.After(time.Second):
			c.sound()
		}
	}
	c.since = 0
	if now := openFiles(c.probe); !slices.Equal(now, c.fds) {
		c.t.Fatalf("after %v, the workload has open %d files, not %d:\n%s", c.killed, len(now), len(c.fds), c.leaked(now))
	}
	c.say("attached")
	if got := c.hear(); got != "nothing" {
		c.t.Fatalf("after %v, attached is still: %s", c.killed, got)
	}
	eventually(c.t, "no map or program is left", func() bool { return named(c.t, c.marker) == 0 })
	var now workerState
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if now = look(c.find("worker")); len(now.objects) == 0 && now.most <= c.atRest.most+1 {
			break
		}
		if time.Now().After(end) {
			c.t.Fatalf("after %v, the worker has %+v; at first it had %+v", c.killed, now, c.atRest)
		}
	}
	// A daemon that adopted its worker lacks, or has, a few that one that started it
	// has; none may have more each time.
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		now := c.openByUs()
		if now["run"] <= c.ours["run"] && now["daemon"] <= c.ours["daemon"]+4 {
			break
		}
		if time.Now().After(end) {
			c.t.Fatalf("after %v, run and daemon have open %v files; at first it were %v", c.killed, now, c.ours)
		}
	}
	c.proceed()
}

// calls says how many calls were made.
func (c *chaos) calls() string {
	total, kinds := uint64(0), map[string]uint64{}
	for i := range c.board.threads {
		n := c.board.threads[i].calls.Load()
		if n == 0 {
			c.t.Errorf("thread %d (%s) has made no call", i, chaosSteps[i].name)
		}
		total += n
		kinds[chaosSteps[i].name] += n
	}
	var each []string
	for i, s := range chaosSteps {
		if i == 0 || s.name != chaosSteps[i-1].name {
			each = append(each, fmt.Sprintf("%s %d", s.name, kinds[s.name]))
		}
	}
	return fmt.Sprintf("%d calls (%s)", total, strings.Join(each, ", "))
}

// TestChaosWorkload kills CMD, or run, or CMD with all who serve it, at random
// instants, while its threads make calls. Nothing of it may be left.
func TestChaosWorkload(t *testing.T) {
	needRoot(t)
	rounds := 10
	if os.Getenv("BPFBROKER_CHAOS_ROUNDS") != "" {
		rounds = max(1, count("BPFBROKER_CHAOS_ROUNDS", 10)/4)
	}
	began := time.Now()
	kinds := []string{"CMD", "run", "daemon, worker and CMD", "worker and run"}
	killed := map[string]int{}
	for n := range rounds {
		kind := kinds[n%len(kinds)]
		killed[kind]++
		chaosEnd(t, kind)
		if t.Failed() {
			t.Fatalf("in round %d: %s killed", n, kind)
		}
	}
	var each []string
	for _, kind := range kinds {
		each = append(each, fmt.Sprintf("%s %d", kind, killed[kind]))
	}
	fmt.Printf("chaos of workloads: %d rounds (%s), 0 left over, %v\n", rounds, strings.Join(each, ", "), time.Since(began).Round(100*time.Millisecond))
}

// chaosEnd makes a round of TestChaosWorkload.
func chaosEnd(t *testing.T, kind string) {
	t.Helper()
	c := startChaos(t)
	run := c.cmd.Process.Pid
	cgroup := unifiedCgroup(t, c.probe)
	if filepath.Base(cgroup) != "workload" {
		t.Fatalf("the workload's cgroup is %s", cgroup)
	}
	cgroup = filepath.Dir(cgroup)
	guardian := 0
	for _, pid := range children(run) {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(b), "bpfbroker-guardian") {
			guardian = pid
		}
	}
	if guardian == 0 {
		t.Fatalf("no guardian among the children of run: %v", children(run))
	}
	var victims []int
	switch kind {
	case "CMD":
		victims = []int{c.probe}
	case "run":
		victims = []int{run}
	case "worker and run":
		victims = []int{c.find("worker"), run}
	default:
		victims = []int{c.find("daemon"), c.find("worker"), c.probe}
	}
	left := map[string]int{"guardian": guardian, "daemon": c.find("daemon"), "worker": c.find("worker"), "CMD": c.probe}
	fds := map[string]int{}
	for who, pid := range left {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatalf("%s %d: %v", who, pid, err)
		}
		defer unix.Close(fd)
		fds[who] = fd
	}
	time.Sleep(time.Duration(rand.Int64N(int64(100 * time.Millisecond))))
	for _, pid := range victims {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Errorf("kill %d: %v", pid, err) // none of them has ended before
		}
	}
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatalf("run doesn't end\n%s", c.state())
	}
	var exit *exec.ExitError
	if !errors.As(c.err, &exit) {
		t.Fatalf("run ended with %v", c.err)
	}
	if ws := exit.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL && ws.ExitStatus() != 128+int(syscall.SIGKILL) {
		t.Errorf("run ended with %v\n%s", exit, c.stderr.String())
	}
	for who, fd := range fds {
		if ok, err := sys.WaitReadable(fd, patience); !ok {
			t.Errorf("%s lives: %v", who, err)
		}
	}
	eventually(t, "nobody has the id "+c.id, func() bool {
		for _, role := range []string{"daemon", "worker"} {
			for _, args := range ours(role) {
				if args[2] == c.id {
					return false
				}
			}
		}
		return true
	})
	eventually(t, cgroup+" is gone", func() bool {
		_, err := os.Stat(cgroup)
		return errors.Is(err, os.ErrNotExist)
	})
	eventually(t, "no map or program is left", func() bool { return named(t, c.marker) == 0 })
}

// unifiedCgroup is the directory of a process's cgroup (v2), as the host has it
// mounted.
func unifiedCgroup(t *testing.T, pid int) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for m := range strings.Lines(string(mounts)) {
		if f := strings.Fields(m); f[2] == "cgroup2" {
			for line := range strings.Lines(string(own)) {
				if path, ok := strings.CutPrefix(line, "0::"); ok {
					return filepath.Join(f[1], strings.TrimSpace(path))
				}
			}
		}
	}
	t.Skip("cgroup v2 isn't mounted")
	return ""
}

// children lists the children of a process.
func children(pid int) (out []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		child, _ := strconv.Atoi(filepath.Base(dir))
		if statusField(child, "PPid") == pid {
			out = append(out, child)
		}
	}
	return out
}
