package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// learnFrom runs a command under bpfbroker learn, and returns the policy's file, with what
// the command said.
func learnFrom(t *testing.T, kind string, c *exec.Cmd, flags ...string) (file, out string, ok bool) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "learned.yaml")
	c.Args = slices.Concat([]string{broker, "learn", "--worker=" + kind, "-o", file}, flags, []string{"--", c.Path}, c.Args[1:])
	c.Path = broker
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	said := stderr.String()
	if !strings.Contains(said, "wrote "+file) || strings.Contains(said, "warning") || strings.Contains(said, "not learned") {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, stdout.String(), said)
	}
	said, _, _ = strings.Cut(said, "bpfbroker: learned ")
	return file, stdout.String() + said, err == nil
}

// anyNumber is other ones in each run: ids, times, counts.
var anyNumber = regexp.MustCompile(`0x[0-9a-f]+|[0-9]+`)

// relearned learns from a command, and checks that it does the same under the policy. The
// command is made anew for each run.
func relearned(t *testing.T, kind string, command func() *exec.Cmd, flags ...string) (file string) {
	t.Helper()
	file, before, ok := learnFrom(t, kind, command(), flags...)
	if !ok {
		t.Fatalf("%s: it fails under trusted: %s", kind, before)
	}
	denied, ok, after := under(t, file, kind, command(), flags...)
	plain := func(s string) string { return anyNumber.ReplaceAllString(s, "N") }
	if len(denied) > 0 || !ok || plain(before) != plain(after) {
		text, _ := os.ReadFile(file)
		t.Fatalf("%s: under what was learned: succeeded %v, denied %q\nbefore: %s\nafter: %s\n%s", kind, ok, denied, before, after, text)
	}
	return file
}

// denies checks that a changed command is denied for what it has changed.
func denies(t *testing.T, file, kind string, c *exec.Cmd, reason string, flags ...string) {
	t.Helper()
	denied, ok, out := under(t, file, kind, c, flags...)
	if !strings.Contains(strings.Join(denied, "\n"), reason) {
		text, _ := os.ReadFile(file)
		t.Errorf("%s: %v: succeeded %v, denied %q, wanted %q: %s\n%s", kind, c.Args, ok, denied, reason, out, text)
	}
}

func TestLearnBpftrace(t *testing.T) {
	needRoot(t)
	trace := func(program string) *exec.Cmd { return installed(t, "bpftrace", "-e", program) }
	const program = `tracepoint:syscalls:sys_enter_getpid { @[comm] = count(); } interval:ms:100 { printf("tick\n"); exit(); } END { clear(@); }`
	for _, kind := range kinds(t) {
		file := relearned(t, kind, func() *exec.Cmd { return trace(program) })
		denies(t, file, kind, trace(strings.Replace(program, "sys_enter_getpid", "sys_enter_getppid", 1)),
			`perf_event.tracepoint is "syscalls:sys_enter_getppid"`)
		denies(t, file, kind, trace(strings.Replace(program, "getpid {", "getpid /nsecs > 1/ {", 1)), `prog.helpers has "bpf_ktime_get_ns"`)
		bigger := trace(program)
		bigger.Env = append(os.Environ(), "BPFTRACE_MAP_KEYS_MAX=8192")
		denies(t, file, kind, bigger, "map.max_entries is 8192, not at most 4096")
	}
}

func TestLearnBpftool(t *testing.T) {
	needRoot(t)
	dir := xdpLoader(t)
	script := func(entries string, more string) *exec.Cmd {
		c := installed(t, "sh", "-ec", `
bpftool prog load xdp.bpf.o /sys/fs/bpf/x
bpftool prog show pinned /sys/fs/bpf/x
bpftool map create /sys/fs/bpf/m type hash key 4 value 8 entries `+entries+` name m
bpftool map update pinned /sys/fs/bpf/m key 1 0 0 0 value 1 0 0 0 0 0 0 0
bpftool map show pinned /sys/fs/bpf/m
bpftool map dump pinned /sys/fs/bpf/m
bpftool prog show; bpftool map show; bpftool link show
`+more)
		c.Dir = dir
		return c
	}
	for _, kind := range kinds(t) {
		file := relearned(t, kind, func() *exec.Cmd { return script("16", "") })
		denies(t, file, kind, script("32", ""), "map.max_entries is 32, not at most 16")
		denies(t, file, kind, script("16", "bpftool map create /sys/fs/bpf/m2 type lru_hash key 4 value 8 entries 1 name m2"), `map.type is "lru_hash"`)
		denies(t, file, kind, script("16", "bpftool prog load helper.bpf.o /sys/fs/bpf/y"), `prog.helpers has "bpf_ktime_get_ns"`)
	}
}

// readable is a directory that anybody may read.
func readable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bpfbroker-learn-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kernelHeaders is clang's flag by which it finds asm/types.h.
func kernelHeaders(t *testing.T) string {
	t.Helper()
	return "-I/usr/include/" + strings.TrimSpace(output(t, exec.Command("uname", "-m"))) + "-linux-gnu"
}

// xdpLoader builds the demo's loader of an XDP program by libbpf, and programs that differ
// from it in a helper and in a map's size, in a directory that anybody may read.
func xdpLoader(t *testing.T) (dir string) {
	t.Helper()
	dir = readable(t)
	source, err := os.ReadFile("../demo/xdp.bpf.c")
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) string {
		text := strings.Replace(string(source), old, new, 1)
		if text == string(source) {
			t.Fatalf("demo/xdp.bpf.c has no %q any more", old)
		}
		return text
	}
	for name, text := range map[string]string{
		"xdp": string(source), "helper": replaced("__u32 key = 0;", "__u32 key = 0;\n\tif (bpf_ktime_get_ns() == 1)\n\t\treturn XDP_DROP;"),
		"bigger": replaced("max_entries, 1)", "max_entries, 1000)"),
	} {
		file := filepath.Join(dir, name+".bpf.c")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		output(t, exec.Command("clang", "-O2", "-g", "-target", "bpf", kernelHeaders(t), "-c", file, "-o", filepath.Join(dir, name+".bpf.o")))
	}
	output(t, exec.Command("gcc", "-O2", "../demo/xdp.c", "-o", filepath.Join(dir, "xdp"), "-lbpf"))
	return dir
}

func TestLearnXDP(t *testing.T) {
	needRoot(t)
	dir := xdpLoader(t)
	load := func(object, ifname string) *exec.Cmd {
		c := installed(t, "sh", "-ec", `ip link add veth0 type veth peer name veth1; ip link set veth0 up; ip link set veth1 up; ./xdp "$0" "$1" 0 true`, object, ifname)
		c.Dir = dir
		return c
	}
	for _, kind := range kinds(t) {
		file := relearned(t, kind, func() *exec.Cmd { return load("xdp.bpf.o", "veth0") }, "--net=private")
		denies(t, file, kind, load("xdp.bpf.o", "veth1"), `attach.ifname is "veth1", not "veth0"`, "--net=private")
		denies(t, file, kind, load("helper.bpf.o", "veth0"), `prog.helpers has "bpf_ktime_get_ns"`, "--net=private")
		denies(t, file, kind, load("bigger.bpf.o", "veth0"), "map.max_entries is 1000, not at most 1", "--net=private")

		// By digest, not even a program that calls the same may be another.
		pinned, _, _ := learnFrom(t, kind, load("xdp.bpf.o", "veth0"), "--net=private", "--digests")
		if denied, ok, out := under(t, pinned, kind, load("xdp.bpf.o", "veth0"), "--net=private"); !ok || len(denied) > 0 {
			t.Errorf("%s: by digests: denied %q: %s", kind, denied, out)
		}
		denies(t, pinned, kind, load("helper.bpf.o", "veth0"), "prog.digest is", "--net=private")
	}
}

// A light skeleton's loader makes its calls from inside the kernel, natively; the broker,
// which runs it itself, asks for more than the workload.
func TestLearnLightSkeleton(t *testing.T) {
	needRoot(t)
	dir := readable(t)
	output(t, exec.Command("clang", "-O2", "-g", "-target", "bpf", kernelHeaders(t), "-c", "../demo/lskel.bpf.c", "-o", filepath.Join(dir, "lskel.bpf.o")))
	skeleton := output(t, exec.Command("bpftool", "gen", "skeleton", "-L", filepath.Join(dir, "lskel.bpf.o"), "name", "lskel_bpf"))
	if err := os.WriteFile(filepath.Join(dir, "lskel.skel.h"), []byte(skeleton), 0o644); err != nil {
		t.Fatal(err)
	}
	output(t, exec.Command("gcc", "-O2", "-w", "-I"+dir, "../demo/lskel.c", "-o", filepath.Join(dir, "lskel"), "-lbpf"))
	for _, kind := range kinds(t) {
		relearned(t, kind, func() *exec.Cmd { return exec.Command(filepath.Join(dir, "lskel")) })
	}
}

// TestLearnCilium is a part of the suite of cilium/ebpf's root package; make learn has all.
// TestProgramInfo isn't in it: it wants addresses in the kernel, which the broker shows where
// a policy has programs that find them.
func TestLearnCilium(t *testing.T) {
	needRoot(t)
	binary := filepath.Join(bin, "cilium.test")
	build := exec.Command("go", "test", "-c", "-o", binary, "github.com/cilium/ebpf")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	suite := func() *exec.Cmd {
		c := exec.Command(binary, "-test.v", "-test.run", "^(TestMap|TestMapPin|TestNestedMapPin|TestMapInMap|TestMapFromID|TestProgramPin|TestProgramRun|TestProgramVerifierLog|TestHaveProgTestRun|TestMapInfo)$")
		c.Dir = "/"
		return c
	}
	for _, kind := range kinds(t) {
		verdicts := func(out string) (lines []string) {
			for l := range strings.Lines(out) {
				if _, verdict, ok := strings.Cut(l, "--- "); ok {
					lines = append(lines, anyNumber.ReplaceAllString(verdict, "N"))
				}
			}
			slices.Sort(lines)
			return lines
		}
		file, before, _ := learnFrom(t, kind, suite(), "--net=private")
		denied, _, after := under(t, file, kind, suite(), "--net=private")
		if b, a := verdicts(before), verdicts(after); len(b) < 11 || !slices.Equal(b, a) || len(denied) > 0 {
			t.Errorf("%s: denied %q\nbefore: %q\nafter: %q", kind, denied, b, a)
		}
	}
}

// TestLearnDenied: what the policy over it denies isn't learned, and is told. What it allows
// is, also by rules that keep it out of the log.
func TestLearnDenied(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "x.yaml")
	create := func(typ string) string {
		return "bpftool map create /sys/fs/bpf/" + typ + " type " + typ + " key 4 value 4 entries 1 name m; "
	}
	c := installed(t, "sh", "-c", create("array")+create("prog_array"))
	c.Args = slices.Concat([]string{broker, "learn", "--policy=observe", "-o", file, "--", c.Path}, c.Args[1:])
	c.Path = broker
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `denied, so not learned: 1 times "map_create prog_array"`) {
		t.Errorf("%v: %s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), "prog_array") || !strings.Contains(string(text), "commands: [obj_pin]") {
		t.Errorf("%v: %s", err, text)
	}
}
