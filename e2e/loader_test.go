package e2e

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// A loader program is of type BPF_PROG_TYPE_SYSCALL, and makes bpf() calls when it is
// run. Its memory is here, as bpftool makes it, the only value of an array.

const (
	helperSysBPF   = 166 // bpf_sys_bpf
	helperBTFFind  = 167 // bpf_btf_find_by_name_kind
	helperSysClose = 168 // bpf_sys_close
	sleepable      = 16  // BPF_F_SLEEPABLE
	blobSize       = 1024
)

// assembler makes a loader. Register 6 is the context, 7 the beginning of the blob.
type assembler struct{ insns []byte }

// loaderIn begins a loader whose blob is the map at fd.
func loaderIn(fd int) *assembler {
	return new(assembler).add(insn(0xbf, 6, 1, 0, 0), insn(0x18, 7, 2, 0, int32(fd)), insn(0, 0, 0, 0, 0))
}

func (a *assembler) add(insns ...[]byte) *assembler {
	a.insns = append(a.insns, prog(insns...)...)
	return a
}

// blob sets a register to an address in the blob.
func (a *assembler) blob(reg uint8, offset int32) *assembler {
	return a.add(insn(0xbf, reg, 7, 0, 0), insn(0x07, reg, 0, 0, offset))
}

// point writes to the blob at offset the address of what is at target.
func (a *assembler) point(offset int16, target int32) *assembler {
	return a.blob(1, target).add(insn(0x7b, 7, 1, offset, 0))
}

// bpf makes a call with the attribute at offset, and puts what it returns at ctx.
func (a *assembler) bpf(cmd abi.Command, offset, size int32, ctx int16) *assembler {
	return a.add(insn(0xb7, 1, 0, 0, int32(cmd))).blob(2, offset).add(insn(0xb7, 3, 0, 0, size)).call(helperSysBPF, ctx)
}

func (a *assembler) call(helper int32, ctx int16) *assembler {
	return a.add(insn(0x85, 0, 0, 0, helper), insn(0x63, 6, 0, ctx, 0))
}

// copy writes the word at ctx to the blob at offset.
func (a *assembler) copy(ctx, offset int16) *assembler {
	return a.add(insn(0x61, 1, 6, ctx, 0), insn(0x63, 7, 1, offset, 0))
}

func (a *assembler) returns(n int32) []byte { return a.add(movR0(n), exit).insns }

// The blob of firstLoader: where attributes and what they point to are.
const (
	atCreate, atUpdate, atLoad, atBad, atBTF   = 0, 128, 192, 384, 960
	atKey, atValue, atInsns, atLicense, atName = 600, 608, 640, 700, 720
)

// firstLoader makes a map, puts an element into it, loads a program, and does what
// fails. What the calls return is in the context.
func firstLoader(blob int) []byte {
	a := loaderIn(blob)
	a.bpf(abi.MapCreate, atCreate, 72, 0)
	a.copy(0, atUpdate).point(atUpdate+8, atKey).point(atUpdate+16, atValue)
	a.bpf(abi.MapUpdateElem, atUpdate, 32, 4)
	a.point(atLoad+8, atInsns).point(atLoad+16, atLicense)
	a.bpf(abi.ProgLoad, atLoad, 144, 8)
	a.bpf(abi.ProgLoad, atBad, 144, 12)      // no instructions
	a.bpf(abi.Command(99), atCreate, 72, 16) // there is no such command
	a.bpf(abi.ProgQuery, atCreate, 72, 20)   // not for loaders
	a.add(insn(0xb7, 1, 0, 0, 999)).call(helperSysClose, 24)
	a.bpf(abi.MapCreate, atCreate, 72, 28) // which it closes
	a.add(insn(0x61, 1, 6, 28, 0)).call(helperSysClose, 28)
	a.blob(1, atName).add(insn(0xb7, 2, 0, 0, 12), insn(0xb7, 3, 0, 0, 4), insn(0xb7, 4, 0, 0, 0)).call(helperBTFFind, 36)
	a.blob(1, atName).add(insn(0xb7, 2, 0, 0, 11), insn(0xb7, 3, 0, 0, 4), insn(0xb7, 4, 0, 0, 0)).call(helperBTFFind, 40)   // no NUL
	a.blob(1, atLicense).add(insn(0xb7, 2, 0, 0, 4), insn(0xb7, 3, 0, 0, 4), insn(0xb7, 4, 0, 0, 0)).call(helperBTFFind, 44) // no such type
	return a.returns(42)
}

func firstBlob() []byte {
	b := make([]byte, blobSize)
	word := func(at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
	word(atCreate, uint32(mapType("hash")))
	word(atCreate+4, 4)
	word(atCreate+8, 8)
	word(atCreate+12, 5)
	word(atLoad, uint32(progType("socket_filter")))
	word(atLoad+4, uint32(len(ret1)/8))
	word(atBad, uint32(progType("socket_filter")))
	word(atKey, 7)
	copy(b[atValue:], "eightbyt")
	copy(b[atInsns:], ret1)
	copy(b[atLicense:], "GPL\x00")
	copy(b[atName:], "task_struct\x00")
	return b
}

const firstCtx = 48

func init() {
	scripts["loader"] = func(s *script) {
		blob := s.must(s.do("blob", abi.MapCreate, f{"map_type": mapType("array"), "key_size": 4, "value_size": blobSize, "max_entries": 1}), "map")
		set := func() {
			s.do("set", abi.MapUpdateElem, f{"map_fd": blob, "key": []byte{0, 0, 0, 0}, "value": firstBlob()})
		}
		set()
		p := s.must(s.load("loader", "syscall", firstLoader(blob), f{"prog_flags": sleepable}), "program")
		for range 2 { // the second run finds the memory as the first one has left it
			ctx := s.buf(make([]byte, firstCtx))
			s.do("run", abi.ProgTestRun, f{"prog_fd": p, "ctx_in": ctx, "ctx_size_in": firstCtx})
			if m := int(binary.NativeEndian.Uint32(ctx.data)); m > 2 {
				value := s.out(8)
				s.do("look", abi.MapLookupElem, f{"map_fd": m, "key": []byte{7, 0, 0, 0}, "value": value})
				s.info("info", m, abi.Map, nil)
				s.info("info", int(binary.NativeEndian.Uint32(ctx.data[8:])), abi.Prog, nil)
				s.do("freeze", abi.MapFreeze, f{"map_fd": m})
			}
		}
		ctx := s.buf(make([]byte, firstCtx))
		run := f{"prog_fd": p, "ctx_in": ctx, "ctx_size_in": firstCtx}
		with := func(label, field string, v any) {
			set()
			more := f{field: v}
			for name, was := range run {
				if _, is := more[name]; !is {
					more[name] = was
				}
			}
			s.do(label, abi.ProgTestRun, more)
		}
		with("no context", "ctx_in", 0)
		with("no size", "ctx_size_in", 0)
		with("a short context", "ctx_size_in", 40)
		with("a long context", "ctx_size_in", 65536)
		with("a context nowhere", "ctx_in", uint64(8))
		with("repeat", "repeat", 2)
		with("duration", "duration", 1)
		with("flags", "flags", 1)
		with("data", "data_in", s.buf(make([]byte, 8)))
		with("data out", "data_out", s.buf(make([]byte, 8)))
		with("ctx_out", "ctx_size_out", 8)
		with("cpu", "cpu", 1)
		s.do("run a map", abi.ProgTestRun, f{"prog_fd": blob, "ctx_in": ctx, "ctx_size_in": firstCtx})
	}

	probes["loader denied"] = okay(func() error { // under a policy that allows array maps, syscall programs and socket filters
		r, err := runFirst(func(b []byte) {})
		if err != nil {
			return err
		}
		// No hash map, so nothing to put an element into; the program is allowed.
		if want := []int32{-1, -9}; !slices.Equal(r[:2], want) || r[2] <= 2 {
			return fmt.Errorf("calls returned %d, wanted %d and an fd", r[:3], want)
		}
		unix.Close(int(r[2]))
		r, err = runFirst(func(b []byte) {
			b[atCreate] = byte(mapType("array"))
			b[atCreate+12] = 8
			b[atLoad] = byte(progType("xdp"))
		})
		if err != nil {
			return err
		}
		if r[0] <= 2 || r[1] != 0 || r[2] != -1 {
			return fmt.Errorf("calls returned %d, wanted an fd, 0, -1", r[:3])
		}
		return nil
	})

	probes["loader scoped"] = okay(func() error {
		r, err := runFirst(func(b []byte) { b[atLoad] = byte(progType("raw_tracepoint")) })
		if err == nil && r[2] <= 2 {
			err = fmt.Errorf("calls returned %d", r)
		}
		return err
	})

	probes["loader limited"] = okay(func() error { // under a policy that allows two maps and two programs
		first, err := runFirst(func([]byte) {})
		if err != nil {
			return err
		}
		// Its memory and the hash map are two; itself and the socket filter, too.
		if first[0] <= 2 || first[2] <= 2 || first[7] != -9 {
			return fmt.Errorf("calls returned %d: wanted fds and no third map to close", first)
		}
		unix.Close(int(first[0]))
		// again runs it until the kernel has freed what was closed, which takes a while.
		again := func(enough func(r []int32) bool) (err error) {
			for range 200 {
				var r []int32
				if r, err = runFirst(func([]byte) {}); err == nil {
					for _, i := range []int{0, 2} {
						if r[i] > 2 {
							unix.Close(int(r[i]))
						}
					}
					if enough(r) {
						return nil
					}
					err = fmt.Errorf("calls returned %d", r)
				}
				time.Sleep(20 * time.Millisecond)
			}
			return err
		}
		// What it made and this holds is counted.
		if err := again(func(r []int32) bool { return r[0] > 2 && r[2] == -1 }); err != nil {
			return fmt.Errorf("%w: wanted an fd and, of the third program, -1", err)
		}
		unix.Close(int(first[2]))
		if err := again(func(r []int32) bool { return r[0] > 2 && r[2] > 2 }); err != nil {
			return fmt.Errorf("%w: wanted fds when there was room again", err)
		}
		return nil
	})

	probes["loader many"] = okay(func() error { // threads that run loaders at once
		before := filesOpen()
		var wg sync.WaitGroup
		failed := make(chan error, 8)
		for range 8 {
			wg.Go(func() {
				for range 10 {
					r, err := runFirst(func([]byte) {})
					if err == nil && (r[0] <= 2 || r[1] != 0 || r[2] <= 2) {
						err = fmt.Errorf("calls returned %d", r)
					}
					if err != nil {
						failed <- err
						return
					}
					unix.Close(int(r[0]))
					unix.Close(int(r[2]))
				}
			})
		}
		wg.Wait()
		select {
		case err := <-failed:
			return err
		default:
		}
		if now := filesOpen(); now != before {
			return fmt.Errorf("%d files are open, %d were", now, before)
		}
		return nil
	})

	probes["loader hostile"] = okay(func() error {
		blob, err := newBlob(firstBlob())
		if err != nil {
			return err
		}
		// What the stub shows of itself isn't the loader.
		p, e := loadLoader(firstLoader(blob))
		if e != 0 {
			return fmt.Errorf("load: %w", e)
		}
		// What can't be interpreted isn't run.
		other, e := loadLoader(prog(insn(0x85, 0, 0, 0, 5), movR0(0), exit)) // bpf_ktime_get_ns
		if e != 0 {
			return fmt.Errorf("load what is no loader: %w", e)
		}
		if err := testRunOf(other, make([]byte, 8)); err != unix.EPERM {
			return fmt.Errorf("what is no loader was run: %v", err)
		}
		// The target's own fds aren't closed, nor taken for the loader's.
		if _, err := runLoader(loaderIn(blob).add(insn(0xb7, 1, 0, 0, int32(blob))).call(helperSysClose, 0).returns(0), 8); err != nil {
			return err
		}
		if _, e := info(blob); e != 0 {
			return fmt.Errorf("a loader closed the application's fd: %w", e)
		}
		// A number of ours in the context, which the loader never made, stays what it is.
		ctx := make([]byte, firstCtx)
		for n := range firstCtx / 4 {
			binary.NativeEndian.PutUint32(ctx[4*n:], uint32(19728+n))
		}
		if err := testRunOf(p, ctx); err != nil {
			return err
		}
		// A frozen blob stays what it was, and so does one that is written meanwhile.
		if _, e := bpf(uint32(abi.MapFreeze), new(attr).u32(0, uint32(blob)), 4); e != 0 {
			return e
		}
		if err := testRunOf(p, make([]byte, firstCtx)); err != unix.EPERM && err != nil {
			return err
		}
		return nil
	})
}

// newBlob makes a loader's memory.
func newBlob(value []byte) (int, error) {
	fd, e := bpf(uint32(abi.MapCreate), new(attr).u32(0, uint32(mapType("array"))).u32(4, 4).u32(8, uint32(len(value))).u32(12, 1), 72)
	if e != 0 {
		return -1, e
	}
	key := make([]byte, 4)
	if _, e := bpf(uint32(abi.MapUpdateElem), new(attr).u32(0, uint32(fd)).u64(8, sys.Addr(key)).u64(16, sys.Addr(value)), 32, key, value); e != 0 {
		return -1, e
	}
	return fd, nil
}

func loadLoader(insns []byte) (int, sys.Errno) {
	a := new(attr).u32(0, uint32(progType("syscall"))).u32(4, uint32(len(insns)/8)).u64(8, sys.Addr(insns)).u64(16, sys.Addr(gpl)).u32(44, sleepable)
	return bpf(cmdProgLoad, a, 144, insns)
}

// testRunOf runs a loader, which changes ctx.
func testRunOf(prog int, ctx []byte) error {
	a := new(attr).u32(0, uint32(prog)).u32(40, uint32(len(ctx))).u64(48, sys.Addr(ctx))
	if _, e := bpf(uint32(abi.ProgTestRun), a, 80, ctx); e != 0 {
		return e
	}
	return nil
}

// runLoader loads a loader, and runs it with a context of so many bytes.
func runLoader(insns []byte, size int) ([]int32, error) {
	p, e := loadLoader(insns)
	if e != 0 {
		return nil, fmt.Errorf("load: %w", e)
	}
	defer unix.Close(p)
	ctx := make([]byte, size)
	if err := testRunOf(p, ctx); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	out := make([]int32, size/4)
	for i := range out {
		out[i] = int32(binary.NativeEndian.Uint32(ctx[4*i:]))
	}
	return out, nil
}

// runFirst runs firstLoader with a blob that change has changed.
func runFirst(change func(blob []byte)) ([]int32, error) {
	value := firstBlob()
	change(value)
	blob, err := newBlob(value)
	if err != nil {
		return nil, err
	}
	defer unix.Close(blob)
	return runLoader(firstLoader(blob), firstCtx)
}

// TestLoader: loaders are interpreted, their calls decided, and nothing is left.
func TestLoader(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		says(t, brokered(probe("loader many"), "--worker="+kind))
		s := start(t, brokered(probe("loader hostile"), "--worker="+kind))
		s.expect("ok")
		s.end(false)
		if why := "a program of type syscall is interpreted, and this one can't be: insn 0 (code 0x85): calls helper 5"; !strings.Contains(s.stderr.String(), why) {
			t.Errorf("%s: stderr doesn't say %q:\n%s", kind, why, s.stderr.String())
		}
	}
}

// TestLoaderDenied: the policy decides each call of a loader's.
func TestLoaderDenied(t *testing.T) {
	needRoot(t)
	binary := attackBuild(t, false)
	for _, kind := range kinds(t) {
		c := brokered(probe("loader denied"), "--policy=test-loaders", "--quiet", "--worker="+kind)
		c.Path, c.Args[0] = binary, binary
		says(t, c)
	}
}

// TestLoaderLimited: what a loader makes counts, as if the application had made it.
func TestLoaderLimited(t *testing.T) {
	needRoot(t)
	file := policyFile(t, `apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: two}
spec:
  limits: {maps: 2, programs: 2}
  rules:
  - name: any
    commands: [map_create, prog_load, obj_get_info_by_fd, btf_get_next_id, btf_get_fd_by_id]
    verdict: allow
`)
	for _, kind := range kinds(t) {
		denied, ok, out := under(t, file, kind, probe("loader limited"))
		if !ok || out != "ok\n" {
			t.Errorf("%s: %s (denied %q)", kind, out, denied)
		}
		if all := strings.Join(denied, "\n"); !strings.Contains(all, "no more than 2 maps") || !strings.Contains(all, "no more than 2 programs") {
			t.Errorf("%s: denied %q", kind, denied)
		}
	}
}

// TestLoaderScoped: a program that a loader loads has its guard, too.
func TestLoaderScoped(t *testing.T) {
	needRoot(t)
	file := policyFile(t, strings.Replace(numbered, "    commands: [prog_load, perf_event_open]\n", "    commands: [prog_load]\n    when: prog.type == 'raw_tracepoint'\n", 1))
	for _, kind := range kinds(t) {
		log, stdout, stderr := audited(t, brokeredBy(file, probe("loader scoped"), "--quiet", "--worker="+kind))
		guarded := 0
		for _, e := range log {
			if e.Facts.Prog.Type == "raw_tracepoint" && e.Decision.Scope == policy.ScopeWorkload && e.Record.Outcome.Tag != 0 {
				guarded++
			}
		}
		if guarded != 1 || stdout != "ok\n" {
			t.Errorf("%s: %d programs have a guard: %s%s", kind, guarded, stdout, stderr)
		}
	}
}
