package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/digest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// What a call names, changed by another thread while it is under way.

// TestRacing wants each call to have been made on what was there at one instant.
func TestRacing(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"attr", "insns", "fds", "path", "events", "loader"} {
		t.Run(name, func(t *testing.T) { says(t, brokered(probe("racing-"+name))) })
	}
}

// TestRacingDecision: what is decided on is what is performed. The policy allows one
// program by its digest; the instructions change to another's and back all the time.
// Whatever is loaded is read back: it is that program.
func TestRacingDecision(t *testing.T) {
	needRoot(t)
	binary := attackBuild(t, false)
	sum := digest.Of(&digest.Program{Insns: returns(1)})
	for _, kind := range kinds(t) {
		c := brokered(probe("racing-decision"), "--quiet", "--worker="+kind)
		c.Args = slices.Replace(c.Args, 2, 3, "--policy=test-digest-"+sum.String())
		c.Path, c.Args[0] = binary, binary
		log, out, errs := audited(t, c)
		if out != "ok\n" || errs != "" {
			t.Fatalf("%s: %s%s", kind, out, errs)
		}
		// So the log has of each load the digest of what was loaded.
		loads := 0
		for _, r := range log {
			if r.Facts.Command != "prog_load" {
				continue
			}
			loads++
			allowed := r.Decision.Verdict == policy.Allow
			if is := r.Facts.Prog.Digest == sum.String(); is != allowed || is != (r.Outcome == "ok") {
				t.Fatalf("%s: a program of digest %s: %v, %s", kind, r.Facts.Prog.Digest, r.Decision.Verdict, r.Outcome)
			}
		}
		if loads == 0 {
			t.Errorf("%s: the log has no loads", kind)
		}
	}
}

func init() {
	probes["racing-decision"] = okay(func() error {
		insns := returns(1)
		loaded, denied := 0, 0
		err := racing(4000,
			func(i int) { binary.NativeEndian.PutUint32(insns[4:], uint32(1+i%2)) },
			func() error {
				fd, e := load(progTypeSocket, "racing", insns, 0, nil)
				if e == sys.EPERM {
					denied++
					return nil
				}
				if e != 0 {
					return e
				}
				defer unix.Close(fd)
				loaded++
				// The verifier leaves such a program as it is.
				got := make([]byte, len(insns))
				b := make([]byte, abi.ProgInfo.Size)
				abi.ProgInfo.Field("xlated_prog_len").Put(b, uint64(len(got)))
				abi.ProgInfo.Field("xlated_prog_insns").Put(b, sys.Addr(got))
				if _, e := bpf(cmdObjInfo, new(attr).u32(0, uint32(fd)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b, got); e != 0 {
					return e
				}
				if !bytes.Equal(got, returns(1)) {
					return fmt.Errorf("loaded %x", got)
				}
				return nil
			})
		if err == nil && (loaded < 10 || denied < 10) {
			return fmt.Errorf("%d were loaded, %d denied", loaded, denied)
		}
		return err
	})
}

// racing calls many times while another thread changes things.
func racing(calls int, change func(i int), call func() error) error {
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for i := 0; !stop.Load(); i++ {
			change(i)
		}
	})
	defer done.Wait()
	defer stop.Store(true)
	for range calls {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}

// oneOf says what is wrong with an errno that isn't among those given.
func oneOf(what string, e sys.Errno, among ...sys.Errno) error {
	for _, a := range among {
		if e == a {
			return nil
		}
	}
	return fmt.Errorf("%s: %v", what, e)
}

func init() {
	// One field flips; the map is of one kind or the other, by every sign of it.
	probes["racing-attr"] = okay(func() error {
		a := new(attr).u32(0, 1).u32(4, 8).u32(8, 16).u32(12, 2).u32(16, noPrealloc).name(28, "aaaaaaaaaaaaaaa")
		seen := map[int]int{}
		err := racing(2000,
			func(i int) {
				// A race on purpose, of single words.
				a.u32(8, uint32(16+16*(i%2)))
				a.name(28, []string{"aaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbb", "!not a name!!!!"}[i%3])
			},
			func() error {
				fd, e := bpf(cmdMapCreate, a, 72)
				if e != 0 {
					return oneOf("map_create", e, sys.EINVAL)
				}
				defer unix.Close(fd)
				b, e := info(fd)
				if e != 0 {
					return e
				}
				name := strings.TrimRight(string(b[mapNameOffset:mapNameOffset+16]), "\x00")
				if strings.Trim(name, "ab") != "" {
					return fmt.Errorf("a map called %q", name)
				}
				size := int(binary.NativeEndian.Uint32(b[12:]))
				seen[size]++
				return hashMap{8, size, 2}.check(fd)
			})
		if err == nil && (len(seen) != 2 || seen[16] == 0 || seen[32] == 0) {
			return fmt.Errorf("value sizes seen: %v", seen)
		}
		return err
	})

	// The program is one or the other, and never what no one asked for.
	probes["racing-insns"] = okay(func() error {
		insns := returns(1)
		want := map[string]int{}
		for i := range 2 {
			fd, e := load(progTypeSocket, "racing", returns(int32(i+1)), 0, nil)
			if e != 0 {
				return e
			}
			b, e := info(fd)
			if e != 0 {
				return e
			}
			want[string(b[8:16])] = 0 // the tag
			unix.Close(fd)
		}
		err := racing(2000,
			func(i int) { binary.NativeEndian.PutUint32(insns[4:], uint32(1+i%2)) },
			func() error {
				fd, e := load(progTypeSocket, "racing", insns, 1, make([]byte, 4096))
				if e != 0 {
					return e
				}
				defer unix.Close(fd)
				b, e := info(fd)
				if e != 0 {
					return e
				}
				tag := string(b[8:16])
				if _, known := want[tag]; !known {
					return fmt.Errorf("a program with tag %x", tag)
				}
				want[tag]++
				return nil
			})
		for tag, n := range want {
			if n == 0 && err == nil {
				return fmt.Errorf("tag %x was never seen", tag)
			}
		}
		return err
	})

	// An fd's number comes to mean this map, that map, and nothing.
	probes["racing-fds"] = okay(func() error {
		const n = 99
		var maps [2]int
		ids := map[uint32]int{}
		for i := range maps {
			var e sys.Errno
			if maps[i], e = variety(i).create("racing"); e != 0 {
				return e
			}
			b, e := info(maps[i])
			if e != 0 {
				return e
			}
			ids[binary.NativeEndian.Uint32(b[4:])] = 0
		}
		insns := prog(ldMap(1, n, 0), movR0(0), exit)
		seen := func(id uint32) error {
			if _, known := ids[id]; !known {
				return fmt.Errorf("map id %d is neither's", id)
			}
			ids[id]++
			return nil
		}
		err := racing(2000,
			func(i int) {
				if i%3 == 2 {
					unix.Close(n)
				} else {
					unix.Dup3(maps[i%3], n, unix.O_CLOEXEC)
				}
			},
			func() error {
				fd, e := load(progTypeSocket, "racing", insns, 0, nil)
				if e != 0 {
					return oneOf("prog_load", e, sys.EBADF)
				}
				defer unix.Close(fd)
				var id [4]byte
				b := make([]byte, 80)
				binary.NativeEndian.PutUint32(b[52:], 1)               // nr_map_ids
				binary.NativeEndian.PutUint64(b[56:], sys.Addr(id[:])) // map_ids
				if _, e := bpf(cmdObjInfo, new(attr).u32(0, uint32(fd)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b, id[:]); e != 0 {
					return e
				}
				if err := seen(binary.NativeEndian.Uint32(id[:])); err != nil {
					return err
				}
				b, e = info(n)
				if e != 0 {
					return oneOf("info", e, unix.EBADFD)
				}
				return seen(binary.NativeEndian.Uint32(b[4:]))
			})
		for id, times := range ids {
			if times == 0 && err == nil {
				return fmt.Errorf("map %d was never seen", id)
			}
		}
		return err
	})
}

func init() {
	// The path changes: what is pinned is at one of the two, and nowhere else.
	probes["racing-path"] = okay(func() error {
		const dir = "/sys/fs/bpf/"
		names := []string{"racing-a", "racing-b"}
		path := []byte(dir + names[0] + "\x00")
		fd, e := variety(1).create("racing")
		if e != 0 {
			return e
		}
		seen := map[string]int{}
		err := racing(1000,
			func(i int) { path[len(path)-2] = 'a' + byte(i%2) },
			func() error {
				if _, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(fd)), 16, path); e != 0 {
					return fmt.Errorf("pin: %w", e)
				}
				there, err := filepath.Glob(dir + "racing*")
				if err != nil {
					return err
				}
				if len(there) != 1 || !slices.Contains(names, filepath.Base(there[0])) {
					return fmt.Errorf("pinned at %v", there)
				}
				seen[there[0]]++
				return os.Remove(there[0])
			})
		if err == nil && len(seen) != 2 {
			return fmt.Errorf("paths seen: %v", seen)
		}
		return err
	})

	// The numbers of the event and of the program come to mean others: an event has the
	// one program or the other, for good.
	probes["racing-events"] = okay(func() error {
		const event, program = 98, 99
		const perfEvent = 7 // BPF_PROG_TYPE_PERF_EVENT
		open := func() (int, error) {
			return unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: 112, Sample: 1 << 40}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		}
		var programs [2]int
		for i := range programs {
			var e sys.Errno
			if programs[i], e = load(perfEvent, "racing", returns(0), 0, nil); e != 0 {
				return fmt.Errorf("load: %w", e)
			}
		}
		other, e := variety(1).create("racing")
		if e != 0 {
			return e
		}
		set := 0
		var mu sync.Mutex // of the events: a number is closed by those that made it
		var events [2]int
		renew := func() error {
			mu.Lock()
			defer mu.Unlock()
			for i := range events {
				if events[i] > 0 {
					unix.Close(events[i])
				}
				var err error
				if events[i], err = open(); err != nil {
					return err
				}
			}
			return nil
		}
		if err := renew(); err != nil {
			return err
		}
		err := racing(1000,
			func(i int) {
				mu.Lock()
				defer mu.Unlock()
				unix.Dup3([]int{events[0], events[1], other}[i%3], event, unix.O_CLOEXEC)
				unix.Dup3([]int{programs[0], programs[1], other}[i/3%3], program, unix.O_CLOEXEC)
				if i%7 == 0 {
					unix.Close(program)
				}
			},
			func() error {
				_, _, e := unix.Syscall(unix.SYS_IOCTL, event, unix.PERF_EVENT_IOC_SET_BPF, program)
				switch e {
				case 0:
					set++
				case unix.EEXIST: // both have one
					return renew()
				case unix.ENOTTY, unix.EBADF, unix.EINVAL:
				default:
					return fmt.Errorf("set: %w", e)
				}
				return nil
			})
		if err == nil && set < 10 {
			return fmt.Errorf("programs were set %d times", set)
		}
		return err
	})

	// A loader's context and memory change while it runs: it makes what is one or the
	// other, or nothing, and leaves no fd behind.
	probes["racing-loader"] = okay(func() error {
		blob, err := newBlob(firstBlob())
		if err != nil {
			return err
		}
		loader, e := loadLoader(firstLoader(blob))
		if e != 0 {
			return fmt.Errorf("load: %w", e)
		}
		ctx := make([]byte, firstCtx)
		value, key := firstBlob(), make([]byte, 4)
		made := map[uint32]int{}
		before := filesOpen()
		err = racing(200,
			func(i int) {
				binary.NativeEndian.PutUint32(value[atCreate+8:], uint32(8+8*(i%2)))
				binary.NativeEndian.PutUint32(value[atLoad+4:], uint32(i%3))
				bpf(cmdMapUpdate, new(attr).u32(0, uint32(blob)).u64(8, sys.Addr(key)).u64(16, sys.Addr(value)), 32, key, value)
				binary.NativeEndian.PutUint32(ctx[4*(i%12):], uint32(i))
			},
			func() error {
				if err := testRunOf(loader, ctx); err != nil {
					return oneOf("run", err.(sys.Errno), sys.EINVAL, sys.EFAULT, sys.EPERM, sys.EBADF)
				}
				// The application's thread writes to what the loader answers, too: what its fds
				// are is for their owner to find out.
				for n := 3; n < 100; n++ { // the kernel gives out the lowest
					if n == blob || n == loader {
						continue
					}
					if b, e := info(n); e == 0 {
						if len(b) >= 16 && binary.NativeEndian.Uint32(b[12:]) <= 16 {
							made[binary.NativeEndian.Uint32(b[12:])]++
						}
						unix.Close(n)
					}
				}
				return nil
			})
		if err != nil {
			return err
		}
		if made[8] == 0 || made[16] == 0 {
			return fmt.Errorf("value sizes seen: %v", made)
		}
		if now := filesOpen(); now != before {
			return fmt.Errorf("%d files are open, %d were", now, before)
		}
		return nil
	})
}
