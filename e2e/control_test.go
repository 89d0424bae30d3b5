package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Workloads are controlled while they run: their policies replaced, their rights withdrawn.

// only writes a policy that allows maps of one type, and answers EACCES for another.
func only(t *testing.T, file, name, allowed, denied string) {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: %s}
spec:
  rules:
  - name: allowed
    commands: [map_create]
    when: map.type == %q
    verdict: allow
  - name: denied
    commands: [map_create]
    when: map.type == %q
    verdict: deny
    errno: EACCES
`, name, allowed, denied)
	// As editors do, in one step.
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// id is the session's workload.
func (s *session) id() (id string) {
	s.t.Helper()
	s.process("worker")
	for child, args := range ours("daemon") {
		if statusField(child, "PPid") == s.cmd.Process.Pid {
			id = strings.TrimPrefix(args[2], "--id=")
		}
	}
	return id
}

// control runs bpfbroker, and returns what it said and its exit code.
func control(t *testing.T, args ...string) (string, int) {
	t.Helper()
	out, err := exec.Command(broker, args...).CombinedOutput()
	code := 0
	if err != nil {
		exit, is := err.(*exec.ExitError)
		if !is {
			t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	return string(out), code
}

// TestApply replaces a policy again and again under calls of many threads, while workers
// and daemons are killed, too. No call has another answer than one of the two policies', and
// after a replacement all are the new one's.
func TestApply(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		dir := t.TempDir()
		files := []string{filepath.Join(dir, "arrays.yaml"), filepath.Join(dir, "hashes.yaml")}
		only(t, files[0], "one-type", "array", "hash")
		only(t, files[1], "one-type", "hash", "array")
		c := brokeredBy(files[0], probe("apply"), "--worker="+kind)
		s := start(t, c)
		s.expect("array 0, hash EACCES")
		id := s.id()
		for i := range 12 {
			if i%3 == 2 {
				kill := []string{"worker", "daemon"}[i/3%2]
				if err := syscall.Kill(s.process(kill), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
			file := files[(i+1)%2]
			args := []string{"policy", "apply", file}
			if i%2 == 0 {
				args = append(args, "--workload", id)
			}
			if out, code := control(t, args...); code != 0 || !strings.Contains(out, id+": policy one-type is in force\n") {
				t.Fatalf("%v: exit code %d: %s", args, code, out)
			}
			s.say("now?")
			s.expect([]string{"array EACCES, hash 0", "array 0, hash EACCES"}[i%2])
		}
		// One with mistakes, and one that this workload can't have.
		bad := filepath.Join(dir, "bad.yaml")
		only(t, bad, "one-type", "arrey", "hash")
		if out, code := control(t, "policy", "apply", bad); code == 0 || !strings.Contains(out, "stays in force") || !strings.Contains(out, `did you mean "array"`) {
			t.Errorf("mistakes: exit code %d: %s", code, out)
		}
		if out, code := control(t, "policy", "apply", "trusted", "-w", id); code == 0 || !strings.Contains(out, "begin the workload anew") {
			t.Errorf("programs that the filter isn't made for: exit code %d: %s", code, out)
		}
		s.say("now?")
		s.expect("array 0, hash EACCES")
		// None of a daemon's that comes to serve.
		if err := s.spoil(t, id); err != nil {
			t.Error(err)
		}
		s.say("now?")
		s.expect("array 0, hash EACCES")
		s.say("end")
		s.expect("ok")
		s.end(false)
		if s.err != nil {
			t.Errorf("%v: %s", s.err, s.stderr.String())
		}
	}
}

// spoil has a policy applied while no worker can begin.
func (s *session) spoil(t *testing.T, id string) error {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	only(t, file, "other", "hash", "array")
	out, code, err := withoutWorkers(t, "policy", "apply", file, "-w", id)
	if err == nil && (code != 1 || !strings.Contains(out, "suid_dumpable")) {
		err = fmt.Errorf("a policy under which no worker begins: exit code %d: %s", code, out)
	}
	return err
}

// withoutWorkers is control while no worker can begin.
func withoutWorkers(t *testing.T, args ...string) (out string, code int, err error) {
	const dumpable = "/proc/sys/fs/suid_dumpable"
	before, err := os.ReadFile(dumpable)
	if err != nil {
		return "", 0, err
	}
	if err := os.WriteFile(dumpable, []byte("1"), 0); err != nil {
		return "", 0, err
	}
	out, code = control(t, args...)
	return out, code, os.WriteFile(dumpable, before, 0)
}

// TestRevokeFails: if nobody can serve the workload under the revocation, nobody does
// under the policy before either.
func TestRevokeFails(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	only(t, file, "arrays", "array", "hash")
	c := brokeredBy(file, probe("apply"))
	s := start(t, c)
	s.expect("array 0, hash EACCES")
	out, code, err := withoutWorkers(t, "revoke", s.id())
	if err != nil || code == 0 || !strings.Contains(out, "suid_dumpable") {
		t.Errorf("revoke: %v, exit code %d: %s", err, code, out)
	}
	s.say("now?")
	s.expect("array EPERM, hash EPERM")
	s.say("end")
	s.expect("ok")
	s.end(false)
}

// TestWatch changes the file of a policy.
func TestWatch(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	only(t, file, "watched", "array", "hash")
	c := brokeredBy(file, probe("apply"), "--watch")
	s := start(t, c)
	s.expect("array 0, hash EACCES")
	said := func(what string, n int) {
		t.Helper()
		eventually(t, what, func() bool { return strings.Count(s.stderr.String(), what) == n })
	}
	only(t, file, "watched", "hash", "array")
	said("is in force", 1)
	s.say("now?")
	s.expect("array EACCES, hash 0")
	only(t, file, "watched", "hush", "array")
	said("isn't applied", 1)
	s.say("now?")
	s.expect("array EACCES, hash 0")
	only(t, file, "watched", "array", "hash")
	said("is in force", 2)
	s.say("now?")
	s.expect("array 0, hash EACCES")
	// A change of the file gives no rights back.
	if out, code := control(t, "revoke", s.id()); code != 0 {
		t.Errorf("revoke: %s", out)
	}
	only(t, file, "watched", "hash", "array")
	said("were withdrawn", 1)
	s.say("now?")
	s.expect("array EPERM, hash EPERM")
	s.say("end")
	s.expect("ok")
	s.end(false)
}

func init() {
	probes["apply"] = func() {
		// bpf(MAP_CREATE) of both types, again and again, on several threads.
		const arrayType, hashType = 2, 1
		create := func(kind uint32) sys.Errno {
			fd, e := bpf(cmdMapCreate, new(attr).u32(0, kind).u32(4, 4).u32(8, 4).u32(12, 1), 20)
			if e == 0 {
				unix.Close(fd)
			}
			return e
		}
		var stop atomic.Bool
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				for !stop.Load() {
					if e := create([]uint32{arrayType, hashType}[i%2]); e != 0 && e != sys.EACCES && e != sys.EPERM {
						fail("map of type %d: %v", i%2, e)
					}
				}
			})
		}
		name := func(e sys.Errno) string {
			if e == 0 {
				return "0"
			}
			return unix.ErrnoName(syscall.Errno(e))
		}
		for {
			if ask(fmt.Sprintf("array %s, hash %s", name(create(arrayType)), name(create(hashType)))) == "end" {
				break
			}
		}
		stop.Store(true)
		all.Wait()
		fmt.Println("ok")
	}
}

// TestRevoke withdraws the rights of a workload, with all that it has attached.
func TestRevoke(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		c := brokered(probe("revoked"), "--net=private", "--worker="+kind)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a job, which may be stopped
		s := start(t, c)
		s.expect("attached, not sent: true")
		id := s.id()
		if out, code := control(t, "revoke", "--detach", id); code != 1 ||
			!strings.Contains(out, id+": everything is denied\n") ||
			!strings.Contains(out, "detached 3 links, and 3 programs attached without one") ||
			!strings.Contains(out, "1 links are detached only when") || !strings.Contains(out, "raw_tracepoint link") {
			t.Errorf("%s: revoke: exit code %d: %s", kind, code, out)
		}
		s.say("and now?")
		s.expect("EPERM, it arrives")
		// And those of one that stops itself, with whom run stops.
		s.say("stop")
		eventually(t, "run stops", func() bool { return sys.Stopped(s.cmd.Process.Pid) })
		if out, code := control(t, "revoke", "--kill", id[:8]); code != 0 || !strings.Contains(out, "killed") {
			t.Errorf("%s: revoke --kill: exit code %d: %s", kind, code, out)
		}
		s.end(false)
		if out, code := control(t, "revoke", id); code == 0 || !strings.Contains(out, "no such workload runs") {
			t.Errorf("%s: revoke of none: exit code %d: %s", kind, code, out)
		}
	}
}

func init() {
	probes["revoked"] = func() {
		const (
			cmdProgQuery                                   = 16
			xdp, attachXDP, generic                        = 6, 37, 2
			skb, egress, multi                             = 8, 1, 2
			schedCLS, tcxIngress, tcxEgress                = 3, 46, 47
			skMsg, skMsgVerdict, sockmap, rawTP, structOps = 16, 7, 15, 17, 26
			lo                                             = 1
		)
		must := func(fd int, e sys.Errno) uint32 {
			if e != 0 {
				fail("set up: %v", e)
			}
			return uint32(fd)
		}
		cgroup := must(func() (int, sys.Errno) {
			fd, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				fail("open the cgroup: %v", err)
			}
			return fd, 0
		}())
		link := func(prog, target, kind, flags uint32) {
			must(bpf(cmdLinkCreate, new(attr).u32(0, prog).u32(4, target).u32(8, kind).u32(12, flags), 64))
		}
		attach := func(prog, target, kind, flags uint32) {
			must(bpf(cmdProgAttach, new(attr).u32(0, target).u32(4, prog).u32(8, kind).u32(12, flags), 32))
		}
		x := must(loadFor(xdp, attachXDP, "xdp", returns(1)))
		sk := must(loadFor(skb, egress, "skb", returns(0)))
		sk2 := must(loadFor(skb, egress, "skb2", returns(0)))
		tc := must(loadFor(schedCLS, tcxIngress, "tc", returns(2)))
		tc2 := must(loadFor(schedCLS, tcxEgress, "tc2", returns(2)))
		msg := must(loadFor(skMsg, skMsgVerdict, "msg", returns(1)))
		raw := must(load(rawTP, "raw", returns(0), 0, nil))
		socks := must(bpf(cmdMapCreate, new(attr).u32(0, sockmap).u32(4, 4).u32(8, 4).u32(12, 1), 20))

		link(x, lo, attachXDP, generic)
		link(sk, cgroup, egress, 0)
		link(tc, lo, tcxIngress, 0)
		attach(sk2, cgroup, egress, multi)
		attach(tc2, lo, tcxEgress, 0)
		attach(msg, socks, skMsgVerdict, 0)
		point := []byte("sys_enter\x00")
		must(bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(point)).u32(8, raw), 16, point))

		ask("attached, " + arrives())
		_, e := bpf(cmdMapCreate, new(attr).u32(0, 1).u32(4, 4).u32(8, 4).u32(12, 1), 20)
		ask(fmt.Sprintf("%s, %s", unix.ErrnoName(syscall.Errno(e)), arrives()))
		for {
			unix.Kill(unix.Getpid(), unix.SIGTSTP) // and again, when it is continued
		}
	}
}

// arrives says what becomes of a packet on lo: all that the probe has attached drop it.
func arrives() string {
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fail("listen: %v", err)
	}
	defer to.Close()
	from, err := net.Dial("udp", to.LocalAddr().String())
	if err != nil {
		fail("connect: %v", err)
	}
	defer from.Close()
	if _, err := from.Write([]byte("hello")); err != nil {
		return fmt.Sprint("not sent: ", errors.Is(err, syscall.EPERM))
	}
	if err := to.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		fail("set deadline: %v", err)
	}
	if _, _, err := to.ReadFrom(make([]byte, 10)); err != nil {
		return "dropped"
	}
	return "it arrives"
}
