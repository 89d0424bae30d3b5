package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// What a workload would try against the built-in policies: each attack succeeds natively,
// as root, and each policy that could have to do with it denies it, and says why.

// attack is one. do returns whether it succeeded.
type attack struct {
	policies []string
	// why is in the denial's message; "" where the policy isn't what stops it: then errno
	// is what the attacker gets.
	why   string
	errno string
	rule  string   // what is in the rule that would allow it
	flags []string // of run
	do    func(*attacker) error
}

// attacker is who attacks, and what it has.
type attacker struct {
	*script
	policy string   // under which it does; "": none
	args   []string // the host's objects, and whatever else it knows of the host
	passed func() int
}

// step makes what the attack is made of: that this is denied is no success of the policy.
func (a *attacker) step(what string, fd int) int {
	if fd < 0 {
		panic(fmt.Sprintf("no %s:\n%s", what, a.log.String()))
	}
	return fd
}

// tried is the result of the call that is the attack.
func tried(fd int, e sys.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func (a *attacker) try(c abi.Command, fields f) error {
	at := make([]byte, abi.AttrSize)
	a.put(&abi.RowOf(c).Layout, at, fields)
	fd, e := sys.BPF(uint32(c), at, abi.RowOf(c).LastEnd)
	runtime.KeepAlive(a.keep)
	a.bufs = nil
	return tried(fd, e)
}

// number is one that the host told.
func (a *attacker) number(i int) int {
	n, err := strconv.Atoi(a.args[i])
	if err != nil {
		panic(err)
	}
	return n
}

// progTry loads a program as the attack.
func (a *attacker) progTry(typ string, insns []byte, more f) error {
	fields := f{"prog_type": progType(typ), "insns": insns, "insn_cnt": len(insns) / 8, "license": "GPL", "prog_name": "attack"}
	for k, v := range more {
		fields[k] = v
	}
	return a.try(abi.ProgLoad, fields)
}

// harmless is a type of program that the policy allows.
func (a *attacker) harmless() (string, f) {
	switch a.policy {
	case "observe":
		return "tracepoint", nil
	case "container-devices":
		return "cgroup_device", nil
	}
	return "socket_filter", nil
}

func callInsn(src uint8, off int16, imm int32) []byte { return insn(0x85, 0, src, off, imm) }

// subprog is a program whose subprogram is insns.
func subprog(insns ...[]byte) []byte {
	return prog(append([][]byte{callInsn(1, 0, 1), exit}, insns...)...)
}

var (
	stackBuf = prog(insn(0xbf, 1, 10, 0, 0), insn(0x07, 1, 0, 0, -8), insn(0x7a, 10, 0, -8, 0)) // r1 = r10 - 8; *(u64 *)(r10 - 8) = 0
	all3     = []string{"observe", "network", "container-devices"}
)

const pathOfPins = "pins"

// attacks are by name. The arguments of one's probe are the ids of a map, a program, a
// link, a BTF of the host's, the test's pid, and the directory of the bpffs with its pins.
var attacks = map[string]attack{
	"helper in a subprogram": {policies: []string{"observe", "network"}, why: "bpf_probe_read_kernel", do: func(a *attacker) error {
		const probeReadKernel = 113
		typ, more := a.harmless()
		return a.progTry(typ, subprog(stackBuf, insn(0xb7, 2, 0, 0, 8), insn(0xb7, 3, 0, 0, 0), callInsn(0, 0, probeReadKernel), movR0(0), exit), more)
	}},
	"helper in a subprogram, device": {policies: []string{"container-devices"}, why: "prog.helpers", do: func(a *attacker) error {
		const ktime = 5
		return a.progTry("cgroup_device", subprog(callInsn(0, 0, ktime), movR0(0), exit), nil)
	}},
	"helper in dead code": {policies: []string{"observe", "network"}, why: "bpf_trace_printk", do: func(a *attacker) error {
		const printk = 6
		typ, more := a.harmless()
		never := prog(movR0(0), insn(0x15, 0, 0, 4, 0)) // if r0 == 0 goto the end
		return a.progTry(typ, prog(never, stackBuf[:16], insn(0xb7, 2, 0, 0, 8), callInsn(0, 0, printk), movR0(0), exit), more)
	}},
	"kfunc": {policies: all3, why: "prog.kfuncs", do: func(a *attacker) error {
		id, typ := a.step("kfunc", a.kernelType("bpf_rdonly_cast", (*btf.Func)(nil))), a.kernelType("task_struct", (*btf.Struct)(nil))
		kind, more := a.harmless()
		if more == nil {
			more = f{}
		}
		more["fd_array"] = words(0, 0)
		return a.progTry(kind, subprog(insn(0xb7, 1, 0, 0, 0), insn(0xb7, 2, 0, 0, int32(typ)), callInsn(2, 0, int32(id)), movR0(0), exit), more)
	}},
	"map by fd_array": {policies: all3, why: "map", do: func(a *attacker) error {
		typ, more := a.harmless()
		if more == nil {
			more = f{}
		}
		more["fd_array"] = words(uint32(a.passed()))
		return a.progTry(typ, useMap(5, 0, 0), more) // BPF_PSEUDO_MAP_IDX
	}},
	"map by id":     {policies: all3, why: "", errno: "EPERM", do: func(a *attacker) error { return a.try(abi.MapGetFDByID, f{"map_id": a.number(0)}) }},
	"program by id": {policies: all3, why: "object.own is false", do: func(a *attacker) error { return a.try(abi.ProgGetFDByID, f{"prog_id": a.number(1)}) }},
	"link by id":    {policies: all3, why: "object.own", do: func(a *attacker) error { return a.try(abi.LinkGetFDByID, f{"link_id": a.number(2)}) }},
	"types by id":   {policies: []string{"observe", "network"}, errno: "ENOENT", do: func(a *attacker) error { return a.try(abi.BTFGetFDByID, f{"btf_id": a.number(3)}) }},
	"pin":           {policies: all3, errno: "ENOENT", do: func(a *attacker) error { return a.try(abi.ObjGet, f{"pathname": a.args[5] + "/map"}) }},
	"inner map": {policies: []string{"observe", "network"}, why: "object.own is false", do: func(a *attacker) error {
		outer, id := a.passed(), make([]byte, 4)
		if _, e := bpf(cmdMapLookup, new(attr).u32(0, uint32(outer)).u64(8, sys.Addr(make([]byte, 4))).u64(16, sys.Addr(id)), 32, id); e != 0 {
			panic(e)
		}
		return a.try(abi.MapGetFDByID, f{"map_id": int(le32(id))})
	}},
	"inner map by a program": {policies: []string{"network"}, why: "prog.foreign_map_ids", do: func(a *attacker) error {
		outer := a.passed()
		return a.progTry("cgroup_skb", useMap(1, int32(outer), 0), nil)
	}},
	"facts of a passed map": {policies: all3, why: "object.own is false", do: func(a *attacker) error {
		info := make([]byte, abi.MapInfo.Size)
		return a.try(abi.ObjGetInfoByFD, f{"bpf_fd": a.passed(), "info_len": len(info), "info": info})
	}},
	"pin of a passed map": {policies: all3, why: "object.own is false", do: func(a *attacker) error {
		return a.try(abi.ObjPin, f{"bpf_fd": a.passed(), "pathname": a.args[5] + "/attack-" + strconv.Itoa(os.Getpid())})
	}},
	"cgroup that was passed": {policies: []string{"network"}, why: "attach.cgroup_inside is false", do: func(a *attacker) error {
		cgroup := a.passedCgroup()
		p := a.step("program", a.load("p", "cgroup_skb", ret1, f{"expected_attach_type": attachType("cgroup_inet_egress")}))
		return a.attach(cgroup, p, "cgroup_inet_egress")
	}},
	"cgroup that was passed, link": {policies: []string{"network"}, why: "attach.cgroup_inside is false", do: func(a *attacker) error {
		cgroup := a.passedCgroup()
		p := a.step("program", a.load("p", "cgroup_skb", ret1, f{"expected_attach_type": attachType("cgroup_inet_egress")}))
		return a.try(abi.LinkCreate, f{"target_fd": cgroup, "prog_fd": p, "attach_type": attachType("cgroup_inet_egress")})
	}},
	"device filter of a cgroup that was passed": {policies: []string{"container-devices"}, why: "attach.cgroup_inside is false", do: func(a *attacker) error {
		cgroup := a.passedCgroup()
		p := a.step("program", a.load("p", "cgroup_device", ret1, nil))
		return a.attach(cgroup, p, "cgroup_device")
	}},
	"detach of the host's device filter": {policies: all3, why: "", errno: "EPERM", do: func(a *attacker) error {
		return a.try(abi.ProgDetach, f{"target_fd": a.passedCgroup(), "attach_type": attachType("cgroup_device")})
	}},
	"query of a cgroup that was passed": {policies: []string{"network"}, why: "attach.cgroup_inside is false", do: func(a *attacker) error {
		return a.try(abi.ProgQuery, f{"target_fd": a.passedCgroup(), "attach_type": attachType("cgroup_inet_egress")})
	}},
	"the host's network namespace": {policies: []string{"network"}, why: "attach.netns_own is false", flags: []string{"--net=private"}, do: func(a *attacker) error {
		ns := a.passedNetNS()
		p := a.step("program", a.load("p", "sk_lookup", ret1, f{"expected_attach_type": attachType("sk_lookup")}))
		return a.try(abi.LinkCreate, f{"target_fd": ns, "prog_fd": p, "attach_type": attachType("sk_lookup")})
	}},
	"an interface of the host": {policies: []string{"network"}, why: "run --net private", do: func(a *attacker) error {
		p, e := loadFor(6, 37, "attack", returns(2))
		if e != 0 {
			return e
		}
		const generic = 2
		return a.try(abi.LinkCreate, f{"prog_fd": p, "target_ifindex": 1, "attach_type": attachType("xdp"), "flags": generic})
	}},
	// The program is loaded in a namespace of one's own, and run in the host's.
	"live frames": {policies: []string{"network"}, why: "run --net private", do: func(a *attacker) error {
		fds := make(chan int, 1)
		err := inNetns(true, func() error {
			p, e := loadFor(6, 37, "attack", returns(2))
			fds <- p
			return tried(p, e)
		})
		if err != nil {
			return err
		}
		const testRun, liveFrames = 10, 2
		frame := make([]byte, 64)
		_, e := bpf(testRun, new(attr).u32(0, uint32(<-fds)).u32(8, 64).u64(16, sys.Addr(frame)).u32(32, 1).u32(64, liveFrames), 80, frame)
		return tried(0, e)
	}},
	"iterator over maps":     {policies: all3, why: "prog.type is \"tracing\"", do: func(a *attacker) error { return a.iterator("bpf_iter_bpf_map") }},
	"iterator over programs": {policies: all3, why: "prog.type is \"tracing\"", do: func(a *attacker) error { return a.iterator("bpf_iter_bpf_prog") }},
	"iterator over links":    {policies: all3, why: "prog.type is \"tracing\"", do: func(a *attacker) error { return a.iterator("bpf_iter_bpf_link") }},
	"struct_ops": {policies: []string{"observe", "network"}, why: "map.type is \"struct_ops\"", do: func(a *attacker) error {
		spec, err := btf.LoadKernelSpec()
		if err != nil {
			return err
		}
		var ops *btf.Struct
		if err := spec.TypeByName("bpf_struct_ops_tcp_congestion_ops", &ops); err != nil {
			return err
		}
		id, err := spec.TypeID(ops)
		if err != nil {
			return err
		}
		own := a.step("btf", a.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}))
		return a.try(abi.MapCreate, f{"map_type": mapType("struct_ops"), "key_size": 4, "value_size": int(ops.Size), "max_entries": 1,
			"btf_vmlinux_value_type_id": int(id), "btf_fd": own})
	}},
	"syscall program": {policies: all3, why: "prog.type is \"syscall\"", do: func(a *attacker) error {
		const sysBPF = 166
		return a.progTry("syscall", prog(
			stackBuf, insn(0xbf, 2, 1, 0, 0), insn(0xb7, 1, 0, 0, cmdRawTracepoint), insn(0xb7, 3, 0, 0, 8),
			callInsn(0, 0, sysBPF), movR0(0), exit), f{"prog_flags": 16}) // BPF_F_SLEEPABLE
	}},
	"link to another's program": {policies: []string{"network"}, why: "attach.prog_own is false", flags: []string{"--net=private"}, do: func(a *attacker) error {
		theirs := a.passedProg()
		p := a.step("program", a.load("p", "sched_cls", ret0, nil))
		l := a.step("link", a.do("link", abi.LinkCreate, f{"prog_fd": p, "target_ifindex": 1, "attach_type": attachType("tcx_ingress")}))
		return a.try(abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": theirs})
	}},
	"another's program": {policies: []string{"network"}, why: "attach.prog_own is false", flags: []string{"--net=private"}, do: func(a *attacker) error {
		return a.try(abi.LinkCreate, f{"prog_fd": a.passedProg(), "target_ifindex": 1, "attach_type": attachType("tcx_ingress")})
	}},
	"sender's socket": {policies: []string{"network"}, why: "sockmap would take it over", do: func(a *attacker) error {
		socks := a.step("sockmap", a.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1}))
		const update, sk = 2, 168 // offsetof(struct __sk_buff, sk)
		return a.progTry("socket_filter", prog(
			insn(0x79, 3, 1, sk, 0), // r3 = skb->sk
			insn(0x55, 3, 0, 2, 0),  // if r3 != 0 goto +2
			movR0(0), exit,          //
			insn(0x62, 10, 0, -4, 0),  // *(u32 *)(r10 - 4) = 0
			insn(0xbf, 2, 10, 0, 0),   // r2 = r10
			insn(0x07, 2, 0, 0, -4),   // r2 += -4
			ldMap(1, int32(socks), 0), // r1 = the map
			insn(0xb7, 4, 0, 0, 0),    // r4 = 0
			callInsn(0, 0, update), movR0(0), exit), nil)
	}},
	"stack of others": {policies: []string{"observe"}, rule: "PERF_SAMPLE_STACK_USER", why: "PERF_SAMPLE_STACK_USER", do: func(a *attacker) error {
		return a.event(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Sample_type: unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_STACK_USER, Sample_stack_user: 8192}, -1, 0)
	}},
	"stack of the test": {policies: []string{"observe"}, why: "PERF_SAMPLE_STACK_USER", do: func(a *attacker) error {
		return a.event(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Sample_type: unix.PERF_SAMPLE_STACK_USER, Sample_stack_user: 8192}, a.number(4), -1)
	}},
	"registers of others": {policies: []string{"observe"}, why: "PERF_SAMPLE_REGS_USER", do: func(a *attacker) error {
		return a.event(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Sample_type: unix.PERF_SAMPLE_REGS_USER, Sample_regs_user: 1}, -1, 0)
	}},
	"uprobe in a library of all": {policies: []string{"observe"}, why: "perf_event.file_shared", do: func(a *attacker) error {
		return a.uprobe("/bin/true", -1, 0)
	}},
	"uprobe in another's process": {policies: []string{"observe"}, why: "perf_event.file_shared", do: func(a *attacker) error {
		return a.uprobe("/bin/true", a.number(4), -1)
	}},
	"uprobes by a link": {policies: []string{"observe"}, why: "attach.file_shared", do: func(a *attacker) error {
		p := a.step("program", a.load("p", "kprobe", ret0, f{"expected_attach_type": attachType("trace_uprobe_multi")}))
		offsets := make([]byte, 8)
		binary.NativeEndian.PutUint64(offsets, 0x1240)
		return a.try(abi.LinkCreate, f{"prog_fd": p, "attach_type": attachType("trace_uprobe_multi"), "uprobe_multi.path": "/bin/true",
			"uprobe_multi.offsets": offsets, "uprobe_multi.cnt": 1})
	}},
	"events under network": {policies: []string{"network", "container-devices"}, why: "no rule is for \"perf_event_open\"", do: func(a *attacker) error {
		return a.event(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE}, -1, 0)
	}},
	"raw tracepoint with writable buffers": {policies: all3, why: "prog.type is \"raw_tracepoint_writable\"", do: func(a *attacker) error {
		return a.progTry("raw_tracepoint_writable", ret0, nil)
	}},
	"arena": {policies: all3, why: "map", do: func(a *attacker) error {
		return a.try(abi.MapCreate, f{"map_type": mapType("arena"), "max_entries": 1, "map_flags": 1 << 10})
	}},
	"user ring buffer": {policies: all3, why: "map", do: func(a *attacker) error {
		return a.try(abi.MapCreate, f{"map_type": mapType("user_ringbuf"), "max_entries": 4096})
	}},
	"statistics of all": {policies: all3, why: "no rule is for \"enable_stats\"", do: func(a *attacker) error { return a.try(abi.EnableStats, f{"type": 0}) }},
}

// attach attaches a program, and undoes it if that succeeds.
func (a *attacker) attach(cgroup, prog int, typ string) error {
	at := f{"target_fd": cgroup, "attach_bpf_fd": prog, "attach_type": attachType(typ), "attach_flags": 2} // BPF_F_ALLOW_MULTI
	if err := a.try(abi.ProgAttach, at); err != nil {
		return err
	}
	delete(at, "attach_flags")
	if err := a.try(abi.ProgDetach, at); err != nil {
		panic(err)
	}
	return nil
}

func (a *attacker) iterator(over string) error {
	id := a.step(over, a.kernelType(over, (*btf.Func)(nil)))
	return a.progTry("tracing", ret0, f{"expected_attach_type": attachType("trace_iter"), "attach_btf_id": id})
}

func (a *attacker) event(at unix.PerfEventAttr, pid, cpu int) error {
	at.Size = 112
	fd, err := unix.PerfEventOpen(&at, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (a *attacker) uprobe(file string, pid, cpu int) error {
	typ, ok := sys.EventType("uprobe")
	if !ok {
		panic("no uprobes")
	}
	at := make([]byte, 200)
	a.put(&abi.PerfEventOpen.Layout, at, f{"type": int(typ), "size": 112, "uprobe_path": file, "config2": 0x1240})
	fd, e := sys.PerfEventOpen(at, pid, cpu, -1, 8)
	runtime.KeepAlive(a.keep)
	return tried(fd, e)
}

// The host passes, in this order, a map of maps, a cgroup, its network namespace and a
// program.
func (a *attacker) passedAt(n int) (fd int) {
	for range n + 1 {
		fd = a.passed()
	}
	return fd
}
func (a *attacker) passedCgroup() int { return a.passedAt(1) }
func (a *attacker) passedNetNS() int  { return a.passedAt(2) }
func (a *attacker) passedProg() int   { return a.passedAt(3) }

func init() {
	// It says "done", or the errno of what was to be the attack.
	probes["attack"] = func() {
		name, policy, socket := os.Args[1], os.Args[2], os.Args[3]
		var fds []int
		a := &attacker{script: &script{ids: map[string]string{}}, policy: policy, args: os.Args[4:]}
		a.passed = func() int {
			if fds == nil {
				fds = receive(socket)
			}
			fd := fds[0]
			fds = fds[1:]
			return fd
		}
		switch err := attacks[name].do(a).(type) {
		case nil:
			say0("done")
		case syscall.Errno:
			say0(errnoName(err))
		default:
			fail("%v", err)
		}
	}
}

// receive takes the fds that the host passes at a socket.
func receive(path string) []int {
	c, err := net.Dial("unix", path)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	b, oob := make([]byte, 1), make([]byte, 256)
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(b, oob)
	if err != nil {
		panic(err)
	}
	ms, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		panic(err)
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil {
		panic(err)
	}
	return fds
}

// pass passes fds to all who connect, and returns where.
func pass(t *testing.T, fds ...int) string {
	t.Helper()
	path := filepath.Join(bin, "pass-"+strconv.Itoa(os.Getpid()))
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
			c.Close()
		}
	}()
	return path
}

// TestAttacksOnPolicies tries each attack natively, and under each policy.
func TestAttacksOnPolicies(t *testing.T) {
	needRoot(t)
	s := &script{ids: map[string]string{}}
	t.Cleanup(func() {
		for _, f := range s.atEnd {
			f()
		}
	})
	check := func(what string, fd int) int {
		t.Helper()
		if fd < 0 {
			t.Fatalf("no %s: %s", what, s.log.String())
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	inner := check("map", s.arrayMap("inner"))
	outer := check("map of maps", s.do("outer", abi.MapCreate, f{"map_type": mapType("array_of_maps"), "key_size": 4, "value_size": 4, "max_entries": 1, "inner_map_fd": inner}))
	if _, e := bpf(cmdMapUpdate, new(attr).u32(0, uint32(outer)).u64(8, sys.Addr(make([]byte, 4))).u64(16, sys.Addr(words(uint32(inner)))), 32); e != 0 {
		t.Fatal(e)
	}
	tc := check("program", s.load("tc", "sched_cls", ret0, nil))
	link := check("link", s.rawLink())
	types := check("btf", s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}))
	netns := check("network namespace", s.openFile("/proc/self/ns/net", unix.O_RDONLY))

	// A cgroup v2 of the host's, with a device filter.
	root := cgroup2(t)
	dir := filepath.Join(root, "attack-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	cgroup := check("cgroup", s.openFile(dir, unix.O_RDONLY|unix.O_DIRECTORY))
	filter := check("filter", s.load("filter", "cgroup_device", ret1, nil))
	pins := filepath.Join(bin, pathOfPins)
	if err := os.Mkdir(pins, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpffs", pins, "bpf", 0, "mode=0777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(pins, unix.MNT_DETACH); os.Remove(pins) })
	if s.do("pin", abi.ObjPin, f{"bpf_fd": inner, "pathname": pins + "/map"}) < 0 {
		t.Fatal(s.log.String())
	}
	if err := os.Chmod(pins+"/map", 0o666); err != nil {
		t.Fatal(err)
	}

	args := []string{pass(t, outer, cgroup, netns, tc)}
	for _, id := range []uint32{s.idOf(inner, abi.Map), s.idOf(tc, abi.Prog), s.idOf(link, abi.Link), s.idOf(types, abi.BTF), uint32(os.Getpid())} {
		args = append(args, strconv.Itoa(int(id)))
	}
	args = append(args, pins)
	for name, attack := range attacks {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			for _, pol := range attack.policies {
				detaches := strings.HasPrefix(name, "detach")
				run := func() *exec.Cmd { return probe("attack", append([]string{name, pol}, args...)...) }
				attachAgain := func() {
					s.do("detach", abi.ProgDetach, f{"target_fd": cgroup, "attach_bpf_fd": filter, "attach_type": attachType("cgroup_device")})
					if detaches {
						s.do("attach", abi.ProgAttach, f{"target_fd": cgroup, "attach_bpf_fd": filter, "attach_type": attachType("cgroup_device")})
					}
				}
				attachAgain()
				if out, err := run().CombinedOutput(); string(out) != "done\n" {
					t.Errorf("natively it doesn't succeed: %v: %s", err, out)
				}
				for _, kind := range kinds(t) {
					attachAgain()
					c := brokered(run(), append(attack.flags, "--quiet", "--worker="+kind)...)
					c.Args[2] = "--policy=" + pol
					log, stdout, stderr := audited(t, c)
					ok, out := c.ProcessState.Success(), stdout+stderr
					var denied []string
					for _, r := range log {
						if r.Decision.Verdict != policy.Deny {
							continue
						}
						denied = append(denied, r.Decision.Message)
						if rule := audit.SmallestRule(r); !strings.Contains(rule, attack.rule) {
							t.Errorf("%s, %s: the rule that would allow it says nothing of %q:\n%s", pol, kind, attack.rule, rule)
						}
					}
					want := attack.errno
					if want == "" {
						want = "EPERM"
					}
					if !ok || out != want+"\n" {
						t.Errorf("%s, %s: it got %s, wanted %s; denied %q", pol, kind, out, want, denied)
					}
					if text := strings.Join(denied, "\n"); want == "EPERM" && (len(denied) != 1 || !strings.Contains(text, attack.why)) {
						t.Errorf("%s, %s: denied %q, wanted one for %q", pol, kind, denied, attack.why)
					}
				}
			}
		})
	}
}

// cgroup2 is where the host has cgroup v2.
func cgroup2(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(dir + "/cgroup.controllers"); err == nil {
			return dir
		}
	}
	t.Skip("no cgroup v2 is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified")
	return ""
}
