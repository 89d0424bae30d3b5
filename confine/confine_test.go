package confine

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/filter"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
)

const tgid = 4242

// commands are some of bpf().
var commands = []uint32{0, 5, 6, 7, 15, 18, 28, 36}

var arches = []string{"amd64", "arm64"}

func program(tb testing.TB, arch string) []filter.Instruction {
	tb.Helper()
	p, err := Program(arch, Params{TGID: tgid, Commands: commands})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

const (
	allow  = 0x7fff0000
	eperm  = 0x00050001
	enosys = 0x00050026
	kill   = 0x80000000
)

func answerName(a uint32) string {
	switch a {
	case allow:
		return "ALLOW"
	case eperm:
		return "ERRNO(EPERM)"
	case enosys:
		return "ERRNO(ENOSYS)"
	case kill:
		return "KILL_PROCESS"
	}
	return fmt.Sprintf("%#x", a)
}

// numbers are the system calls of an architecture as x/sys has them, which makes its
// list from the kernel's headers: by number the name, as "OPENAT2".
var numbers = func() map[string]func() map[uint32]string {
	m := make(map[string]func() map[uint32]string)
	for _, arch := range arches {
		m[arch] = sync.OnceValue(func() map[uint32]string {
			dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
			if err != nil {
				panic(fmt.Sprintf("where is x/sys: %v", err))
			}
			file := filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go")
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				panic(err)
			}
			all := make(map[uint32]string)
			for _, d := range f.Decls {
				for _, s := range d.(*ast.GenDecl).Specs {
					v := s.(*ast.ValueSpec)
					n, err := strconv.ParseUint(v.Values[0].(*ast.BasicLit).Value, 0, 32)
					if err != nil {
						panic(err)
					}
					name := strings.TrimPrefix(v.Names[0].Name, "SYS_")
					if name == "FSTATAT" { // so x/sys calls arm64's newfstatat
						name = "NEWFSTATAT"
					}
					all[uint32(n)] = name
				}
			}
			return all
		})
	}
	return m
}()

// reference says what the program for a kernel of architecture kernel has to answer.
// It is written from the requirement and the kernel's prototypes, not from the list,
// and shares no constant with it; those of x/sys are the same on both architectures.
func reference(kernel string, d brokertest.SeccompData) uint32 {
	native := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[kernel]
	if d.Arch != native || kernel == "amd64" && d.NR >= 0x40000000 {
		return kill
	}
	if d.NR == 435 {
		return enosys
	}
	if permitted(kernel, numbers[kernel]()[d.NR], d.Args) {
		return allow
	}
	return eperm
}

func permitted(kernel, name string, args [6]uint64) bool {
	oneOf := func(n uint64, list ...uint64) bool { return slices.Contains(list, n) }
	// What an int or unsigned int is to the kernel.
	low := func(i int) uint64 { return args[i] & 0xffffffff }
	directory, settls := uint64(0o200000), uint64(0x80000)
	if kernel == "arm64" {
		directory, settls = 0o40000, 0
	}
	switch name {
	case // The Go runtime.
		"CLOCK_GETTIME", "EPOLL_PWAIT", "EXIT", "EXIT_GROUP", "GETPID", "GETRANDOM", "GETTID", "MUNMAP", "NANOSLEEP", "PREAD64",
		"READ", "RESTART_SYSCALL", "RT_SIGACTION", "RT_SIGPROCMASK", "RT_SIGRETURN", "SCHED_YIELD", "SIGALTSTACK", "WRITE", "CLOSE",
		// Ids, capabilities and the root of a thread.
		"CAPGET", "CAPSET", "CHROOT", "FCHDIR", "GETEUID", "GETGID", "GETUID", "SETFSGID", "SETFSUID", "SETGROUPS",
		// Files.
		"FSTAT", "FSTATFS", "GETDENTS64", "NEWFSTATAT", "OPENAT2", "PPOLL", "PWRITE64", "READLINKAT":
		return true
	case "BPF":
		for _, c := range commands {
			if low(0) == uint64(c) {
				return true
			}
		}
		return false
	case "CLONE": // unsigned long
		return args[0] == unix.CLONE_VM|unix.CLONE_FS|unix.CLONE_FILES|unix.CLONE_SIGHAND|unix.CLONE_SYSVSEM|unix.CLONE_THREAD|settls
	case "CLOSE_RANGE", "PIDFD_GETFD":
		return low(2) == 0
	case "DUP3":
		return low(2) == unix.O_CLOEXEC
	case "EPOLL_CTL":
		return oneOf(low(1), unix.EPOLL_CTL_ADD, unix.EPOLL_CTL_DEL)
	case "FCNTL":
		return oneOf(low(1), unix.F_GETFL, unix.F_DUPFD_CLOEXEC, unix.F_SETSIG, unix.F_GETSIG)
	case "FUTEX":
		return oneOf(low(1), 128, 129, 1)
	case "IOCTL":
		return oneOf(low(1),
			unix.SECCOMP_IOCTL_NOTIF_RECV, unix.SECCOMP_IOCTL_NOTIF_SEND, unix.SECCOMP_IOCTL_NOTIF_ID_VALID,
			unix.SECCOMP_IOCTL_NOTIF_ADDFD, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS,
			0xc040ff0b, unix.PIDFD_GET_CGROUP_NAMESPACE, unix.PIDFD_GET_NET_NAMESPACE, unix.PIDFD_GET_PID_NAMESPACE,
			unix.NS_GET_USERNS, unix.NS_GET_PARENT, unix.SIOCGIFNAME,
			0x8004b706, 0x8004b708, 0xc0686611, unix.PERF_EVENT_IOC_ID, unix.PERF_EVENT_IOC_SET_BPF)
	case "KCMP":
		return low(2) == 2
	case "LSEEK":
		return low(2) == 0
	case "MADVISE":
		return oneOf(low(2), unix.MADV_DONTNEED, unix.MADV_FREE, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE, unix.MADV_COLLAPSE)
	case "MMAP": // unsigned long
		const may = unix.MAP_ANONYMOUS | unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_NORESERVE | unix.MAP_DROPPABLE
		return args[2]&^uint64(unix.PROT_READ|unix.PROT_WRITE) == 0 && args[3]&^uint64(may) == 0 && args[3]&unix.MAP_ANONYMOUS != 0
	case "MPROTECT": // unsigned long
		return args[2] == 0
	case "OPENAT":
		return low(2)&^(unix.O_CLOEXEC|unix.O_PATH|directory) == 0 || low(2) == unix.O_WRONLY|unix.O_CLOEXEC
	case "PIDFD_OPEN":
		return oneOf(low(1), 0, 0o200)
	case "PRCTL": // int, unsigned long
		return low(0) == unix.PR_SET_VMA && args[1] == unix.PR_SET_VMA_ANON_NAME
	case "PROCESS_VM_READV": // unsigned long
		return args[5] == 0
	case "RECVMSG":
		return low(2) == unix.MSG_CMSG_CLOEXEC
	case "SCHED_GETAFFINITY":
		return low(0) == 0
	case "SECCOMP":
		return low(0) == unix.SECCOMP_GET_NOTIF_SIZES
	case "SENDMSG":
		return low(2) == unix.MSG_NOSIGNAL
	case "SETNS":
		return oneOf(low(1), unix.CLONE_NEWNET, unix.CLONE_NEWCGROUP)
	case "SETRESUID":
		return low(2) == 0xffffffff
	case "SOCKET":
		return low(0) == unix.AF_UNIX && low(1) == unix.SOCK_STREAM|unix.SOCK_CLOEXEC && low(2) == 0
	case "STATX":
		return low(2) == unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC
	case "TGKILL":
		return low(0) == tgid
	case "TIMERFD_SETTIME":
		return low(1) == 0
	case "UNSHARE": // unsigned long
		return args[0] == unix.CLONE_FILES|unix.CLONE_FS
	}
	return false
}

// checker compares the programs with the reference.
type checker struct {
	kernel string
	p      []filter.Instruction
	v      brokertest.SeccompVM
}

func newChecker(tb testing.TB, kernel string) checker {
	p := program(tb, kernel)
	return checker{kernel, p, brokertest.NewSeccompVM(tb, p)}
}

func (c checker) check(t *testing.T, d brokertest.SeccompData) (answer uint32) {
	t.Helper()
	want := reference(c.kernel, d)
	got := c.v.Run(t, d)
	if emulated, _, _ := brokertest.EmulateSeccomp(c.p, d); got != want || emulated != want {
		t.Fatalf("%s: arch %#x nr %#x (%s) args %#x: got %s, emulated %s, wanted %s", c.kernel, d.Arch, d.NR, numbers[c.kernel]()[d.NR], d.Args,
			answerName(got), answerName(emulated), answerName(want))
	}
	return want
}

// TestProgram tries all numbers, by all architectures and with high bits.
func TestProgram(t *testing.T) {
	patterns := [][6]uint64{
		{}, {1, 2, 3, 4, 5, 6}, {1 << 32, 1 << 32, 1 << 32, 1 << 32, 1 << 32, 1 << 32},
		{1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1},
	}
	for _, kernel := range arches {
		t.Run(kernel, func(t *testing.T) {
			c := newChecker(t, kernel)
			seen := make(map[uint32]int)
			for _, arch := range brokertest.AuditArches {
				for nr := range uint32(1024) {
					for _, bits := range []uint32{0, 1 << 30, 1 << 31, 1 << 16, 3 << 30} {
						for _, args := range patterns {
							seen[c.check(t, brokertest.SeccompData{NR: nr | bits, Arch: arch, IP: 0xdeadbeef_00000141, Args: args})]++
						}
					}
				}
				for _, nr := range []uint32{0x3fffffff, 0x40000000, 0x7fffffff, 0xffffffff} {
					c.check(t, brokertest.SeccompData{NR: nr, Arch: arch})
				}
			}
			if len(seen) != 4 {
				t.Errorf("got answers %v, wanted four kinds", seen)
			}
		})
	}
}

// around are values in which a rule on one of these sees a difference: themselves,
// with any bit turned, and their neighbours.
func around(values []Value) []uint64 {
	set := map[uint64]bool{0: true, 1<<32 - 1: true, 1<<64 - 1: true}
	for _, v := range values {
		all := []uint64{v.Want, v.Want | ^v.Mask, v.Want + 1, v.Want - 1}
		for bit := range 64 {
			all = append(all, v.Want^1<<bit, (v.Want|^v.Mask)^1<<bit)
		}
		for _, n := range all {
			set[n], set[n&0xffffffff], set[n|0xffffffff<<32] = true, true, true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// TestRules: each call is allowed with each of its good arguments, and refused right
// beside them.
func TestRules(t *testing.T) {
	for _, kernel := range arches {
		c := newChecker(t, kernel)
		m := machines[kernel]
		for i := range entries {
			e := &entries[i]
			call := brokertest.SeccompData{NR: m.number(e), Arch: m.audit}
			var tried [][]uint64 // by rule
			var good []uint64
			for j := range e.Rules {
				v := e.Rules[j].values(kernel, Params{TGID: tgid, Commands: commands})
				tried = append(tried, around(v))
				good = append(good, v[0].Want)
			}
			for j := range e.Rules {
				call.Args[e.Rules[j].Arg] = good[j]
			}
			if got := c.check(t, call); got != allow {
				t.Errorf("%s: %s(%#x): got %s", kernel, e.Name, call.Args, answerName(got))
			}
			// The other arguments may be anything.
			free := call
			for n := range free.Args {
				if !slices.ContainsFunc(e.Rules, func(r Rule) bool { return r.Arg == n }) {
					free.Args[n] = 1<<64 - 1
				}
			}
			if got := c.check(t, free); got != allow {
				t.Errorf("%s: %s(%#x): got %s", kernel, e.Name, free.Args, answerName(got))
			}
			for j := range e.Rules {
				r := &e.Rules[j]
				answers := make(map[uint32]int)
				for _, n := range tried[j] {
					d := call
					d.Args[r.Arg] = n
					answers[c.check(t, d)]++
				}
				for _, v := range r.values(kernel, Params{TGID: tgid, Commands: commands}) {
					d := call
					d.Args[r.Arg] = v.Want
					if got := c.check(t, d); got != allow {
						t.Errorf("%s: %s: %s %s %#x: got %s", kernel, e.Name, r.Name, v.Name, v.Want, answerName(got))
					}
					d.Args[r.Arg] |= 1 << 63
					want := uint32(allow)
					if r.Wide() {
						want = eperm
					}
					if got := c.check(t, d); got != want {
						t.Errorf("%s: %s: %s %#x with a high bit: got %s, wanted %s", kernel, e.Name, r.Name, v.Want, answerName(got), answerName(want))
					}
				}
				if answers[allow] == 0 || answers[eperm] == 0 {
					t.Errorf("%s: %s: %s: got answers %v, wanted both kinds", kernel, e.Name, r.Name, answers)
				}
			}
			if len(e.Rules) == 2 { // all of one rule's with all of the other's
				for _, a := range tried[0] {
					for _, b := range tried[1] {
						d := call
						d.Args[e.Rules[0].Arg], d.Args[e.Rules[1].Arg] = a, b
						c.check(t, d)
					}
				}
			}
		}
	}
}

// TestEntries holds the list to its form.
func TestEntries(t *testing.T) {
	types := []string{"int", "unsigned int", "pid_t", "uid_t", "unsigned long"}
	all := Entries()
	if !slices.IsSortedFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the list isn't sorted by name")
	}
	seen := make(map[string]bool)
	for i := range all {
		e := &all[i]
		if seen[e.Name] {
			t.Errorf("%s is there twice", e.Name)
		}
		seen[e.Name] = true
		for kernel, nr := range map[string]uint32{"amd64": e.AMD64, "arm64": e.ARM64} {
			if got := numbers[kernel]()[nr]; got != strings.ToUpper(e.Name) {
				t.Errorf("%s: %s has number %d, which is %s in x/sys", kernel, e.Name, nr, got)
			}
		}
		if len(e.Who) == 0 || e.Why == "" {
			t.Errorf("%s: who %q, why %q: each entry says both", e.Name, e.Who, e.Why)
		}
		last := -1
		for j := range e.Rules {
			r := &e.Rules[j]
			if r.Arg <= last || r.Arg > 5 || r.Name == "" || !slices.Contains(types, r.Type) {
				t.Errorf("%s: a rule on argument %d, %q of type %q", e.Name, r.Arg, r.Name, r.Type)
			}
			last = r.Arg
			if (r.Any == nil) == (r.From == FromTable) || r.ARM64 != nil && len(r.ARM64) != len(r.Any) {
				t.Errorf("%s: %s: values %v, on arm64 %v, from %v", e.Name, r.Name, r.Any, r.ARM64, r.From)
			}
			for k, v := range slices.Concat(r.Any, r.ARM64) {
				if v.Name == "" || v.Want&^v.Mask != 0 || !r.Wide() && v.Want > 1<<32-1 {
					t.Errorf("%s: %s: value %+v", e.Name, r.Name, v)
				}
				if k >= len(r.Any) && r.Any[k-len(r.Any)].Name != v.Name {
					t.Errorf("%s: %s: %q is %q on arm64", e.Name, r.Name, r.Any[k-len(r.Any)].Name, v.Name)
				}
			}
		}
	}
	all[0] = Entry{}
	if entries[0].Name == "" {
		t.Error("Entries gives the list itself")
	}
}

// TestNeverListed: these don't become entries by mistake.
func TestNeverListed(t *testing.T) {
	for name := range strings.FieldsSeq(`
		accept accept4 acct add_key adjtimex bind brk chdir chmod chown clock_adjtime clock_settime clone3 connect creat
		delete_module execve execveat fanotify_init fanotify_mark fchmod fchmodat fchmodat2 fchown fchownat finit_module
		fork fsconfig fsmount fsopen fspick ftruncate getsockopt init_module inotify_init1 io_setup io_submit
		io_uring_enter io_uring_register io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl kill
		landlock_create_ruleset landlock_restrict_self link linkat listen listmount memfd_create memfd_secret
		migrate_pages mkdir mkdirat mknod mknodat modify_ldt mount mount_setattr move_mount mremap name_to_handle_at open
		open_by_handle_at open_tree open_tree_attr perf_event_open personality pidfd_send_signal pipe2 pivot_root
		pkey_mprotect prlimit64 process_madvise process_vm_writev ptrace pwritev quotactl reboot remap_file_pages rename
		renameat renameat2 request_key rmdir rt_sigqueueinfo rt_tgsigqueueinfo sched_setattr sched_setscheduler sendto
		sethostname setgid setpgid setpriority setregid setresgid setreuid setrlimit setsid setsockopt settimeofday
		setuid shmat socketpair splice statmount swapoff swapon symlink symlinkat syslog timer_create tkill
		truncate umount2 unlink unlinkat uselib userfaultfd vfork vmsplice`) {
		found := false
		for _, kernel := range arches {
			p := program(t, kernel)
			for nr, n := range numbers[kernel]() {
				if n != strings.ToUpper(name) {
					continue
				}
				found = true
				for _, args := range [][6]uint64{{}, {1, 1, 1, 1, 1, 1}} {
					if got, _, _ := brokertest.EmulateSeccomp(p, brokertest.SeccompData{NR: nr, Arch: machines[kernel].audit, Args: args}); got == allow {
						t.Errorf("%s: %s is allowed", kernel, name)
					}
				}
			}
		}
		if !found {
			t.Errorf("%s: x/sys knows no such call", name)
		}
		if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == name }) {
			t.Errorf("%s is listed", name)
		}
	}
}

// TestWho: a function that an entry is for is there.
func TestWho(t *testing.T) {
	declared := func(dir string) map[string]bool {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no source in %s (%v)", dir, err)
		}
		names := make(map[string]bool)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				name := fn.Name.Name
				if fn.Recv != nil {
					switch r := fn.Recv.List[0].Type.(type) {
					case *ast.StarExpr:
						name = fmt.Sprint(r.X) + "." + name
					default:
						name = fmt.Sprint(r) + "." + name
					}
				}
				names[name] = true
			}
		}
		return names
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	packages := map[string]map[string]bool{
		"sys":         declared("../internal/sys"),
		"runtime":     declared(filepath.Join(src, "runtime")),
		"os":          declared(filepath.Join(src, "os")),
		"crypto/rand": declared(filepath.Join(src, "crypto/rand")),
	}
	for i := range entries {
		for _, who := range entries[i].Who {
			if who == "the kernel" {
				continue
			}
			pkg, name, _ := strings.Cut(who, ".")
			if names, ok := packages[pkg]; !ok || !names[name] {
				t.Errorf("%s: needed by %s, which isn't there: who needs the call now, or does nobody?", entries[i].Name, who)
			}
		}
	}
}

// reviewed is the release of Go for which the runtime's entries were made.
const reviewed = "go1.26"

func TestReviewed(t *testing.T) {
	if v := runtime.Version(); v != reviewed && !strings.HasPrefix(v, reviewed+".") {
		t.Errorf("this is %s: see at entries in entries.go what to look at again; then change reviewed", v)
	}
}

// TestCached: what has no rule, the kernel answers without running the program.
func TestCached(t *testing.T) {
	for _, kernel := range arches {
		p := program(t, kernel)
		m := machines[kernel]
		for i := range entries {
			e := &entries[i]
			answer, _, constant := brokertest.EmulateSeccomp(p, brokertest.SeccompData{NR: m.number(e), Arch: m.audit})
			if cached, want := constant && answer == allow, len(e.Rules) == 0; cached != want {
				t.Errorf("%s: %s: cached as allowed: got %t, wanted %t", kernel, e.Name, cached, want)
			}
		}
	}
}

// TestSteps bounds the number of instructions executed for the calls with rules that
// are on the way of each operation.
func TestSteps(t *testing.T) {
	for _, kernel := range arches {
		p := program(t, kernel)
		if n := len(p); n > 512 {
			t.Errorf("%s: the program has %d instructions", kernel, n)
		}
		m := machines[kernel]
		for _, c := range []struct {
			name string
			args [6]uint64
			most int
		}{
			{"ioctl", [6]uint64{3, unix.SECCOMP_IOCTL_NOTIF_RECV}, 14},
			{"ioctl", [6]uint64{3, unix.SECCOMP_IOCTL_NOTIF_SEND}, 16},
			{"bpf", [6]uint64{uint64(commands[0])}, 14},
			{"futex", [6]uint64{0, 128}, 14},
			{"process_vm_readv", [6]uint64{}, 15},
			{"openat", [6]uint64{0, 0, unix.O_CLOEXEC}, 15},
		} {
			i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == c.name })
			if answer, got, _ := brokertest.EmulateSeccomp(p, brokertest.SeccompData{NR: m.number(&entries[i]), Arch: m.audit, Args: c.args}); got > c.most || answer != allow {
				t.Errorf("%s: %s: got %s after %d instructions, wanted at most %d", kernel, c.name, answerName(answer), got, c.most)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	many := make([]uint32, 300)
	for i := range many {
		many[i] = uint32(i)
	}
	for _, c := range []struct {
		name, arch string
		p          Params
		want       string
	}{
		{"unknown architecture", "riscv64", Params{1, commands}, `architecture "riscv64"`},
		{"no architecture", "", Params{1, commands}, `architecture ""`},
		{"no process id", "amd64", Params{0, commands}, "process id 0"},
		{"negative process id", "amd64", Params{-1, commands}, "process id -1"},
		{"process id with high bits", "amd64", Params{1<<32 + 1, commands}, "process id 4294967297"},
		{"no commands", "amd64", Params{1, nil}, "no bpf() command"},
		{"flag in a command", "amd64", Params{1, []uint32{1, 1<<16 | 1}}, "command 0x10001"},
		{"too many commands", "arm64", Params{1, many}, "bpf: cmd: 300 values are too many"},
	} {
		p, err := Program(c.arch, c.p)
		if err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %d instructions, error %v; wanted none and an error with %q", c.name, len(p), err, c.want)
		}
	}
	// As many as the kernel may come to have.
	for _, arch := range arches {
		if _, err := Program(arch, Params{1, many[:200]}); err != nil {
			t.Error(err)
		}
	}
}

// TestSearch: a piece that is longer than a conditional jump reaches is jumped over.
func TestSearch(t *testing.T) {
	for _, length := range []int{1, 254, 255, 256, 257, 600} {
		var runs []run
		for i := range uint32(5) {
			answer := make(code, 0, length)
			for range length - 1 {
				answer = append(answer, load(offArch))
			}
			runs = append(runs, run{10 * i, append(answer, ret(0x50000|i)...)})
		}
		v := brokertest.NewSeccompVM(t, append(code{load(offNr)}, search(runs)...))
		for nr := range uint32(60) {
			if got, want := v.Run(t, brokertest.SeccompData{NR: nr}), 0x50000|min(nr/10, 4); got != want {
				t.Errorf("pieces of %d: %d: got %#x, wanted %#x", length, nr, got, want)
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	var s strings.Builder
	if err := Markdown(&s); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(s.String(), "\n"), "\n")
	if len(lines) != len(entries)+2 {
		t.Errorf("got %d lines for %d entries", len(lines), len(entries))
	}
	bar := regexp.MustCompile(`(^|[^\\])\|`)
	for i, l := range lines {
		if n := len(bar.FindAllString(l, -1)); n != 5 {
			t.Errorf("%d cells in %q", n-1, l)
		}
		if i >= 2 && !strings.HasPrefix(l, "| `"+entries[i-2].Name+"` | ") {
			t.Errorf("%s: got %q", entries[i-2].Name, l)
		}
	}
	for _, want := range []string{
		"| int flags: CLONE_NEWNET or CLONE_NEWCGROUP | sys.SetNS |",
		"| pid_t tgid: the worker's own | runtime.signalM, runtime.raise |",
		`unsigned long prot: no flag but PROT_READ\|PROT_WRITE; unsigned long flags: MAP_ANONYMOUS and no other but`,
	} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("no %q in\n%s", want, &s)
		}
	}
}

// FuzzProgram compares the programs with the reference on any seccomp_data.
func FuzzProgram(f *testing.F) {
	var checkers []checker
	for _, kernel := range arches {
		c := newChecker(f, kernel)
		checkers = append(checkers, c)
		for i := range entries {
			e := &entries[i]
			d := brokertest.SeccompData{NR: machines[kernel].number(e), Arch: machines[kernel].audit}
			for j := range e.Rules {
				if v := e.Rules[j].values(kernel, Params{TGID: tgid, Commands: commands}); len(v) > 0 {
					d.Args[e.Rules[j].Arg] = v[len(v)-1].Want
				}
			}
			f.Add(d.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := brokertest.SeccompDataOf(b)
		for _, c := range checkers {
			c.check(t, d)
		}
	})
}
