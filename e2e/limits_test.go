package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// What a workload holds is limited, by rule and in all, whoever is killed meanwhile.

const limited = `apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: limited}
spec:
  limits: {maps: 5, bytes: 1Mi, programs: 3, links: 2}
  rules:
  - name: arrays
    commands: [map_create]
    when: map.type == "array"
    verdict: allow
    limits: {maps: 3}
  - name: hashes
    commands: [map_create]
    when: map.type == "hash"
    verdict: allow
  - name: counted
    commands: [map_create]
    when: map.type == "lru_hash" && counts.maps < 2
    verdict: allow
  - name: rest
    commands: [prog_load, btf_load, obj_pin, obj_get, raw_tracepoint_open, obj_get_info_by_fd]
    verdict: allow
`

func policyFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLimits(t *testing.T) {
	needRoot(t)
	file := policyFile(t, limited)
	for _, kind := range kinds(t) {
		for _, run := range []struct{ name, want string }{
			{"limits-rule", "array 0, array 0, array 0, array EPERM, close, array 0, array EPERM"},
			{"limits-all", "array 0, array 0, hash 0, hash 0, hash 0, hash EPERM, close, hash 0, array EPERM"},
			{"limits-pin", "hash 0, hash 0, hash 0, hash 0, hash 0, pin, close, hash EPERM, unpin, hash 0, hash EPERM"},
			{"limits-bytes", "hash of 512 KiB 0, hash of 512 KiB EPERM, close, hash of 512 KiB 0"},
			{"limits-types", "types of 600 KiB 0, types of 600 KiB EPERM, close, types of 600 KiB 0"},
			{"limits-progs", "prog 0, prog 0, prog 0, prog EPERM, close, prog 0"},
			{"limits-links", "prog 0, link 0, link 0, link EPERM, close, link 0, link EPERM"},
			{"limits-counts", "counted 0, counted 0, counted EPERM, close, counted 0, hash 0, counted EPERM"},
			{"limits-failed", "no map EINVAL, no map EINVAL, no map EINVAL, no map EINVAL, no map EINVAL, no map EINVAL, hash 0"},
		} {
			denied, ok, out := under(t, file, kind, probe(run.name))
			if got := strings.TrimSuffix(out, "\n"); !ok || got != run.want {
				t.Errorf("%s: %s: got\n%s, wanted\n%s\n%q", kind, run.name, got, run.want, denied)
			}
			for want, of := range map[string]string{
				`rule "arrays" (` + file + `:7) allows no more than 3 maps by this rule; it holds 3`:      "limits-rule",
				`rule "hashes" (` + file + `:12) allows no more than 5 maps to this workload; it holds 5`: "limits-all",
				`rule "rest" (` + file + `:20) allows no more than 2 links to this workload; it holds 2`:  "limits-links",
				`allows no more than 1048576 bytes of maps and types to this workload; it holds`:          "limits-bytes",
				`nearest is "counted" (` + file + `:18): counts.maps is 2, not less than 2`:               "limits-counts",
			} {
				if of == run.name && !strings.Contains(strings.Join(denied, "\n"), want) {
					t.Errorf("%s: %s: denied\n%s\nwanted %s", kind, run.name, strings.Join(denied, "\n"), want)
				}
			}
		}
	}
}

// TestLimitsRaced has threads at the limit while worker and daemon are killed: it is
// never exceeded, and there is room again when all is closed.
func TestLimitsRaced(t *testing.T) {
	needRoot(t)
	file := policyFile(t, limited)
	for _, kind := range kinds(t) {
		c := brokeredBy(file, probe("limits-raced"), "--worker="+kind, "--quiet")
		s := start(t, c)
		s.expect("begun")
		for i := range 6 {
			name := []string{"worker", "daemon"}[i%2]
			if err := unix.Kill(s.process(name), unix.SIGKILL); err != nil {
				t.Error(err)
			}
			s.say("more")
			s.expect("some were refused, never more than 5")
		}
		s.say("hold")
		s.expect("5 are held")
		if err := unix.Kill(s.process("worker"), unix.SIGKILL); err != nil {
			t.Error(err)
		}
		s.say("and more?")
		s.expect("EPERM")
		s.say("close")
		s.expect("5 are held")
		s.end(false)
	}
}

// TestLimitExplained: the log of a load tells, and the audit log's cause is the limit.
func TestLimitExplained(t *testing.T) {
	needRoot(t)
	c := brokeredBy(policyFile(t, limited), probe("limits-log"), "--quiet")
	log, stdout, stderr := audited(t, c)
	if !strings.Contains(stdout, "bpfbroker: denied by policy limited, rule rest, whose limit is reached: ") || !strings.Contains(stdout, "no more than 3 programs to this workload; it holds 3") {
		t.Errorf("the verifier's log: %s%s", stdout, stderr)
	}
	n := 0
	for _, r := range log {
		if r.Decision.Cause == policy.ByLimit {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d records have the cause limit", n)
	}
}

// made is what the probes of this file hold, and say of it.
type made struct {
	fds  []int
	said []string
}

func (m *made) note(what string, fd int, e sys.Errno) {
	name := "0"
	if e != 0 {
		name = unix.ErrnoName(syscall.Errno(e))
	} else {
		m.fds = append(m.fds, fd)
	}
	m.said = append(m.said, what+" "+name)
}

func (m *made) close() {
	unix.Close(m.fds[len(m.fds)-1])
	m.fds = m.fds[:len(m.fds)-1]
	m.said = append(m.said, "close")
}

func (m *made) create(what, name string, typ, entries uint32) {
	fd, e := bpf(cmdMapCreate, new(attr).u32(0, typ).u32(4, 4).u32(8, 4).u32(12, entries).name(28, name), 48)
	m.note(what, fd, e)
}

func init() {
	const array, hash, lruHash, rawTP = 2, 1, 9, 17
	limits := func(name string, f func(m *made)) {
		probes["limits-"+name] = func() {
			var m made
			f(&m)
			fmt.Println(strings.Join(m.said, ", "))
		}
	}
	arrays := func(m *made) { m.create("array", "a", array, 1) }
	hashes := func(m *made) { m.create("hash", "h", hash, 1) }
	progs := func(m *made) {
		fd, e := load(rawTP, "p", returns(0), 0, nil)
		m.note("prog", fd, e)
	}
	do := func(m *made, each ...func(*made)) {
		for _, f := range each {
			f(m)
		}
	}
	limits("rule", func(m *made) { do(m, arrays, arrays, arrays, arrays, (*made).close, arrays, arrays) })
	limits("all", func(m *made) {
		do(m, arrays, arrays, hashes, hashes, hashes, hashes, (*made).close, hashes, func(m *made) { m.create("array", "a", array, 1) })
	})
	limits("pin", func(m *made) {
		do(m, hashes, hashes, hashes, hashes, hashes)
		path := []byte("/sys/fs/bpf/kept\x00")
		if _, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(m.fds[4])), 16, path); e != 0 {
			fail("pin: %v", e)
		}
		m.said = append(m.said, "pin")
		do(m, (*made).close, hashes)
		if err := os.Remove("/sys/fs/bpf/kept"); err != nil {
			fail("unpin: %v", err)
		}
		m.said = append(m.said, "unpin")
		do(m, hashes, hashes)
	})
	limits("bytes", func(m *made) {
		big := func(m *made) { m.create("hash of 512 KiB", "h", hash, 8<<10) }
		do(m, big, big, (*made).close, big)
	})
	limits("types", func(m *made) {
		types := func(m *made) {
			const head, ptr, text = 24, 12, 600 << 10 // of bytes: a header, a pointer to void, strings
			b := make([]byte, head+ptr+text)
			binary.NativeEndian.PutUint16(b, 0xeb9f)
			b[2] = 1
			for at, v := range map[int]uint32{4: head, 12: ptr, 16: ptr, 20: text, head + 4: 2 << 24} {
				binary.NativeEndian.PutUint32(b[at:], v)
			}
			for i := head + ptr + 1; i < len(b)-1; i++ {
				b[i] = 'x'
			}
			fd, e := bpf(cmdBTFLoad, new(attr).u64(0, sys.Addr(b)).u32(16, uint32(len(b))), 28, b)
			m.note("types of 600 KiB", fd, e)
		}
		do(m, types, types, (*made).close, types)
	})
	limits("progs", func(m *made) { do(m, progs, progs, progs, progs, (*made).close, progs) })
	limits("links", func(m *made) {
		progs(m)
		prog := uint32(m.fds[0])
		link := func(m *made) {
			point := []byte("sys_enter\x00")
			fd, e := bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(point)).u32(8, prog), 16, point)
			m.note("link", fd, e)
		}
		do(m, link, link, link, (*made).close, link, link)
	})
	limits("counts", func(m *made) {
		counted := func(m *made) { m.create("counted", "c", lruHash, 1) }
		do(m, counted, counted, counted, (*made).close, counted, hashes, counted)
	})
	limits("failed", func(m *made) {
		for range 6 { // more than there may be: what fails leaves room
			fd, e := bpf(cmdMapCreate, new(attr).u32(0, hash).u32(4, 0).u32(8, 4).u32(12, 1), 48)
			m.note("no map", fd, e)
		}
		hashes(m)
	})
	probes["limits-log"] = func() {
		for range 3 {
			if _, e := load(rawTP, "p", returns(0), 0, nil); e != 0 {
				fail("load: %v", e)
			}
		}
		log := make([]byte, 4096)
		_, e := load(rawTP, "p", returns(0), 1, log)
		fmt.Println(e, string(log))
	}
	probes["limits-raced"] = func() {
		ask("begun")
		create := func() (int, sys.Errno) {
			return bpf(cmdMapCreate, new(attr).u32(0, hash).u32(4, 4).u32(8, 4).u32(12, 1), 48)
		}
		for {
			if err := raceLimit(create); err != nil {
				fail("%v", err)
			}
			if ask("some were refused, never more than 5") == "hold" {
				break
			}
		}
		for {
			var fds []int
			e := sys.Errno(0)
			for e == 0 {
				var fd int
				if fd, e = create(); e == 0 {
					fds = append(fds, fd)
				}
			}
			if ask(fmt.Sprintf("%d are held", len(fds))) == "" {
				return
			}
			_, e = create()
			ask(unix.ErrnoName(syscall.Errno(e)))
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
}

// raceLimit has many threads make and close maps.
func raceLimit(create func() (int, sys.Errno)) error {
	var mu sync.Mutex
	held, most, refused := 0, 0, 0
	var failed error
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				fd, e := create()
				mu.Lock()
				switch e {
				case 0:
					held++ // after it was made, and less before it is closed: never too many
					most = max(most, held)
				case sys.EPERM:
					refused++
				default:
					failed = e
				}
				mu.Unlock()
				if e != 0 {
					continue
				}
				if other, e := create(); e == 0 {
					unix.Close(other)
				}
				mu.Lock()
				held--
				mu.Unlock()
				unix.Close(fd)
			}
		})
	}
	all.Wait()
	if most > 5 {
		failed = errors.Join(failed, fmt.Errorf("%d at once", most))
	}
	if refused == 0 {
		failed = errors.Join(failed, errors.New("none was refused"))
	}
	return failed
}
