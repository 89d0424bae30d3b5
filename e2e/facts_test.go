package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/digest/object"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Every fact of the table, as the log of a real operation has it, is what the kernel says,
// or what the one who did it knows.

// truth is what a fact of the nth call of a command is. In a value, CGROUP is the path of
// the workload's cgroup.
type truth struct {
	Command     string
	N           int
	Fact, Value string
}

const notKnown = "unknown"

// factual makes calls and knows what they are.
type factual struct {
	*script
	n      map[string]int
	truths []truth
	more   int // by how much map.bytes estimates what is held to be more than it is
}

// knows notes what is true of the last call of a command: facts and their values.
func (s *factual) knows(command string, of ...any) {
	for i := 0; i < len(of); i += 2 {
		s.truths = append(s.truths, truth{command, s.n[command], of[i].(string), fmt.Sprint(of[i+1])})
	}
}

func (s *factual) does(c abi.Command, fields f) int {
	row := abi.RowOf(c)
	s.n[row.Name]++
	return s.do(row.Name, c, fields)
}

// made is does, of a call that must succeed.
func (s *factual) made(c abi.Command, fields f) int {
	return s.must(s.does(c, fields), abi.RowOf(c).Name)
}

func (s *factual) prog(typ string, insns []byte, more f) f {
	fields := f{"prog_type": progType(typ), "insns": insns, "insn_cnt": len(insns) / 8, "license": "GPL", "prog_name": "p_" + typ[:3]}
	for k, v := range more {
		fields[k] = v
	}
	return fields
}

// infoOf is what the kernel says of an object.
func (s *factual) infoOf(kind abi.Object, fd int) (*abi.Layout, []byte) {
	l := abi.InfoLayout(kind)
	info := make([]byte, l.Size)
	s.does(abi.ObjGetInfoByFD, f{"bpf_fd": fd, "info_len": len(info), "info": info})
	return l, info
}

func (s *factual) number(kind abi.Object, fd int) int {
	l, info := s.infoOf(kind, fd)
	return int(l.Field("id").Uint(info))
}

func (s *factual) event(fields f, pid, cpu int) int {
	at := make([]byte, 200)
	s.put(&abi.PerfEventOpen.Layout, at, f{"size": 112})
	s.put(&abi.PerfEventOpen.Layout, at, fields)
	s.n["perf_event_open"]++
	fd, e := sys.PerfEventOpen(at, pid, cpu, -1, 8)
	runtime.KeepAlive(s.keep)
	if e != 0 {
		s.note("perf_event_open: %v", e)
		return -1
	}
	return fd
}

// memlock is what the kernel says that a map takes.
func memlock(fd int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "memlock:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	panic("no memlock")
}

func (s *factual) ofMaps() (mine int) {
	fields := f{"map_type": mapType("array"), "key_size": 4, "value_size": 24, "max_entries": 1000, "map_flags": 1 << 10, "map_name": "facts"} // BPF_F_MMAPABLE
	mine = s.made(abi.MapCreate, fields)
	l, info := s.infoOf(abi.Map, mine)
	kernel := func(name string) int { return int(l.Field(name).Uint(info)) }
	s.knows("map_create", "map.type", l.Field("type").Values.Name(uint64(kernel("type"))), "map.key_size", kernel("key_size"),
		"map.value_size", kernel("value_size"), "map.max_entries", kernel("max_entries"), "map.flags", "[BPF_F_MMAPABLE]",
		"map.name", "facts", "map.bytes", memlock(mine), "token", false, "command", "map_create")
	fields["map_flags"] = 1 << 16 // BPF_F_TOKEN_FD
	s.does(abi.MapCreate, fields)
	s.knows("map_create", "token", true)

	// Who it was.
	comm, err := os.ReadFile("/proc/thread-self/comm")
	exe, err2 := os.Readlink("/proc/self/exe")
	if err != nil || err2 != nil {
		panic("no /proc")
	}
	s.knows("map_create", "workload.pid", os.Getpid(), "workload.thread", unix.Gettid(), "workload.comm", strings.TrimSpace(string(comm)),
		"workload.exe", exe, "workload.argv", os.Args)
	return mine
}

func (s *factual) ofPrograms(mine, theirs int) {
	id, other := s.number(abi.Map, mine), 0
	if l, info := s.infoOf(abi.Map, theirs); info != nil {
		other = int(l.Field("id").Uint(info))
	}
	const lookup = 1
	cast := s.kernelType("bpf_rdonly_cast", (*btf.Func)(nil))
	task := s.kernelType("task_struct", (*btf.Struct)(nil))
	insns := prog(
		stackBuf, insn(0xbf, 2, 1, 0, 0), ldMap(1, int32(mine), 0), callInsn(0, 0, lookup),
		callInsn(1, 0, 2), movR0(1), exit,
		// A subprogram.
		insn(0xb7, 1, 0, 0, 0), insn(0xb7, 2, 0, 0, int32(task)), callInsn(2, 0, int32(cast)), movR0(0), exit)
	p := s.made(abi.ProgLoad, s.prog("cgroup_skb", insns, f{"expected_attach_type": attachType("cgroup_inet_egress")}))
	l, info := s.infoOf(abi.Prog, p)
	s.knows("prog_load", "prog.type", l.Field("type").Values.Name(l.Field("type").Uint(info)), "prog.attach_type", "cgroup_inet_egress",
		"prog.name", "p_cgr", "prog.license", "GPL", "prog.insns", len(insns)/8, "prog.flags", "[]", "prog.sleepable", false, "prog.signed", false,
		"prog.helpers", "[bpf_map_lookup_elem]", "prog.kfuncs", "[bpf_rdonly_cast]", "prog.map_types", "[array]",
		"prog.map_ids", []int{id}, "prog.foreign_map_ids", "[]", "token", false)

	stacks := s.made(abi.MapCreate, f{"map_type": mapType("stack_trace"), "key_size": 4, "value_size": 8, "max_entries": 1})
	s.more += 1024 + 8 + 16 + 8 - memlock(stacks) // as package inspect estimates it (mapBytes)
	for _, flags := range []int32{0, 1 << 8} {    // BPF_F_USER_STACK
		const stackid = 27
		s.made(abi.ProgLoad, s.prog("kprobe", prog(insn(0x18, 2, 1, 0, int32(stacks)), insn(0, 0, 0, 0, 0), insn(0xb7, 3, 0, 0, flags), callInsn(0, 0, stackid), movR0(0), exit), nil))
		s.knows("prog_load", "prog.kernel_stacks", flags == 0, "prog.helpers", "[bpf_get_stackid]")
	}

	plain := s.made(abi.ProgLoad, s.prog("socket_filter", ret1, nil))
	sum := sha256.Sum256(slices.Concat([]byte("bpfbroker program digest 1\n"), words(uint32(len(ret1)/8)), ret1, words(0))) // see package digest
	s.knows("prog_load", "prog.type", "socket_filter", "prog.digest", hex.EncodeToString(sum[:]), "prog.helpers", "[]", "prog.map_ids", "[]", "prog.target_kind", "")

	both := prog(ldMap(1, int32(mine), 0), ldMap(1, int32(theirs), 0), movR0(0), exit)
	s.does(abi.ProgLoad, s.prog("socket_filter", both, nil))
	s.knows("prog_load", "prog.map_ids", fmt.Sprint([]int{min(id, other), max(id, other)}), "prog.foreign_map_ids", []int{other})

	typedef := s.kernelType("btf_trace_sys_enter", (*btf.Typedef)(nil))
	s.does(abi.ProgLoad, s.prog("tracing", ret0, f{"expected_attach_type": attachType("trace_raw_tp"), "attach_btf_id": typedef}))
	s.knows("prog_load", "prog.target_kind", "kernel", "prog.target_module", "", "prog.target", "sys_enter", "prog.target_prog", 0)
	// That program has no types: what its function is called isn't known.
	s.does(abi.ProgLoad, s.prog("ext", ret0, f{"attach_prog_fd": plain, "attach_btf_id": 1}))
	s.knows("prog_load", "prog.type", "ext", "prog.target_kind", "program", "prog.target_prog", s.number(abi.Prog, plain), "prog.target", notKnown)

	s.does(abi.ProgLoad, s.prog("syscall", ret0, f{"prog_flags": 16, "signature": []byte("nonsense"), "signature_size": 8}))
	s.knows("prog_load", "prog.flags", "[BPF_F_SLEEPABLE]", "prog.sleepable", true, "prog.signed", true)
}

func (s *factual) ofAttaching(theirProg, theirSocks int) {
	// At a cgroup below the own.
	dir := s.cgroup()
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir))
	if err != nil {
		panic(err)
	}
	p := s.made(abi.ProgLoad, s.prog("cgroup_device", ret1, nil))
	s.made(abi.ProgAttach, f{"target_fd": dir, "attach_bpf_fd": p, "attach_type": attachType("cgroup_device"), "attach_flags": 2})
	id := s.number(abi.Prog, p)
	s.knows("prog_attach", "attach.type", "cgroup_device", "attach.flags", "[BPF_F_ALLOW_MULTI]", "attach.prog_id", id,
		"attach.prog_type", "cgroup_device", "attach.prog_own", true, "attach.cgroup", "CGROUP/"+filepath.Base(path), "attach.cgroup_inside", true)
	s.does(abi.ProgQuery, f{"target_fd": dir, "attach_type": attachType("cgroup_device")})
	s.knows("prog_query", "attach.type", "cgroup_device", "attach.cgroup", "CGROUP/"+filepath.Base(path), "attach.cgroup_inside", true)
	// In the place of its own, and of another's, which the kernel then doesn't find there.
	other := s.made(abi.ProgLoad, s.prog("cgroup_device", ret1, nil))
	instead := func(prog, of int) f {
		return f{"target_fd": dir, "attach_bpf_fd": prog, "attach_type": attachType("cgroup_device"), "attach_flags": 6, "replace_bpf_fd": of}
	}
	s.made(abi.ProgAttach, instead(other, p))
	s.knows("prog_attach", "attach.flags", "[BPF_F_ALLOW_MULTI BPF_F_REPLACE]", "attach.prog_own", true)
	s.made(abi.ProgAttach, instead(p, other))
	s.does(abi.ProgAttach, instead(other, theirProg))
	s.knows("prog_attach", "attach.prog_own", false, "attach.cgroup_inside", true)
	s.made(abi.ProgDetach, f{"target_fd": dir, "attach_bpf_fd": p, "attach_type": attachType("cgroup_device")})
	s.knows("prog_detach", "attach.prog_id", id, "attach.prog_own", true, "attach.cgroup_inside", true)

	// At sockmaps.
	socks := s.made(abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})
	s.more += 1024 + 8 - memlock(socks) // likewise
	sk := s.made(abi.ProgLoad, s.prog("sk_skb", ret1, nil))
	for _, m := range []int{socks, theirSocks} {
		s.made(abi.ProgAttach, f{"target_fd": m, "attach_bpf_fd": sk, "attach_type": attachType("sk_skb_stream_verdict")})
		s.knows("prog_attach", "attach.map_own", m == socks, "attach.prog_own", true)
	}

	// At an interface.
	tc := s.made(abi.ProgLoad, s.prog("sched_cls", ret0, nil))
	s.made(abi.LinkCreate, f{"prog_fd": tc, "target_ifindex": 1, "attach_type": attachType("tcx_ingress")})
	s.knows("link_create", "attach.type", "tcx_ingress", "attach.ifindex", 1, "attach.ifname", "lo", "attach.netns_own", true, "attach.cgroup_inside", false)
	nf := s.made(abi.ProgLoad, s.prog("netfilter", ret1, f{"expected_attach_type": attachType("netfilter")}))
	s.made(abi.LinkCreate, f{"prog_fd": nf, "attach_type": attachType("netfilter"), "netfilter.pf": 10, "netfilter.hooknum": 2, "netfilter.priority": uint64(0xffffff00)})
	s.knows("link_create", "attach.protocol", "ipv6", "attach.hook", "forward", "attach.priority", -256)

	raw := s.made(abi.ProgLoad, s.prog("raw_tracepoint", ret0, nil))
	s.made(abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": raw})
	s.knows("raw_tracepoint_open", "attach.tracepoint", "sys_enter", "attach.prog_type", "raw_tracepoint")

	k := s.made(abi.ProgLoad, s.prog("kprobe", ret0, f{"expected_attach_type": attachType("trace_kprobe_multi")}))
	s.does(abi.LinkCreate, f{"prog_fd": k, "attach_type": attachType("trace_kprobe_multi"), "kprobe_multi.cnt": 2, "kprobe_multi.syms": s.pointers("vfs_read", "vfs_write")})
	s.knows("link_create", "attach.functions", "[vfs_read vfs_write]")
	u := s.made(abi.ProgLoad, s.prog("kprobe", ret0, f{"expected_attach_type": attachType("trace_uprobe_multi")}))
	offsets := make([]byte, 16)
	abi.Put(offsets, 0, 8, 0x1240)
	abi.Put(offsets, 8, 8, 0x1248)
	// The file has another name than the one that is given.
	file, err := filepath.EvalSymlinks("/bin/true")
	if err != nil {
		panic(err)
	}
	uprobe := func(pid int) {
		s.does(abi.LinkCreate, f{"prog_fd": u, "attach_type": attachType("trace_uprobe_multi"), "uprobe_multi.path": "/bin/../bin/true",
			"uprobe_multi.offsets": offsets, "uprobe_multi.cnt": 2, "uprobe_multi.pid": pid})
	}
	uprobe(os.Getpid())
	s.knows("link_create", "attach.file", file, "attach.file_shared", true, "attach.offsets", []int{0x1240, 0x1248}, "attach.pid", os.Getpid(), "attach.pid_own", true)
	uprobe(os.Getppid()) // run's: the host's
	s.knows("link_create", "attach.pid", os.Getppid(), "attach.pid_own", s.owned(os.Getppid()))
	uprobe(0)
	s.knows("link_create", "attach.pid", 0, "attach.pid_own", false)
}

// owned says whether a process is in the own user namespace.
func (s *factual) owned(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	ours, _ := os.Readlink("/proc/self/ns/user")
	return err == nil && theirs == ours
}

func (s *factual) ofEvents(tracepoint, host int) {
	const software, tp = 1, 2
	s.event(f{"type": software, "config": 9, "sample_type": 1<<1 | 1<<13, "sample_stack_user": 8}, host, -1)
	s.knows("perf_event_open", "perf_event.type", "software", "perf_event.config", 9, "perf_event.pid", host, "perf_event.pid_own", false,
		"perf_event.cpu", -1, "perf_event.sample", "[PERF_SAMPLE_TID PERF_SAMPLE_STACK_USER]", "perf_event.tracepoint", "")
	for _, bits := range []int{0, 1 << 5, 1 << 21} { // exclude_kernel, exclude_callchain_kernel
		s.event(f{"type": software, "sample_type": 1 << 5, "bits": bits}, os.Getpid(), -1)
		s.knows("perf_event_open", "perf_event.kernel_stacks", bits == 0, "perf_event.sample", "[PERF_SAMPLE_CALLCHAIN]")
	}
	s.event(f{"type": software}, os.Getpid(), 0)
	s.knows("perf_event_open", "perf_event.pid", os.Getpid(), "perf_event.pid_own", true, "perf_event.cpu", 0, "perf_event.sample", "[]")
	event := s.must(s.event(f{"type": tp, "config": tracepoint}, -1, 0), "event")
	s.knows("perf_event_open", "perf_event.type", "tracepoint", "perf_event.tracepoint", "sched:sched_switch", "perf_event.config", tracepoint, "perf_event.pid", -1)
	p := s.made(abi.ProgLoad, s.prog("tracepoint", ret0, nil))
	s.n["perf_event_set_bpf"]++
	s.setBPF("set", event, p)
	s.knows("perf_event_set_bpf", "attach.prog_id", s.number(abi.Prog, p), "attach.prog_type", "tracepoint", "attach.prog_own", true)

	typ, _ := sys.EventType("uprobe")
	file, err := filepath.EvalSymlinks("/bin/true")
	if err != nil {
		panic(err)
	}
	s.event(f{"type": int(typ), "uprobe_path": "/bin//true", "config2": 0x1240}, -1, 0)
	s.knows("perf_event_open", "perf_event.type", "uprobe", "perf_event.file", file, "perf_event.file_shared", true, "perf_event.offset", 0x1240)
	s.truths = append(s.truths, truth{Fact: "perf_event.function"})
	if typ, ok := sys.EventType("kprobe"); ok {
		s.event(f{"type": int(typ), "kprobe_func": "vfs_read", "config2": 8}, -1, 0)
		s.knows("perf_event_open", "perf_event.type", "kprobe", "perf_event.function", "vfs_read", "perf_event.offset", 8)
	}
}

func (s *factual) ofObjects(mine, theirs, shared int) {
	id := s.number(abi.Map, mine)
	s.knows("obj_get_info_by_fd", "object.kind", "map", "object.id", id, "object.own", true, "object.shared", false)
	s.infoOf(abi.Map, theirs)
	s.knows("obj_get_info_by_fd", "object.kind", "map", "object.own", false, "object.shared", false)
	s.infoOf(abi.Prog, shared)
	s.knows("obj_get_info_by_fd", "object.kind", "prog", "object.own", false, "object.shared", true)
	s.does(abi.MapGetFDByID, f{"map_id": id})
	s.knows("map_get_fd_by_id", "object.kind", "map", "object.id", id, "object.own", true)
	s.made(abi.ObjPin, f{"bpf_fd": mine, "pathname": "/sys/fs/bpf/../bpf/facts"})
	s.knows("obj_pin", "pin.path", "/sys/fs/bpf/../bpf/facts", "object.kind", "map", "object.id", id)
	s.does(abi.ObjGet, f{"pathname": "/sys/fs/bpf/facts"})
	s.knows("obj_get", "pin.path", "/sys/fs/bpf/facts")
}

// ofCounts makes a map, and knows what is held by then: what this process has fds of, but
// for what was passed to it.
func (s *factual) ofCounts(passed []int) {
	foreign := map[string]bool{}
	for _, fd := range passed {
		foreign[idIn(fd)] = true
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	held, bytes := map[string]int{}, 0
	for _, f := range all {
		fd, _ := strconv.Atoi(f.Name())
		id := idIn(fd)
		if id == "" || foreign[id] {
			continue
		}
		foreign[id] = true
		kind, _, _ := strings.Cut(id, "_")
		held[kind]++
		if kind == "map" {
			bytes += memlock(fd)
		}
	}
	s.made(abi.MapCreate, f{"map_type": mapType("array"), "key_size": 4, "value_size": 4, "max_entries": 1})
	s.knows("map_create", "counts.maps", held["map"], "counts.progs", held["prog"], "counts.links", held["link"], "counts.bytes", bytes+s.more)
}

// idIn is what a file's fdinfo says whose id it has ("map_id:\t7"); "": none.
func idIn(fd int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	found := ""
	for line := range strings.Lines(string(b)) {
		for _, kind := range []string{"map_id:", "link_id:", "prog_id:"} {
			if strings.HasPrefix(line, kind) && !strings.HasPrefix(found, "link_id:") { // which has a program's, too
				found = line
			}
		}
	}
	return found
}

func init() {
	// Its arguments: where the host passes a map, a device filter, a sockmap, and a program
	// that is shared; the id of sched_switch; a pid of the host's.
	probes["facts"] = func() {
		runtime.LockOSThread()
		s := &factual{script: &script{ids: map[string]string{}}, n: map[string]int{}}
		tracepoint, _ := strconv.Atoi(os.Args[2])
		host, _ := strconv.Atoi(os.Args[3])
		passed := receive(os.Args[1])
		theirs := passed[0]
		mine := s.ofMaps()
		s.ofPrograms(mine, theirs)
		s.ofAttaching(passed[1], passed[2])
		s.ofEvents(tracepoint, host)
		s.ofObjects(mine, theirs, passed[3])
		s.ofCounts(passed)
		for _, f := range s.atEnd {
			f()
		}
		b, err := json.Marshal(s.truths)
		if err != nil {
			panic(err)
		}
		ask(strconv.Itoa(os.Getpid()))
		ask(string(b))
	}
}

func TestFacts(t *testing.T) {
	needRoot(t)
	s := &script{ids: map[string]string{}}
	theirs := s.arrayMap("theirs")
	defer unix.Close(theirs)
	filter := s.load("theirs", "cgroup_device", ret1, nil)
	defer unix.Close(filter)
	socks := s.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})
	defer unix.Close(socks)
	shared := s.filterProg("shared")
	defer unix.Close(shared)
	socket := pass(t, theirs, filter, socks, shared)
	// The names of the kernel's types and tracepoints are there for policies that ask.
	asks := policyFile(t, fmt.Sprintf(`apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: asks}
spec:
  share: [{kind: prog, id: %d}]
  rules:
  - name: counts
    commands: [map_create]
    when: counts.maps + counts.progs + counts.links + counts.bytes < 0
    verdict: deny
  - name: functions
    commands: [prog_load]
    when: prog.kfuncs == ["none"] || prog.target == "none"
    verdict: deny
  - name: events
    commands: [perf_event_open]
    when: perf_event.type == "tracepoint" && perf_event.tracepoint == "none"
    verdict: deny
  - name: all
    commands: any
    verdict: allow
`, s.idOf(shared, abi.Prog)))
	for _, kind := range kinds(t) {
		file := filepath.Join(t.TempDir(), "log")
		c := brokeredBy(asks, probe("facts", socket, strconv.FormatUint(tracepointID(t, "sched/sched_switch"), 10), strconv.Itoa(os.Getpid())),
			"--net=private", "--worker="+kind, "--audit="+file)
		w := start(t, c)
		pid := w.hear()
		cgroup := cgroups(t, int(number(t, pid)))[""]
		netns := inode(t, "/proc/"+pid+"/ns/net") != inode(t, "/proc/self/ns/net")
		w.say("")
		var truths []truth
		if err := json.Unmarshal([]byte(w.hear()), &truths); err != nil {
			t.Fatal(err)
		}
		w.end(false)
		// Of every call.
		truths = append(truths, truth{"map_create", 1, "workload.cgroup", cgroup}, truth{"map_create", 1, "workload.netns_own", fmt.Sprint(netns)},
			truth{"map_create", 1, "workload.uid", fmt.Sprint(os.Getuid())}, truth{"map_create", 1, "workload.gid", fmt.Sprint(os.Getgid())})
		// Nobody has said that it is a container.
		for _, name := range []string{"container_id", "container", "image"} {
			truths = append(truths, truth{"map_create", 1, "workload." + name, ""})
		}
		truths = append(truths, truth{"map_create", 1, "workload.labels", "map[]"}, truth{"map_create", 1, "workload.annotations", "map[]"})

		calls := recordsOf(t, file)
		truths = append(truths, truth{"map_create", 1, "workload.id", calls["map_create"][0].Workload})
		seen := map[string]bool{}
		for _, want := range truths {
			seen[want.Fact] = true
			if want.Command == "" {
				continue // the kernel has no such thing
			}
			if len(calls[want.Command]) < want.N {
				t.Errorf("%s: there are %d records of %s, not %d", kind, len(calls[want.Command]), want.Command, want.N)
				continue
			}
			e := calls[want.Command][want.N-1]
			name := want.Fact
			got := fmt.Sprint(reflect.ValueOf(facts.Find(want.Fact).At(&e.Facts)).Elem().Interface())
			if why := e.Facts.Unknown.Why(want.Fact); why != "" {
				got = notKnown
				t.Logf("%s: %s of %s %d isn't known: %s", kind, want.Fact, want.Command, want.N, why)
			}
			if want := strings.Replace(want.Value, "CGROUP", strings.TrimSuffix(cgroup, "/"), 1); got != want {
				t.Errorf("%s: %s %d: %s is %s, the truth is %s", kind, e.Facts.Command, e.Seq, name, got, want)
			}
		}
		for _, f := range facts.Table {
			if !seen[f.Name] {
				t.Errorf("%s is of no real operation here: add one to e2e/facts_test.go", f.Name)
			}
		}
	}
}

// recordsOf are those of a log, by their commands.
func recordsOf(t *testing.T, file string) map[string][]*audit.Entry {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string][]*audit.Entry{}
	for l := range bytes.Lines(b) {
		e, err := audit.ParseLine(l)
		if err != nil || e.Lost != 0 {
			t.Fatalf("%v: %s", err, l)
		}
		if e.Seq == 0 {
			continue // what the daemon refuses the worker
		}
		calls[e.Facts.Command] = append(calls[e.Facts.Command], e)
	}
	return calls
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDigestOfObject: the digest that the broker sees is the one that the command tells of
// the object file, whose loader is another's.
func TestDigestOfObject(t *testing.T) {
	needRoot(t)
	const file = "../digest/object/testdata/calls.elf"
	programs, err := object.Digests(file, "")
	if err != nil || len(programs) < 2 {
		t.Fatalf("%d programs, %v", len(programs), err)
	}
	for _, kind := range kinds(t) {
		log, stdout, stderr := audited(t, brokered(installed(t, "bpftool", "prog", "loadall", file, "/sys/fs/bpf/calls"), "--worker="+kind))
		for _, p := range programs {
			if !slices.ContainsFunc(log, func(e *audit.Entry) bool {
				return e.Facts.Command == "prog_load" && e.Facts.Prog.Name == p.Name && e.Facts.Prog.Digest == p.Sum.String()
			}) {
				t.Errorf("%s: no program %q of the digest %v was loaded: %s%s", kind, p.Name, p.Sum, stdout, stderr)
			}
		}
	}
}
