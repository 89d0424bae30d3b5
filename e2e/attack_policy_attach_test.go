package e2e

import (
	"fmt"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Programs where they don't belong: at cgroups and in networks of others, and others' in
// one's own.

const (
	notInside = "attach.cgroup_inside is false"
	notOwn    = "attach.prog_own is false"
	onHost    = "programs that send packets are for a network namespace of the command's own"

	allowMulti, replace  = 1 << 1, 1 << 2          // BPF_F_ALLOW_MULTI, BPF_F_REPLACE
	before, byID, byLink = 1 << 3, 1 << 5, 1 << 13 // BPF_F_BEFORE, BPF_F_ID, BPF_F_LINK
)

// ownCgroup is the workload's, where there is one.
func (a *attacker) ownCgroup() int {
	if a.policy == native {
		return a.Cgroup
	}
	return a.step("cgroup", a.openFile("/sys/fs/cgroup", unix.O_RDONLY|unix.O_DIRECTORY))
}

// attach attaches a program to a cgroup. Where that works it undoes it: the cgroup is there
// for others, too.
func (a *attacker) attach(cgroup, prog int, typ string, more f) error {
	at := f{"target_fd": cgroup, "attach_bpf_fd": prog, "attach_type": attachType(typ), "attach_flags": allowMulti}
	maps.Copy(at, more)
	if err := a.try(abi.ProgAttach, at); err != nil {
		return err
	}
	a.detach(cgroup, prog, typ)
	return nil
}

func (a *attacker) detach(cgroup, prog int, typ string) {
	a.step("detaching", a.do("detach", abi.ProgDetach, f{"target_fd": cgroup, "attach_bpf_fd": prog, "attach_type": attachType(typ)}))
}

// replaces attaches another's program where it can, and puts one of its own there.
func (a *attacker) replaces(theirs, own int, typ string) error {
	cgroup := a.ownCgroup()
	at := f{"target_fd": cgroup, "attach_bpf_fd": theirs, "attach_type": attachType(typ), "attach_flags": allowMulti}
	if a.policy == native || a.policy == "trusted" {
		a.step("attaching", a.do("attach", abi.ProgAttach, at))
	}
	return a.attach(cgroup, own, typ, f{"attach_flags": allowMulti | replace, "replace_bpf_fd": theirs})
}

func (a *attacker) device() int { return a.own("cgroup_device", ret1, "cgroup_device") }
func (a *attacker) skb() int    { return a.own("cgroup_skb", ret1, "cgroup_inet_egress") }

var attacksAtCgroups = []attack{
	{name: "a packet filter at a passed cgroup", denied: by{"network": notInside}, do: func(a *attacker) error {
		return a.attach(a.Cgroup, a.skb(), "cgroup_inet_egress", nil)
	}},
	{name: "a packet filter at a passed cgroup by a link", denied: by{"network": notInside}, do: func(a *attacker) error {
		return a.try(abi.LinkCreate, f{"target_fd": a.Cgroup, "prog_fd": a.skb(), "attach_type": attachType("cgroup_inet_egress")})
	}},
	{name: "a device filter at a passed cgroup", denied: by{"container-devices": notInside}, do: func(a *attacker) error {
		return a.attach(a.Cgroup, a.device(), "cgroup_device", nil)
	}},
	{name: "a device filter in the place of those that are there", denied: by{"container-devices": `attach.flags hasn't "BPF_F_ALLOW_MULTI"`}, do: func(a *attacker) error {
		return a.attach(a.ownCgroup(), a.device(), "cgroup_device", f{"attach_flags": 0})
	}},
	{name: "a device filter in the place of another's", denied: by{"container-devices": notOwn}, do: func(a *attacker) error {
		return a.replaces(a.Device, a.device(), "cgroup_device")
	}},
	{name: "a filter of sockets in the place of another's", denied: by{"network": notOwn}, do: func(a *attacker) error {
		return a.replaces(a.Sock, a.own("cgroup_sock", ret1, "cgroup_inet_sock_create"), "cgroup_inet_sock_create")
	}},
	{name: "another's device filter at its own cgroup", denied: by{"observe": `no rule is for "prog_attach"`, "network": `attach.type is "cgroup_device"`, "container-devices": notOwn},
		do: func(a *attacker) error { return a.attach(a.ownCgroup(), a.Device, "cgroup_device", nil) }},
	// What is at a cgroup with flags 0 is detached without naming it.
	{name: "detaching the host's device filter", denied: by{"observe": `no rule is for "prog_detach"`, "network": `attach.type is "cgroup_device"`, "container-devices": notInside},
		do: func(a *attacker) error {
			at := f{"target_fd": a.Cgroup2, "attach_type": attachType("cgroup_device")}
			if err := a.try(abi.ProgDetach, at); err != nil {
				return err
			}
			at["attach_bpf_fd"] = a.Device
			a.step("attaching it again", a.do("attach", abi.ProgAttach, at))
			return nil
		}},
	{name: "undoing what the host denies at its own cgroup", denied: by{"network": `prog.helpers has "bpf_set_retval"`}, do: func(a *attacker) error {
		undo, e := loadFor(uint32(progType("cgroup_sock_addr")), uint32(attachType("cgroup_inet4_bind")), "undo",
			prog(insn(0xb7, 1, 0, 0, 0), callInsn(0, 0, helperSetRetval), movR0(1), exit))
		if e != 0 {
			return e
		}
		cgroup := a.ownCgroup()
		if a.policy == native {
			if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/cgroup.procs", cgroup), []byte("0"), 0); err != nil {
				return err
			}
		}
		binds := func() error {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		for _, p := range []int{a.own("cgroup_sock_addr", ret0, "cgroup_inet4_bind"), undo} {
			a.step("link", a.do("link", abi.LinkCreate, f{"target_fd": cgroup, "prog_fd": p, "attach_type": attachType("cgroup_inet4_bind")}))
			if err := binds(); p != undo && err != unix.EPERM {
				return fmt.Errorf("bind where that is denied: %v", err)
			} else if p == undo && err != nil {
				return fmt.Errorf("bind: %w", err)
			}
		}
		return nil
	}},
	{name: "what is attached to a passed cgroup", denied: by{"observe": `no rule is for "prog_query"`, "network": notInside, "container-devices": `attach.type is "cgroup_inet_egress"`},
		do: calling(abi.ProgQuery, func(v *theHosts) f {
			return f{"target_fd": v.Cgroup, "attach_type": attachType("cgroup_inet_egress")}
		})},
	{name: "one's own program for another's link", denied: by{"network": onlyOwn}, do: func(a *attacker) error {
		if err := a.try(abi.LinkUpdate, f{"link_fd": a.Link, "new_prog_fd": a.skb()}); err != nil {
			return err
		}
		return a.try(abi.LinkUpdate, f{"link_fd": a.Link, "new_prog_fd": a.Skb})
	}},
	{name: "detaching another's link", denied: all3(onlyOwn), do: calling(abi.LinkDetach, func(v *theHosts) f { return f{"link_fd": v.Link2} })},
}

var attacksInNetworks = []attack{
	{name: "XDP in the host's network", denied: by{"observe": `prog.type is "xdp"`, "network": onHost, "container-devices": `prog.type is "xdp"`}, rule: `prog.type == "xdp"`,
		do: loads("xdp", prog(movR0(2), exit), f{"expected_attach_type": attachType("xdp")})},
	// The program is loaded in a namespace of one's own, and run in the host's.
	{name: "live frames in the host's network", denied: by{"network": onHost}, rule: `prog.type == "xdp"`, do: func(a *attacker) error {
		fds := make(chan int, 1)
		err := inNetns(true, func() error {
			p, e := loadFor(uint32(progType("xdp")), uint32(attachType("xdp")), "attack", returns(2))
			fds <- p
			return tried(p, e)
		})
		if err != nil {
			return err
		}
		frame := make([]byte, 64)
		_, e := bpf(cmdTestRun, new(attr).u32(0, uint32(<-fds)).u32(8, 64).u64(16, sys.Addr(frame)).u32(32, 1).u32(64, liveFrames), 80, frame)
		return tried(0, e)
	}},
	{name: "a flow dissector of the host's network", private: true, denied: by{"network": "attach.netns_own is false"}, do: func(a *attacker) error {
		p := a.own("flow_dissector", ret0, "flow_dissector")
		return a.try(abi.LinkCreate, f{"target_fd": a.NetNS, "prog_fd": p, "attach_type": attachType("flow_dissector")})
	}},
	{name: "lookups of sockets in the host's network", private: true, denied: by{"network": "attach.netns_own is false"}, do: func(a *attacker) error {
		p := a.own("sk_lookup", ret1, "sk_lookup")
		return a.try(abi.LinkCreate, f{"target_fd": a.NetNS, "prog_fd": p, "attach_type": attachType("sk_lookup")})
	}},
	{name: "another's program at one's own interface", private: true, denied: by{"network": notOwn}, do: calling(abi.LinkCreate, func(v *theHosts) f {
		return f{"prog_fd": v.TC, "target_ifindex": 1, "attach_type": attachType("tcx_ingress")}
	})},
	{name: "another's program for one's own link", private: true, denied: by{"network": notOwn}, do: func(a *attacker) error {
		l := a.step("link", a.do("link", abi.LinkCreate, f{"prog_fd": a.tc(), "target_ifindex": 1, "attach_type": attachType("tcx_ingress")}))
		return a.try(abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": a.TC})
	}},
	{name: "a program in the place of another's at tcx", private: true, denied: by{"network": notOwn}, do: func(a *attacker) error {
		at := f{"target_ifindex": 1, "attach_bpf_fd": a.TC, "attach_type": attachType("tcx_ingress")}
		if a.policy == native || a.policy == "trusted" {
			a.step("attaching", a.do("attach", abi.ProgAttach, at))
		}
		own := a.tc()
		if err := a.try(abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": own, "attach_type": attachType("tcx_ingress"), "attach_flags": replace, "replace_bpf_fd": a.TC}); err != nil {
			return err
		}
		at["attach_bpf_fd"] = own
		a.step("detaching", a.do("detach", abi.ProgDetach, at))
		return nil
	}},
	// Beside what is named: only what is at the same interface can be, and it stays there.
	{name: "a program before another's that isn't there", private: true, refused: notThere, do: beside(0, func(v *theHosts) f { return f{"tcx.relative_fd": v.TC} })},
	{name: "a program before another's that isn't there, by its id", private: true, refused: notThere, do: beside(byID, func(v *theHosts) f { return f{"tcx.relative_id": v.TCID} })},
	{name: "a program before another's link that isn't there", private: true, refused: notTCX, do: beside(byLink, func(v *theHosts) f { return f{"tcx.relative_fd": v.Link} })},
	{name: "a program before another's link that isn't there, by its id", private: true, refused: notTCX, do: beside(byLink|byID, func(v *theHosts) f { return f{"tcx.relative_id": v.LinkID} })},
	{name: "a verdict at another's sockmap", denied: by{"network": "attach.map_own is false"}, do: func(a *attacker) error {
		p := a.own("sk_skb", ret1, "sk_skb_stream_verdict")
		at := f{"target_fd": a.Sockmap, "attach_bpf_fd": p, "attach_type": attachType("sk_skb_stream_verdict")}
		if err := a.try(abi.ProgAttach, at); err != nil {
			return err
		}
		a.detach(a.Sockmap, p, "sk_skb_stream_verdict")
		return nil
	}},
}

var (
	notThere = by{native: "ENOENT", "trusted": "ENOENT", "network": "ENOENT"}
	notTCX   = by{native: "EINVAL", "trusted": "EINVAL", "network": "EINVAL"}
)

func (a *attacker) tc() int { return a.step("program", a.load("own", "sched_cls", ret0, nil)) }

// beside makes a link of one's own program before what fields names.
func beside(flags int, fields func(v *theHosts) f) func(*attacker) error {
	return func(a *attacker) error {
		at := f{"prog_fd": a.tc(), "target_ifindex": 1, "attach_type": attachType("tcx_ingress"), "flags": before | flags}
		maps.Copy(at, fields(&a.theHosts))
		return a.try(abi.LinkCreate, at)
	}
}
