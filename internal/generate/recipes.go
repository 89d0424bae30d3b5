package generate

import (
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
)

// recipe is a request that succeeds natively, on a kernel that has what it is about.
type recipe struct {
	call  string
	f     F
	steps []string
}

// recipesOf are the recipes of a call.
func recipesOf(call string) (some []recipe) {
	for _, r := range recipes() {
		if r.call == call {
			some = append(some, r)
		}
	}
	return some
}

// with is f and more.
func with(f, more F) F {
	all := F{}
	for k, v := range f {
		all[k] = v
	}
	for k, v := range more {
		all[k] = v
	}
	return all
}

var recipes = func() func() []recipe {
	var all []recipe
	add := func(call string, f F, steps ...string) { all = append(all, recipe{call, f, steps}) }
	mapRecipes(add)
	progRecipes(add)
	pinRecipes(add)
	attachRecipes(add)
	linkRecipes(add)
	infoRecipes(add)
	idRecipes(add)
	perfRecipes(add)
	return func() []recipe { return all }
}()

func mapRecipes(add func(string, F, ...string)) {
	type m struct {
		typ                        string
		key, value, entries, flags int
		more                       F
	}
	for _, m := range []m{
		{"hash", 4, 8, 8, 0, nil}, {"hash", 4, 8, 8, 1, F{"map_name": "a.B_9"}}, {"array", 4, 8, 3, 0, F{"map_name": "abcdefghijklmno"}},
		{"array", 4, 8, 3, 1 << 10, nil}, {"percpu_hash", 4, 8, 8, 0, nil}, {"percpu_array", 4, 8, 2, 0, nil}, {"lru_hash", 4, 8, 8, 0, nil},
		{"lru_percpu_hash", 4, 8, 8, 0, nil}, {"lpm_trie", 8, 8, 8, 1, nil}, {"prog_array", 4, 4, 4, 0, nil}, {"perf_event_array", 4, 4, 2, 0, nil},
		{"stack_trace", 4, 80, 16, 0, nil}, {"cgroup_array", 4, 4, 2, 0, nil}, {"devmap", 4, 4, 2, 0, nil}, {"devmap_hash", 4, 4, 2, 0, nil},
		{"sockmap", 4, 4, 2, 0, nil}, {"sockhash", 4, 4, 2, 0, nil}, {"cpumap", 4, 4, 2, 0, nil}, {"xskmap", 4, 4, 2, 0, nil},
		{"cgroup_storage", 16, 8, 0, 0, nil}, {"percpu_cgroup_storage", 16, 8, 0, 0, nil}, {"reuseport_sockarray", 4, 8, 2, 0, nil},
		{"queue", 0, 4, 4, 0, nil}, {"stack", 0, 4, 4, 0, nil}, {"ringbuf", 0, 0, 4096, 0, nil}, {"user_ringbuf", 0, 0, 4096, 0, nil},
		{"bloom_filter", 0, 8, 100, 0, F{"map_extra": 3}}, {"hash", 4, 8, 8, 4, F{"numa_node": 0}}, {"hash", 4, 8, 8, 8, nil},
		{"hash", 4, 4, 8, 0, F{"btf_fd": fdBTF, "btf_key_type_id": 1, "btf_value_type_id": 1}},
		{"sk_storage", 4, 4, 0, 1, F{"btf_fd": fdBTF, "btf_key_type_id": 1, "btf_value_type_id": 1}},
		{"task_storage", 4, 4, 0, 1, F{"btf_fd": fdBTF, "btf_key_type_id": 1, "btf_value_type_id": 1}},
		{"array_of_maps", 4, 4, 2, 0, F{"inner_map_fd": fdArray}}, {"hash_of_maps", 4, 4, 2, 0, F{"inner_map_fd": fdHash}},
		{"hash", 4, 8, 8, 0, F{"excl_prog_hash": []byte(strings.Repeat("h", 32)), "excl_prog_hash_size": 32}},
		{"arena", 0, 0, 4, 1 << 10, nil},
	} {
		add("map_create", with(F{"map_type": mapType(m.typ), "key_size": m.key, "value_size": m.value, "max_entries": m.entries, "map_flags": m.flags}, m.more))
	}
}

func progRecipes(add func(string, F, ...string)) {
	for _, p := range programs {
		add("prog_load", p.fields())
	}
	plain := programs[0].fields()
	for _, level := range []int{1, 2, 3, 8 | 1, 8 | 2} {
		for _, insns := range [][]byte{returns(0), long} {
			add("prog_load", with(plain, F{"insns": insns, "insn_cnt": len(insns) / 8, "log_level": level, "log_size": 16384, "log_buf": Room(16384)}))
		}
	}
	using := func(insns []byte, more F) {
		insns = join(insns, returns(0))
		add("prog_load", with(with(plain, F{"insns": insns, "insn_cnt": len(insns) / 8}), more))
	}
	using(loadMap(1, fdHash, 0), nil)
	using(loadMap(2, fdArray, 4), nil)
	using(join(loadMap(1, fdHash, 0), loadMap(1, fdArray, 0), loadMap(1, fdHash, 0)), nil)
	using(loadMap(5, 1, 0), F{"fd_array": words(fdClosed, fdHash)})
	using(loadMap(6, 0, 4), F{"fd_array": words(fdArray)})
	using(nil, F{"fd_array": words(fdHash, fdArray, fdBTF), "fd_array_cnt": 3})
	using(loadMap(1, fdHash, 0), F{"log_level": 2, "log_size": 4096, "log_buf": Room(4096)})
	add("prog_load", with(plain, F{"license": "Proprietary"}))
	add("prog_load", with(plain, F{"license": strings.Repeat("x", 127)}))
	typed := programs[len(programs)-1].fields()
	add("prog_load", with(typed, F{"func_info": words(0, 3, 0, 0), "func_info_rec_size": 16}))
	add("prog_load", with(typed, F{"log_level": 2, "log_size": 4096, "log_buf": Room(4096)}))
	for _, level := range []int{0, 1, 2} {
		add("btf_load", F{"btf": typesBTF, "btf_size": len(typesBTF)})
		add("btf_load", F{"btf": typesBTF, "btf_size": len(typesBTF), "btf_log_level": level, "btf_log_size": 4096 * level, "btf_log_buf": Room(4096 * level)})
	}
}

func pinRecipes(add func(string, F, ...string)) {
	for _, fd := range []int{fdHash, fdOuter, fdRingbuf, prog("skb"), prog("raw_map")} {
		add("obj_pin", F{"pathname": BpffsPath + "/new", "bpf_fd": fd})
		add("obj_pin", F{"pathname": "relative", "bpf_fd": fd})
		add("obj_pin", F{"pathname": "below", "bpf_fd": fd, "file_flags": abi.FPathFD, "path_fd": fdBpffs})
		add("obj_pin", F{"pathname": "/proc/self/cwd/through", "bpf_fd": fd})
	}
	add("obj_pin", F{"pathname": BpffsPath + "/new", "bpf_fd": fdLink}, "link raw")
	for _, name := range []string{"map", "prog", "link"} {
		add("obj_get", F{"pathname": BpffsPath + "/" + name}, "pin "+name)
		add("obj_get", F{"pathname": "./" + name}, "pin "+name)
		add("obj_get", F{"pathname": name, "file_flags": abi.FPathFD, "path_fd": fdBpffs}, "pin "+name)
		add("obj_get", F{"pathname": "/proc/self/cwd/./" + name}, "pin "+name)
	}
	add("obj_get", F{"pathname": BpffsPath + "/map", "file_flags": 8}, "pin map")
	add("obj_get", F{"pathname": BpffsPath + "/map", "file_flags": 16}, "pin map")
	add("token_create", F{"bpffs_fd": fdBpffs})
}

func attachRecipes(add func(string, F, ...string)) {
	tcx, dissector, verdict := attachType("tcx_ingress"), attachType("flow_dissector"), attachType("sk_skb_verdict")
	for _, flags := range []int{0, 1, 2, 2 | 64} {
		add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": flags}, "cgroup")
		add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": flags, "attach_type": 1}, "cgroup")
	}
	add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": 2}, "attach skb2")
	add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": 2 | 4, "replace_bpf_fd": prog("skb2")}, "attach skb2")
	add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": 2 | 8, "relative_fd": prog("skb2")}, "attach skb2")
	add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": 2 | 16 | 32, "relative_id": ID(prog("skb2"))}, "attach skb2")
	add("prog_attach", F{"target_fd": fdCgroup2, "attach_bpf_fd": prog("skb2"), "attach_flags": 2}, "cgroup2", "attach skb")
	for _, name := range []string{"sock", "device", "sysctl", "ops", "bind4", "getsockopt"} {
		for _, p := range programs {
			if p.name == name {
				add("prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog(name), "attach_type": attachType(p.attach)}, "cgroup")
			}
		}
	}
	add("prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls"), "attach_type": tcx})
	add("prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls"), "attach_type": attachType("tcx_egress")})
	add("prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls2"), "attach_type": tcx, "attach_flags": 8, "relative_fd": prog("cls")}, "attach cls")
	add("prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls2"), "attach_type": tcx, "attach_flags": 4, "replace_bpf_fd": prog("cls")}, "attach cls")
	add("prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls2"), "attach_type": tcx, "attach_flags": 16 | 32, "relative_id": ID(prog("cls"))}, "attach cls")
	add("prog_attach", F{"attach_bpf_fd": prog("dissector"), "attach_type": dissector})
	add("prog_attach", F{"target_fd": fdSockmap, "attach_bpf_fd": prog("verdict"), "attach_type": verdict})
	add("prog_attach", F{"target_fd": fdSockmap, "attach_bpf_fd": prog("msg"), "attach_type": attachType("sk_msg_verdict")})

	add("prog_detach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb")}, "attach skb")
	add("prog_detach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb")}, "attach skb", "attach skb2")
	add("prog_detach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb2")}, "attach skb", "attach skb2")
	add("prog_detach", F{"target_fd": fdCgroup, "attach_type": 1}, "attach egress")
	add("prog_detach", F{"target_fd": fdCgroup2, "attach_bpf_fd": prog("skb2")}, "attach below", "attach skb")
	add("prog_detach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls"), "attach_type": tcx}, "attach cls")
	add("prog_detach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls2"), "attach_type": tcx}, "attach cls", "attach cls2")
	add("prog_detach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls"), "attach_type": tcx, "attach_flags": 8, "relative_fd": prog("cls2")}, "attach cls", "attach cls2")
	add("prog_detach", F{"attach_bpf_fd": prog("dissector"), "attach_type": dissector}, "attach dissector")
	add("prog_detach", F{"target_fd": fdSockmap, "attach_bpf_fd": prog("verdict"), "attach_type": verdict}, "attach verdict")

	four := func(f F, steps ...string) {
		add("prog_query", with(f, F{"count": 4, "prog_ids": Room(16)}), steps...)
		add("prog_query", f, steps...)
	}
	four(F{"target_fd": fdCgroup}, "attach skb", "attach skb2")
	four(F{"target_fd": fdCgroup, "prog_attach_flags": Room(16)}, "attach skb", "attach skb2")
	four(F{"target_fd": fdCgroup2, "query_flags": 1}, "attach below", "attach skb")
	four(F{"target_fd": fdCgroup, "attach_type": 1}, "link cgroup")
	four(F{"target_ifindex": 1, "attach_type": tcx}, "attach cls", "attach cls2")
	four(F{"target_ifindex": 1, "attach_type": tcx, "prog_attach_flags": Room(16), "link_ids": Room(16), "link_attach_flags": Room(16)}, "link tcx before")
	four(F{"target_fd": fdNetns, "attach_type": dissector}, "attach dissector")
	four(F{"target_fd": fdNetns, "attach_type": attachType("sk_lookup")}, "link netns")
	four(F{"target_fd": fdSockmap, "attach_type": verdict}, "attach verdict")
}

func linkRecipes(add func(string, F, ...string)) {
	for _, l := range links {
		add(l.call, l.f, l.needs...)
	}
	add("raw_tracepoint_open", F{"name": "sched_process_exit", "prog_fd": prog("raw_map"), "cookie": 77})
	add("raw_tracepoint_open", F{"prog_fd": prog("tp_btf")})
	add("raw_tracepoint_open", F{"prog_fd": prog("tp_btf"), "cookie": 1})
	for _, l := range []struct{ name, now, next string }{
		{"cgroup", "skb", "skb2"}, {"xdp", "xdp", "xdp2"}, {"tcx", "cls", "cls2"}, {"netns", "lookup", "lookup"}, {"cgroup before", "skb", "skb2"},
	} {
		if l.name != "cgroup before" { // its other program is attached there already
			add("link_update", F{"link_fd": fdLink, "new_prog_fd": prog(l.next)}, "link "+l.name)
			add("link_update", F{"link_fd": fdLink, "new_prog_fd": prog(l.next), "old_prog_fd": prog(l.now), "flags": 4}, "link "+l.name)
		}
		add("link_detach", F{"link_fd": fdLink}, "link "+l.name)
	}
	add("link_detach", F{"link_fd": fdLink}, "link sockmap")
}

func infoRecipes(add func(string, F, ...string)) {
	info := func(fd int, l *abi.Layout, f F, steps ...string) {
		for _, size := range []int{int(l.Size), int(l.Size), int(l.Size) - 8, int(l.Size) + 8, 40, 256} {
			add("obj_get_info_by_fd", F{"bpf_fd": fd, "info_len": size, "info": Struct{l, size, f}}, steps...)
		}
	}
	for _, fd := range []int{fdHash, fdArray, fdOuter, fdTyped, fdReadable} {
		info(fd, &abi.MapInfo, nil)
	}
	info(fdHash, &abi.MapInfo, F{"hash": Room(32), "hash_size": 32})
	for _, name := range []string{"socket", "raw_map", "typed", "iter_task", "tp_btf", "kprobe"} {
		info(prog(name), &abi.ProgInfo, nil)
		info(prog(name), &abi.ProgInfo, F{"xlated_prog_len": 64, "xlated_prog_insns": Room(64), "nr_map_ids": 4, "map_ids": Room(16)})
		info(prog(name), &abi.ProgInfo, F{
			"nr_func_info": 1, "func_info_rec_size": 8, "func_info": Room(8), "nr_line_info": 2, "line_info_rec_size": 16, "line_info": Room(32),
			"nr_prog_tags": 1, "prog_tags": Room(8), "nr_jited_func_lens": 1, "jited_func_lens": Room(4), "nr_jited_ksyms": 1, "jited_ksyms": Room(8),
			"nr_jited_line_info": 1, "jited_line_info_rec_size": 8, "jited_line_info": Room(8), "jited_prog_len": 256, "jited_prog_insns": Room(256)})
	}
	info(fdBTF, &abi.BTFInfo, nil)
	info(fdBTF, &abi.BTFInfo, F{"btf": Room(256), "btf_size": 256, "name": Room(16), "name_len": 16})
	info(fdBTF, &abi.BTFInfo, F{"btf": Room(40), "btf_size": 40})
	more := map[string]F{
		"raw":              {"raw_tracepoint.tp_name": Room(32), "raw_tracepoint.tp_name_len": 32},
		"iter elem":        {"iter.target_name": Room(16), "iter.target_name_len": 16},
		"iter task":        {"iter.target_name": Room(16), "iter.target_name_len": 16},
		"uprobe_multi":     {"uprobe_multi.path": Room(64), "uprobe_multi.path_size": 64, "uprobe_multi.count": 2, "uprobe_multi.offsets": Room(16), "uprobe_multi.cookies": Room(16), "uprobe_multi.ref_ctr_offsets": Room(16)},
		"uprobe_multi pid": {"uprobe_multi.path": Room(10), "uprobe_multi.path_size": 10, "uprobe_multi.count": 1, "uprobe_multi.offsets": Room(8)},
		"perf tracepoint":  {"perf_event.tracepoint.tp_name": Room(32), "perf_event.tracepoint.name_len": 32},
		"perf uprobe":      {"perf_event.uprobe.file_name": Room(64), "perf_event.uprobe.name_len": 64},
	}
	for _, l := range links {
		info(fdLink, &abi.LinkInfo, nil, "link "+l.name)
		if f := more[l.name]; f != nil {
			info(fdLink, &abi.LinkInfo, f, "link "+l.name)
		}
	}
	query := func(fd int, steps ...string) {
		for _, room := range []int{0, 64, 16, 256} {
			f := F{"pid": PID{}, "fd": fd, "buf_len": room}
			if room > 0 {
				f["buf"] = Room(room)
			}
			add("task_fd_query", f, steps...)
		}
	}
	query(fdLink, "link raw")
	query(fdLink, "link raw")
	query(fdTracepoint, "link perf tracepoint")
	query(fdTracepoint, "set tracepoint")
	query(fdUprobe, "link perf uprobe")
	add("enable_stats", F{"type": 0})
}

func idRecipes(add func(string, F, ...string)) {
	for _, fd := range []int{fdHash, fdArray, fdOuter} {
		add("map_get_fd_by_id", F{"map_id": ID(fd)})
		add("map_get_fd_by_id", F{"map_id": ID(fd), "open_flags": 8})
		add("map_get_fd_by_id", F{"map_id": ID(fd), "open_flags": 16})
		add("map_get_next_id", F{"start_id": Before(fd)})
	}
	for _, name := range []string{"socket", "raw_map", "typed"} {
		add("prog_get_fd_by_id", F{"prog_id": ID(prog(name))})
		add("prog_get_next_id", F{"start_id": Before(prog(name))})
	}
	add("btf_get_fd_by_id", F{"btf_id": ID(fdBTF)})
	add("btf_get_fd_by_id", F{"btf_id": 1})
	add("btf_get_next_id", F{"start_id": Before(fdBTF)})
	for _, l := range []string{"raw", "cgroup", "tcx", "iter task"} {
		add("link_get_fd_by_id", F{"link_id": ID(fdLink)}, "link "+l)
		add("link_get_next_id", F{"start_id": Before(fdLink)}, "link "+l)
	}
}

func perfRecipes(add func(string, F, ...string)) {
	open := func(f F, steps ...string) {
		add("perf_event_open", with(F{"size": 112, "cpu": -1, "group_fd": -1, "flags": 8}, f), steps...)
	}
	for _, size := range []int{0, 64, 72, 96, 112, 120, 128, 136} {
		open(F{"type": 1, "size": size})
	}
	open(F{"type": 1, "config": 10, "sample_type": 1024, "pid": -1, "cpu": 0})
	open(F{"type": 1, "pid": PID{}})
	open(F{"type": 1, "group_fd": fdClock}, "clock")
	open(F{"type": 1, "pid": fdCgroup, "cpu": 0, "flags": 4}, "cgroup")
	open(F{"type": 1, "config": 9, "sample_period": 1000, "bits": 1})
	open(F{"type": 2, "config": Value("tracepoint task/task_rename"), "pid": -1, "cpu": 0})
	open(F{"type": Value("event uprobe"), "uprobe_path": "/bin/true", "config2": 0x1240, "pid": -1, "cpu": 0})
	open(F{"type": Value("event uprobe"), "config": 1, "uprobe_path": "/bin//./true", "config2": 0x1240})

	add("perf_event_set_bpf", F{"fd": fdClock, "prog_fd": prog("perf")}, "clock")
	add("perf_event_set_bpf", F{"fd": fdTracepoint, "prog_fd": prog("tracepoint")}, "tracepoint")
	add("perf_event_set_bpf", F{"fd": fdUprobe, "prog_fd": prog("kprobe")}, "uprobe")
	for _, n := range []int{0, 1, 4, 16} {
		add("perf_event_query_bpf", F{"fd": fdTracepoint, "ids_len": n}, "set tracepoint")
		add("perf_event_query_bpf", F{"fd": fdTracepoint, "ids_len": n}, "tracepoint")
	}
}
