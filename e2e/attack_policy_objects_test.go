package e2e

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Ways to objects of others, and kinds of maps that reach beyond themselves.

// calling is an attack by one call, about things of the host's.
func calling(c abi.Command, fields func(v *theHosts) f) func(*attacker) error {
	return func(a *attacker) error { return a.try(c, fields(&a.theHosts)) }
}

const onlyOwn = "object.own is false"

var attacksOnObjects = []attack{
	{name: "a map by its id", refused: by{"trusted": hidden}, denied: by{"observe": onlyOwn, "network": onlyOwn, "container-devices": `no rule is for "map_get_fd_by_id"`},
		do: calling(abi.MapGetFDByID, func(v *theHosts) f { return f{"map_id": v.MapID} })},
	{name: "a program by its id", refused: by{"trusted": hidden}, denied: all3(onlyOwn), do: calling(abi.ProgGetFDByID, func(v *theHosts) f { return f{"prog_id": v.RawID} })},
	// What can be put into a prog_array isn't asked for, by design: an update is a native call,
	// by the fd of a program. Another's isn't to be had.
	{name: "a program for a prog_array by its id", refused: by{"trusted": hidden}, denied: by{"network": onlyOwn}, do: func(a *attacker) error {
		array := a.step("prog_array", a.do("prog_array", abi.MapCreate, f{"map_type": mapType("prog_array"), "key_size": 4, "value_size": 4, "max_entries": 1}))
		put := func(prog int) sys.Errno {
			_, e := bpf(cmdMapUpdate, new(attr).u32(0, uint32(array)).u64(8, sys.Addr(make([]byte, 4))).u64(16, sys.Addr(words(uint32(prog)))), 32)
			return e
		}
		if e := put(a.own("socket_filter", ret0, "cgroup_inet_ingress")); e != 0 {
			return fmt.Errorf("one's own program: %w", e)
		}
		p, e := bpf(cmdProgByID, new(attr).u32(0, uint32(a.RawID)), 12)
		if e != 0 {
			return e
		}
		if e := put(p); e != unix.EINVAL {
			return fmt.Errorf("a program of another type: %w, wanted EINVAL", e)
		}
		return nil
	}},
	{name: "a link by its id", refused: by{"trusted": hidden}, denied: all3(onlyOwn), do: calling(abi.LinkGetFDByID, func(v *theHosts) f { return f{"link_id": v.LinkID} })},
	{name: "types by their id", refused: by{"trusted": hidden, "observe": hidden, "network": hidden}, denied: by{"container-devices": `no rule is for "btf_get_fd_by_id"`},
		do: calling(abi.BTFGetFDByID, func(v *theHosts) f { return f{"btf_id": v.BTFID} })},
	{name: "an inner map by its id", refused: by{"trusted": hidden}, denied: by{"observe": onlyOwn, "network": onlyOwn}, do: func(a *attacker) error {
		id := make([]byte, 4)
		if _, e := bpf(cmdMapLookup, new(attr).u32(0, uint32(a.Outer)).u64(8, sys.Addr(make([]byte, 4))).u64(16, sys.Addr(id)), 32, id); e != 0 {
			return fmt.Errorf("lookup: %w", e)
		}
		return a.try(abi.MapGetFDByID, f{"map_id": int(le32(id))})
	}},
	{name: "an inner map by a program", denied: by{"network": "prog.foreign_map_ids"}, do: func(a *attacker) error {
		return a.loading("cgroup_skb", useMap(1, int32(a.Outer), 0), nil)
	}},
	{name: "a pin", denied: all3(onlyOwn), do: calling(abi.ObjGet, func(v *theHosts) f {
		return f{"pathname": "theirs", "file_flags": 1 << 14, "path_fd": v.Pins} // BPF_F_PATH_FD
	})},
	// Nothing is there, so that whose it is can't be known: the errno stays the kernel's.
	{name: "a pin by its path", refused: by{"trusted": noMount, "observe": noMount, "network": noMount, "container-devices": noMount},
		denied: all3("object.own isn't known"),
		do:     calling(abi.ObjGet, func(v *theHosts) f { return f{"pathname": v.PinsPath + "/theirs"} })},
	{name: "facts of a passed map", denied: all3(onlyOwn), do: calling(abi.ObjGetInfoByFD, func(v *theHosts) f {
		info := make([]byte, abi.MapInfo.Size)
		return f{"bpf_fd": v.Map, "info_len": len(info), "info": info}
	})},
	{name: "a pin of a passed map", denied: all3(onlyOwn), do: calling(abi.ObjPin, func(v *theHosts) f {
		return f{"bpf_fd": v.Map, "pathname": fmt.Sprint("pin-", os.Getpid()), "file_flags": 1 << 14, "path_fd": v.Pins}
	})},
	{name: "what another process's fd is", refused: by{"trusted": "ENOENT: the process isn't the workload's"}, denied: all3(`no rule is for "task_fd_query"`), do: calling(abi.TaskFDQuery, func(v *theHosts) f {
		return f{"pid": v.PID, "fd": v.RawLink}
	})},
	{name: "statistics of all", denied: all3(`no rule is for "enable_stats"`), do: calling(abi.EnableStats, func(*theHosts) f { return f{"type": 0} })},
	// Where a token can be made, it is a grant that nobody can take back.
	{name: "a token", refused: by{native: "EOPNOTSUPP: the initial user namespace has no tokens",
		"trusted/token": "ENOENT: its bpffs delegates nothing", "trusted/capability": "EPERM: its bpffs delegates nothing"},
		denied: all3(`no rule is for "token_create"`), do: func(a *attacker) error {
			bpffs := a.Pins
			if a.policy != native {
				bpffs = a.step("bpffs", a.openFile("/sys/fs/bpf", unix.O_RDONLY|unix.O_DIRECTORY))
			}
			return a.try(abi.TokenCreate, f{"bpffs_fd": bpffs})
		}},
}

const (
	hidden  = "ENOENT: a workload sees its own objects by their ids, whatever the policy"
	noMount = "ENOENT: the host's bpffs isn't in the workload's mount namespace"
)

const flagTokenFD = 1 << 16 // BPF_F_TOKEN_FD

// notToken stops whoever says that an fd is a token where none is.
var notToken = by{native: "EINVAL: it is no token", "trusted": "EINVAL: it is no token"}

var attacksOnMaps = []attack{
	{name: "a map with a token", refused: notToken, denied: by{"observe": "token is true", "network": "token is true", "container-devices": `no rule is for "map_create"`}, rule: "BPF_F_TOKEN_FD",
		do: calling(abi.MapCreate, func(v *theHosts) f {
			return f{"map_type": mapType("array"), "key_size": 4, "value_size": 4, "max_entries": 1, "map_flags": flagTokenFD, "map_token_fd": v.Cgroup}
		})},
	{name: "a program with a token", refused: notToken, denied: by{"observe": "token is true", "network": "token is true"}, rule: "BPF_F_TOKEN_FD",
		do: func(a *attacker) error {
			return a.loading("socket_filter", ret0, f{"prog_flags": flagTokenFD, "prog_token_fd": a.Cgroup})
		}},
	{name: "a device filter with a token", refused: notToken, denied: by{"container-devices": "token is true"}, rule: "BPF_F_TOKEN_FD",
		do: func(a *attacker) error {
			return a.loading("cgroup_device", ret0, f{"prog_flags": flagTokenFD, "prog_token_fd": a.Cgroup})
		}},
	{name: "types with a token", refused: notToken, denied: by{"observe": "token is true", "network": "token is true", "container-devices": `no rule is for "btf_load"`},
		do: calling(abi.BTFLoad, func(v *theHosts) f {
			return f{"btf": simpleBTF, "btf_size": len(simpleBTF), "btf_flags": flagTokenFD, "btf_token_fd": v.Cgroup}
		})},
	{name: "a map of another's maps", denied: by{"observe": `map.type is "array_of_maps"`, "container-devices": `no rule is for "map_create"`},
		do: calling(abi.MapCreate, func(v *theHosts) f {
			return f{"map_type": mapType("array_of_maps"), "key_size": 4, "value_size": 4, "max_entries": 1, "inner_map_fd": v.Map}
		})},
	{name: "a prog_array", denied: by{"observe": `map.type is "prog_array"`, "container-devices": `no rule is for "map_create"`},
		do: calling(abi.MapCreate, func(*theHosts) f {
			return f{"map_type": mapType("prog_array"), "key_size": 4, "value_size": 4, "max_entries": 1}
		})},
	{name: "an arena", denied: by{"observe": `map.type is "arena"`, "network": `map.type is "arena"`, "container-devices": `no rule is for "map_create"`},
		do: calling(abi.MapCreate, func(*theHosts) f { return f{"map_type": mapType("arena"), "max_entries": 1, "map_flags": 1 << 10} })},
	{name: "a user ring buffer", denied: by{"observe": `map.type is "user_ringbuf"`, "network": `map.type is "user_ringbuf"`, "container-devices": `no rule is for "map_create"`},
		do: calling(abi.MapCreate, func(*theHosts) f { return f{"map_type": mapType("user_ringbuf"), "max_entries": 4096} })},
	// To update one is to register it, for the whole host.
	{name: "struct_ops", denied: by{"observe": `map.type is "struct_ops"`, "network": `map.type is "struct_ops"`}, do: func(a *attacker) error {
		return a.structOps(a.step("btf", a.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)})))
	}},
	// container-devices loads no types: with another's.
	{name: "struct_ops with another's types", denied: by{"container-devices": `no rule is for "map_create"`}, do: func(a *attacker) error {
		return a.structOps(a.BTF)
	}},
}

func (a *attacker) structOps(btf int) error {
	return a.try(abi.MapCreate, f{"map_type": mapType("struct_ops"), "key_size": 4, "value_size": a.OpsSize, "max_entries": 1,
		"btf_vmlinux_value_type_id": a.Types[structOps], "btf_fd": btf})
}
