package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Containers of real runtimes, under `bpfbroker serve`: the same bundle for each, made of
// the host's files, with a profile of `bpfbroker profile`.

// served is a running bpfbroker serve.
type served struct {
	cmd *exec.Cmd
	dir string // its state
	log lockedBuffer
}

// wait waits until it has logged so many lines with that text.
func (s *served) wait(t *testing.T, n int, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(s.log.String())
		}
	}()
	eventually(t, fmt.Sprintf("%d lines with %q", n, text), func() bool { return strings.Count(s.log.String(), text) >= n })
}

func startServe(t *testing.T, flags ...string) *served {
	t.Helper()
	s := &served{dir: filepath.Join(t.TempDir(), "state")}
	s.cmd = exec.Command(broker, append([]string{"serve", "--state-dir", s.dir}, flags...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("serve: %v\n%s", err, s.log.String())
		}
	})
	s.wait(t, 1, "msg=ready")
	return s
}

// bundle makes one whose process is a probe, with its arguments, and returns its directory.
func (s *served) bundle(t *testing.T, change func(*specs.Spec), probeName string, args ...string) string {
	t.Helper()
	profile, err := exec.Command(broker, "profile", "--base", "none", "--listener", filepath.Join(s.dir, "oci.sock")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var seccomp specs.LinuxSeccomp
	if err := json.Unmarshal(profile, &seccomp); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(bin, "bundle-") // where all may look
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_KILL"}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	c := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: append([]string{"/bin/probe"}, args...), Env: []string{"PATH=/usr/bin:/bin", probeEnv + "=" + probeName}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{
			Seccomp: &seccomp, UIDMappings: ids, GIDMappings: ids, CgroupsPath: "/" + filepath.Base(dir),
			Namespaces: []specs.LinuxNamespace{{Type: specs.UserNamespace}, {Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace}},
		},
	}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"", "usr", "lib", "lib64", "bin", "proc", "sys", "tmp", "dev"} {
		err := os.MkdirAll(filepath.Join(root, d), 0o755)
		if err == nil {
			err = os.Chown(filepath.Join(root, d), 100000, 100000) // its root's
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"usr", "lib", "lib64"} {
		c.Mounts = append(c.Mounts, specs.Mount{Destination: "/" + d, Type: "none", Source: "/" + d, Options: []string{"rbind", "ro"}})
	}
	c.Mounts = append(c.Mounts, specs.Mount{Destination: "/bin", Type: "none", Source: bin, Options: []string{"rbind", "ro"}})
	if change != nil {
		change(c)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runtimes are those of the tests, and what is to be done before: crun knows nothing of
// hosts that have both versions of cgroups.
var runtimes = map[string]string{
	"runc":                "exec runc",
	"runc, cgroup2 alone": unifiedCgroups + "exec runc",
	"crun":                unifiedCgroups + "exec crun",
}

const unifiedCgroups = "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && "

// runtimeCommand is a command of a runtime's.
func runtimeCommand(t *testing.T, runtime string, args ...string) *exec.Cmd {
	t.Helper()
	installed(t, "runc")
	installed(t, "crun")
	c := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", runtimes[runtime] + ` "$@"`, "sh"}, args...)...)
	// Pipes: crun gives the streams to the container's root, and the host's /dev/null would be one.
	c.Stdin, c.Stderr = strings.NewReader(""), &bytes.Buffer{}
	return c
}

// said runs a command, and returns all that it says.
func said(c *exec.Cmd) (string, error) {
	out := c.Stderr.(*bytes.Buffer)
	c.Stdout = out
	err := c.Run()
	return out.String(), err
}

// run runs a container to its end, and returns what it printed.
func runContainer(t *testing.T, runtime, bundle string) (string, error) {
	t.Helper()
	id := filepath.Base(bundle)
	c := runtimeCommand(t, runtime, "run", "--bundle", bundle, id)
	var stdout bytes.Buffer
	c.Stdout = &stdout
	err := c.Run()
	if err != nil {
		err = fmt.Errorf("%w: %v", err, c.Stderr)
	}
	return stdout.String(), err
}

func init() {
	// Loads and attaches a program that sees its own, and one that isn't allowed.
	probes["container"] = func() {
		m := countMap()
		if err := tracers["raw_tracepoint"].attach(m); err != nil {
			fail("%+v", err)
		}
		act()
		_, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
		var v *ebpf.VerifierError
		why := ""
		if errors.As(err, &v) {
			why = strings.Join(v.Log, "; ")
		}
		fmt.Printf("saw %d, XDP: %v %s\n", seen(m), errors.Is(err, unix.EPERM), why)
	}
	// Is what `exec` finds.
	probes["sleeper"] = func() {
		fmt.Println("sleeping")
		time.Sleep(time.Minute)
	}
	probes["no-bpf"] = func() {
		_, e := bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 20)
		fmt.Println(errnoName(e))
	}
}

const containerSays = "saw 10000, XDP: true bpfbroker: denied by policy observe, no rule matches"

func TestContainers(t *testing.T) {
	needRoot(t)
	s := startServe(t, "--policy", "observe")
	n := 0
	for name := range runtimes {
		t.Run(name, func(t *testing.T) {
			out, err := runContainer(t, name, s.bundle(t, nil, "container"))
			if err != nil || !strings.HasPrefix(out, containerSays) {
				t.Errorf("%v: %s\n%s", err, out, s.log.String())
			}
			n++
			s.wait(t, n, "msg=ended")

			// Another process in a container that runs.
			bundle := s.bundle(t, nil, "sleeper")
			id := filepath.Base(bundle)
			c := runtimeCommand(t, name, "run", "--bundle", bundle, id)
			stdout, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 9)
			if _, err := io.ReadFull(stdout, b); err != nil {
				t.Fatalf("%v: %q\n%s", err, b, s.log.String())
			}
			e := runtimeCommand(t, name, "exec", "--env", probeEnv+"=container", "--cap", "CAP_BPF", id, "/bin/probe")
			out, err = said(e)
			if err != nil || !strings.HasPrefix(out, containerSays) {
				t.Errorf("exec: %v: %s\n%s", err, out, s.log.String())
			}
			if out, err := said(runtimeCommand(t, name, "kill", id, "KILL")); err != nil {
				t.Errorf("kill: %v: %s", err, out)
			}
			_ = c.Wait() // it was killed
			n += 2
			s.wait(t, n, "msg=ended")
		})
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*/bundle-*")
	if err != nil || len(left) > 0 {
		t.Errorf("cgroups are left: %v, %v", left, err)
	}
	if out, err := exec.Command(broker, "ps", "-o", "json").Output(); err != nil || strings.Contains(string(out), "bundle-") {
		t.Errorf("ps: %v: %s", err, out)
	}
}

// TestContainersRefused: what can't be served has no bpf(), and nothing else is disturbed.
func TestContainersRefused(t *testing.T) {
	needRoot(t)
	s := startServe(t, "--policy", "observe")
	bundle := s.bundle(t, func(c *specs.Spec) {
		c.Linux.UIDMappings, c.Linux.GIDMappings, c.Linux.Namespaces = nil, nil, c.Linux.Namespaces[1:]
	}, "no-bpf")
	if out, err := runContainer(t, "runc", bundle); err != nil || out != "ENOSYS\n" {
		t.Errorf("without a user namespace: %v: %s", err, out)
	}
	s.wait(t, 1, "has no user namespace of its own")

	// Whatever comes to the socket.
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	rights := unix.UnixRights(int(null.Fd()))
	state := `{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":%d,"state":{"ociVersion":"1.0.2","id":"x","status":"creating","bundle":"/"}}`
	for text, want := range map[string]string{
		"":                          "EOF",
		"garbage":                   "unexpected EOF",
		`{"a":`:                     "unexpected EOF",
		`[]`:                        "isn't JSON",
		`{"fds":[]}`:                "names 0 fds, with 1",
		`{"fds":["other"]}`:         "without an fd called",
		fmt.Sprintf(state, -1):      "a state of process -1",
		fmt.Sprintf(state, 1):       "is no seccomp listener",
		strings.Repeat(" ", 2<<20):  "more than 1048576 bytes",
		`{"fds":["seccompFd","x"]}`: "names 2 fds, with 1",
	} {
		before := strings.Count(s.log.String(), "no listener is taken")
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(s.dir, "oci.sock"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if _, _, err := c.WriteMsgUnix([]byte(text)[:min(len(text), 1000)], rights, nil); err != nil {
				t.Error(err)
			}
			_, _ = c.Write([]byte(text)[min(len(text), 1000):]) // it may hang up
		}
		c.Close()
		s.wait(t, before+1, "no listener is taken")
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("%.40q: wanted %q:\n%s", text, want, s.log.String())
		}
	}
	// Many at once, which say nothing.
	var idle []net.Conn
	for range 40 {
		c, err := net.Dial("unix", filepath.Join(s.dir, "oci.sock"))
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	out, err := runContainer(t, "runc", s.bundle(t, nil, "container"))
	if err != nil || !strings.HasPrefix(out, containerSays) {
		t.Errorf("beside those: %v: %s\n%s", err, out, s.log.String())
	}
	for _, c := range idle {
		c.Close()
	}
	if out, err := exec.Command(broker, "serve", "--state-dir", s.dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "another bpfbroker serves there") {
		t.Errorf("a second one: %v: %s", err, out)
	}
}

func init() {
	// Loads and attaches many programs while signals come, and says what is left of it.
	probes["signalled"] = func() {
		count, err := strconv.Atoi(os.Args[1])
		if err != nil {
			fail("%v", err)
		}
		runtime.LockOSThread()
		var sent atomic.Int64
		done := make(chan struct{})
		go func(pid, tid int) {
			runtime.LockOSThread()
			for {
				select {
				case <-done:
					return
				default:
				}
				_ = unix.Tgkill(pid, tid, unix.SIGURG)
				sent.Add(1)
				until := time.Now().Add(100 * time.Microsecond)
				for time.Now().Before(until) {
				}
			}
		}(os.Getpid(), unix.Gettid())
		before, began := filesOpen(), time.Now()
		for i := range count {
			p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "signalled", Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
				asm.FnGetCurrentPidTgid.Call(), asm.Mov.Imm(asm.R0, int32(i)), asm.Return()}})
			if err != nil {
				fail("load %d: %+v", i, err)
			}
			l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
			if err != nil {
				fail("attach %d: %v", i, err)
			}
			if err := errors.Join(l.Close(), p.Close()); err != nil {
				fail("close %d: %v", i, err)
			}
		}
		took := time.Since(began)
		close(done)
		links := 1
		for tries := 0; links > 0 && tries < 500; tries++ { // the broker closes the last one's fd a little later
			links = 0
			for a := new(attr); ; links++ {
				if _, e := bpf(uint32(abi.LinkGetNextID), a, 12); e != 0 {
					break
				}
				copy(a[:4], a[4:8])
			}
			if links > 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		fmt.Printf("files %d, links %d, signals a second: %v\n", filesOpen()-before, links, float64(sent.Load())/took.Seconds() > 1000)
	}
}

// TestContainersSignalled: where signals interrupt calls, as runtimes' filters have it, each
// is performed once nevertheless.
func TestContainersSignalled(t *testing.T) {
	needRoot(t)
	n := count("BPFBROKER_SIGNALLED", 200)
	for _, kind := range kinds(t) {
		audit := filepath.Join(t.TempDir(), "audit")
		s := startServe(t, "--policy", "observe", "--worker", kind, "--audit", audit)
		out, err := runContainer(t, "runc", s.bundle(t, nil, "signalled", strconv.Itoa(n)))
		if err != nil || out != "files 0, links 0, signals a second: true\n" {
			t.Errorf("%s: %v: %s\n%s", kind, err, out, s.log.String())
		}
		s.wait(t, 1, "msg=ended")
		calls := recordsOf(t, audit)
		done := map[string]int{}
		for _, command := range []string{"prog_load", "raw_tracepoint_open"} {
			for _, e := range calls[command] {
				if e.Outcome == "ok" && (command != "prog_load" || e.Facts.Prog.Name == "signalled") {
					done[command]++
				}
			}
		}
		if done["prog_load"] != n || done["raw_tracepoint_open"] != n {
			t.Errorf("%s: of %d programs and links were made %v", kind, n, done)
		}
	}
}

// TestPodman: as root, with Podman's own profile as the base; crun in it, too.
func TestPodman(t *testing.T) {
	needRoot(t)
	installed(t, "podman")
	s := startServe(t, "--policy", "observe")
	profile := filepath.Join(bin, "podman-seccomp.json")
	b, err := exec.Command(broker, "profile", "--listener", filepath.Join(s.dir, "oci.sock")).Output()
	if err == nil {
		err = os.WriteFile(profile, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(s.bundle(t, nil, ""), "rootfs")
			for _, d := range []string{"etc", "run"} {
				if err := errors.Join(os.Mkdir(filepath.Join(root, d), 0o755), os.Chown(filepath.Join(root, d), 100000, 100000)); err != nil {
					t.Fatal(err)
				}
			}
			// A store of its own, below a directory with a short name: podman makes sockets there.
			store, err := os.MkdirTemp("", "podman-")
			if err != nil {
				t.Fatal(err)
			}
			parent := filepath.Base(store) // of the container's cgroup, which podman leaves
			t.Cleanup(func() {
				dir := filepath.Join(cgroupMount(t), parent)
				for range 1000 { // conmon takes a while to end
					_ = os.Remove(filepath.Join(dir, "conmon"))
					if err = os.Remove(dir); err == nil || os.IsNotExist(err) {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				t.Error(err)
			})
			args := []string{"podman", "--root", store + "/root", "--runroot", store + "/run", "--tmpdir", store + "/tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", name,
				"run", "--rm", "--cgroup-parent", "/" + parent, "--network", "none", "--pids-limit", "-1", "--uidmap", "0:100000:65536", "--cap-add", "SYS_ADMIN,BPF,PERFMON", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000",
				"--security-opt", "seccomp=" + profile, "--env", probeEnv + "=container"}
			for _, d := range []string{"usr", "lib", "lib64"} {
				args = append(args, "-v", "/"+d+":/"+d+":ro")
			}
			args = append(args, "-v", bin+":/bin:ro", "--rootfs", root, "/bin/probe")
			// crun 1.8 gives the /dev/null that conmon has opened to the container's root: another one.
			const ownNull = "mount -t tmpfs tmpfs /mnt && mknod -m 666 /mnt/null c 1 3 && mount --bind /mnt/null /dev/null && "
			c := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", unifiedCgroups + ownNull + `exec "$@"`, "sh"}, args...)...)
			c.Stdin, c.Stderr = strings.NewReader(""), &bytes.Buffer{}
			out, err := said(c)
			if err != nil || !strings.Contains(out, containerSays) {
				t.Errorf("%v: %s\n%s", err, out, s.log.String())
			}
			s.wait(t, n+1, "msg=ended")
			if err := os.RemoveAll(store); err != nil {
				t.Error(err)
			}
		})
	}
}
