package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/btf"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func init() {
	for name, run := range map[string]func(*script){
		"map_create":      mapCreate,
		"map_lookup_elem": mapElements, "map_update_elem": mapElements, "map_delete_elem": mapElements,
		"map_get_next_key": mapElements, "map_lookup_and_delete_elem": mapElements, "map_freeze": mapFreeze,
		"map_lookup_batch": mapBatches, "map_lookup_and_delete_batch": mapBatches, "map_update_batch": mapBatches, "map_delete_batch": mapBatches,
		"prog_load":     progLoad,
		"prog_load_log": progLoadLog,
		"prog_load_fds": progLoadFDs,
		"prog_load_btf": progLoadBTF,
		"obj_pin":       pins, "obj_get": pins,
		"prog_attach": progAttach, "prog_detach": progAttach,
		"prog_test_run":    testRun,
		"prog_get_next_id": nextIDs, "map_get_next_id": nextIDs, "btf_get_next_id": nextIDs, "link_get_next_id": nextIDs,
		"prog_get_fd_by_id": byIDs, "map_get_fd_by_id": byIDs, "btf_get_fd_by_id": byIDs, "link_get_fd_by_id": byIDs,
		"obj_get_info_by_fd":  infos,
		"prog_query":          progQuery,
		"raw_tracepoint_open": rawTracepoint,
		"btf_load":            btfLoad,
		"task_fd_query":       taskFDQuery,
		"link_create":         linkCreate,
		"link_update":         linkUpdate, "link_detach": linkUpdate,
		"enable_stats":           enableStats,
		"iter_create":            iterCreate,
		"prog_bind_map":          bindMap,
		"token_create":           tokenCreate,
		"prog_stream_read_by_fd": streamRead,
		"perf_event_open":        perfEventOpen,
		"sizes":                  attributeSizes,
		"unknown":                unknownCommands,
	} {
		scripts[name] = run
	}
}

// attributeSizes tries every command with attributes of all sizes that mean
// something, at NULL, and with a tail that isn't zero.
func attributeSizes(s *script) {
	for _, row := range abi.Table() {
		if strings.HasSuffix(row.Name, "get_next_id") {
			continue // from 0 on root sees another object than a workload: see nextIDs
		}
		for _, size := range []int{0, 1, 3, 4, 7, 8, 12, 15, int(row.LastEnd) - 1, int(row.LastEnd), int(row.LastEnd) + 1,
			int(abi.AttrSize), int(abi.AttrSize) + 8, 255, 256, 4095, 4096} {
			s.sized(fmt.Sprintf("%s, %d zero bytes", row.Name, size), row.Command, size, nil)
		}
		for _, size := range []int{4097, 8192, 1 << 20} {
			s.sized(fmt.Sprintf("%s, %d bytes", row.Name, size), row.Command, size, nil)
		}
		for _, at := range []int{int(row.LastEnd), int(abi.AttrSize) - 1, int(abi.AttrSize), 4095} {
			attr := make([]byte, 4096)
			attr[at] = 1
			s.call(fmt.Sprintf("%s, byte %d set", row.Name, at), row.Command, nil, attr, len(attr))
		}
		for i := range row.Fields {
			field := &row.Fields[i]
			if field.Class == abi.Pointer || row.Command == abi.MapCreate && field.Name == "max_entries" {
				continue
			}
			// A number that is no fd, no flag, no enum value, and no id.
			attr := make([]byte, abi.AttrSize)
			abi.Put(attr, field.Offset, min(field.Size, 8), 0x7ffffff0)
			s.call(fmt.Sprintf("%s, %s out of range", row.Name, field.Name), row.Command, nil, attr, int(row.LastEnd))
		}
	}
}

func unknownCommands(s *script) {
	for _, c := range []abi.Command{38, 39, 100, 1 << 16, 1<<16 | abi.MapCreate, 1<<16 | abi.ProgLoad, 1 << 31, 0xffffffff} {
		s.call(fmt.Sprintf("command %#x", uint32(c)), c, nil, make([]byte, 256), 128)
		s.call(fmt.Sprintf("command %#x, size 0", uint32(c)), c, nil, make([]byte, 256), 0)
		s.call(fmt.Sprintf("command %#x, size 4097", uint32(c)), c, nil, make([]byte, 4097), 4097)
	}
}

func mapCreate(s *script) {
	for typ := range abi.MapTypes.Names {
		for _, size := range []int{0, 4, 8, 64} {
			fd := s.do(fmt.Sprintf("type %d, sizes %d", typ, size), abi.MapCreate,
				f{"map_type": typ, "key_size": min(size, 4), "value_size": size, "max_entries": 4096})
			if fd >= 0 {
				s.info("info", fd, abi.Map, nil)
				syscall.Close(fd)
			}
		}
	}
	base := func(more f) f {
		fields := f{"map_type": mapType("hash"), "key_size": 4, "value_size": 4, "max_entries": 8}
		for k, v := range more {
			fields[k] = v
		}
		return fields
	}
	s.do("name", abi.MapCreate, base(f{"map_name": "a.B_9"}))
	s.do("bad name", abi.MapCreate, base(f{"map_name": "a-b"}))
	s.do("name without NUL", abi.MapCreate, base(f{"map_name": "abcdefghijklmnop"}))
	for bit := range 32 {
		s.do(fmt.Sprintf("flag bit %d", bit), abi.MapCreate, base(f{"map_flags": uint64(1) << bit}))
	}
	s.do("numa node", abi.MapCreate, base(f{"map_flags": 4, "numa_node": 0}))
	s.do("no such numa node", abi.MapCreate, base(f{"map_flags": 4, "numa_node": 1000}))
	s.do("no such interface", abi.MapCreate, base(f{"map_ifindex": 99}))
	s.do("interface lo", abi.MapCreate, base(f{"map_ifindex": 1}))
	s.do("no such btf", abi.MapCreate, base(f{"btf_fd": 77, "btf_value_type_id": 1}))
	b := s.must(s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}), "btf")
	s.do("with btf", abi.MapCreate, base(f{"btf_fd": b, "btf_key_type_id": 1, "btf_value_type_id": 1}))
	s.do("with btf, bad type", abi.MapCreate, base(f{"btf_fd": b, "btf_key_type_id": 9, "btf_value_type_id": 1}))
	s.do("btf_fd is a map", abi.MapCreate, base(f{"btf_fd": s.hashMap("m"), "btf_value_type_id": 1}))
	inner := s.arrayMap("inner")
	s.do("outer", abi.MapCreate, base(f{"map_type": mapType("hash_of_maps"), "inner_map_fd": inner}))
	s.do("outer, array", abi.MapCreate, base(f{"map_type": mapType("array_of_maps"), "inner_map_fd": inner}))
	s.do("outer of nothing", abi.MapCreate, base(f{"map_type": mapType("array_of_maps"), "inner_map_fd": 77}))
	s.do("outer of a btf", abi.MapCreate, base(f{"map_type": mapType("array_of_maps"), "inner_map_fd": b}))
	s.do("outer of stdout", abi.MapCreate, base(f{"map_type": mapType("array_of_maps"), "inner_map_fd": 1}))
	s.do("a token that is none", abi.MapCreate, base(f{"map_flags": 1 << 16, "map_token_fd": inner}))
	s.do("a token at a closed fd", abi.MapCreate, base(f{"map_flags": 1 << 16, "map_token_fd": 300}))
	s.do("map_extra", abi.MapCreate, base(f{"map_extra": 3}))
	s.do("bloom filter", abi.MapCreate, f{"map_type": mapType("bloom_filter"), "value_size": 8, "max_entries": 100, "map_extra": 3})
	hash := bytes.Repeat([]byte{7}, 32)
	s.do("exclusive", abi.MapCreate, base(f{"excl_prog_hash": hash, "excl_prog_hash_size": 32}))
	s.do("exclusive, short hash", abi.MapCreate, base(f{"excl_prog_hash": hash, "excl_prog_hash_size": 31}))
	s.do("exclusive, no hash", abi.MapCreate, base(f{"excl_prog_hash_size": 32}))
	s.do("exclusive, faulting hash", abi.MapCreate, base(f{"excl_prog_hash": 4096, "excl_prog_hash_size": 32}))
	s.do("too large", abi.MapCreate, base(f{"max_entries": 0xffffffff}))
	s.sized("the attribute of Linux 3.18", abi.MapCreate, 16, base(nil))
}

func mapElements(s *script) {
	m := s.hashMap("m")
	key, val := s.buf([]byte{1, 0, 0, 0}), s.buf([]byte("12345678"))
	s.do("lookup in empty", 1, f{"map_fd": m, "key": key, "value": s.out(8)})
	s.do("update", 2, f{"map_fd": m, "key": key, "value": val})
	s.do("update, must not exist", 2, f{"map_fd": m, "key": key, "value": val, "flags": 1})
	s.do("lookup", 1, f{"map_fd": m, "key": key, "value": s.out(8)})
	s.do("next key", 4, f{"map_fd": m, "key": 0, "next_key": s.out(4)})
	s.do("next key of last", 4, f{"map_fd": m, "key": key, "next_key": s.out(4)})
	s.do("lookup and delete", 21, f{"map_fd": m, "key": key, "value": s.out(8)})
	s.do("delete again", 3, f{"map_fd": m, "key": key})
	s.do("no map", 1, f{"map_fd": 1, "key": key, "value": s.out(8)})
	s.do("no fd", 1, f{"map_fd": 77, "key": key, "value": s.out(8)})
	s.do("fault", 2, f{"map_fd": m, "key": 64, "value": val})
}

func mapFreeze(s *script) {
	m := s.arrayMap("m")
	s.do("freeze", 22, f{"map_fd": m})
	s.do("again", 22, f{"map_fd": m})
	s.do("update", 2, f{"map_fd": m, "key": make([]byte, 4), "value": make([]byte, 8)})
	s.do("no map", 22, f{"map_fd": 1})
}

func mapBatches(s *script) {
	m := s.hashMap("m")
	keys, vals := s.buf([]byte{1, 0, 0, 0, 2, 0, 0, 0}), s.buf([]byte("1234567890123456"))
	s.do("update", 26, f{"map_fd": m, "keys": keys, "values": vals, "count": 2})
	var next = s.out(4)
	s.do("lookup and delete", 25, f{"map_fd": m, "out_batch": next, "keys": sorted(s.out(32), 4), "values": sorted(s.out(64), 8), "count": 8})
	s.do("update again", 26, f{"map_fd": m, "keys": keys, "values": vals, "count": 2})
	s.do("lookup", 24, f{"map_fd": m, "out_batch": next, "keys": sorted(s.out(32), 4), "values": sorted(s.out(64), 8), "count": 8})
	s.do("delete", 27, f{"map_fd": m, "keys": keys, "count": 2})
	s.do("delete again", 27, f{"map_fd": m, "keys": keys, "count": 2})
}

// sorted shows a buffer's elements in order: a hash map's is random.
func sorted(b *buffer, size int) *buffer {
	b.show = func(p []byte) string {
		var out []string
		for o := 0; o+size <= len(p); o += size {
			out = append(out, fmt.Sprintf("%x", p[o:o+size]))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	return b
}

func progLoad(s *script) {
	for typ := range abi.ProgTypes.Names {
		fd := s.do(fmt.Sprintf("type %d", typ), abi.ProgLoad, f{"prog_type": typ, "insns": ret0, "insn_cnt": 2, "license": "GPL"})
		if fd >= 0 {
			s.info("info", fd, abi.Prog, nil)
			syscall.Close(fd)
		}
	}
	for at := range abi.AttachTypes.Names {
		fd := s.do(fmt.Sprintf("attach type %d", at), abi.ProgLoad,
			f{"prog_type": progType("cgroup_sock_addr"), "insns": ret1, "insn_cnt": 2, "license": "GPL", "expected_attach_type": at})
		syscall.Close(fd)
	}
	s.load("named", "socket_filter", ret0, nil)
	s.load("bad-name", "socket_filter", ret0, nil)
	s.load("own_license", "socket_filter", ret0, f{"license": "Proprietary"})
	s.load("gpl_helper", "kprobe", prog(insn(0x85, 0, 0, 0, 6), exit), f{"license": "Proprietary"})
	s.load("long_license", "socket_filter", ret0, f{"license": strings.Repeat("x", 5000)})
	s.load("license_128", "socket_filter", ret0, f{"license": strings.Repeat("x", 128)})
	s.load("no_license", "socket_filter", ret0, f{"license": 0})
	s.load("faulting_license", "socket_filter", ret0, f{"license": 4096})
	s.load("no_insns", "socket_filter", ret0, f{"insns": 0})
	s.load("faulting_insns", "socket_filter", ret0, f{"insns": 4096})
	s.load("no_insn", "socket_filter", ret0, f{"insn_cnt": 0})
	s.load("2_million", "socket_filter", ret0, f{"insn_cnt": 2 << 20})
	s.load("4_billion", "socket_filter", ret0, f{"insn_cnt": uint64(0xffffffff)})
	long := bytes.Repeat(movR0(0), 10000)
	s.load("10001_insns", "socket_filter", prog(long, exit), nil)
	s.load("insns_at_end_of_memory", "socket_filter", atEnd(ret0), nil)
	s.load("insns_end_early", "socket_filter", atEnd(ret0), f{"insn_cnt": 3})
	s.load("insns_end_very_early", "socket_filter", atEnd(ret0), f{"insn_cnt": 1 << 19})
	s.load("license_at_end_of_memory", "socket_filter", ret0, f{"license": atEnd([]byte("GPL\x00"))})
	s.load("license_ends_early", "socket_filter", ret0, f{"license": atEnd([]byte("GPL"))})
	s.load("bad", "socket_filter", badR0, nil)
	s.load("ifindex", "xdp", ret0, f{"prog_ifindex": 1})
	s.load("ifindex_dev_bound", "xdp", ret0, f{"prog_ifindex": 1, "prog_flags": 1 << 6})
	s.load("no_ifindex", "xdp", ret0, f{"prog_ifindex": 99, "prog_flags": 1 << 6})
	for bit := range 32 {
		s.load("flag", "socket_filter", ret0, f{"prog_flags": uint64(1) << bit})
	}
	s.load("token", "socket_filter", ret0, f{"prog_flags": 1 << 16, "prog_token_fd": 1})
	s.load("kern_version", "kprobe", ret0, f{"kern_version": 0x123456})
	s.load("extension", "ext", ret0, f{"attach_prog_fd": s.filterProg("target"), "attach_btf_id": 1})
	s.load("attach_to_stdout", "ext", ret0, f{"attach_prog_fd": 1, "attach_btf_id": 1})
	s.load("signed", "socket_filter", ret0, f{"signature": make([]byte, 300), "signature_size": 300, "keyring_id": 0})
	s.load("signed_no_keyring", "socket_filter", ret0, f{"signature": make([]byte, 300), "signature_size": 300, "keyring_id": 1 << 30})
	s.load("huge_signature", "socket_filter", ret0, f{"signature": make([]byte, 300), "signature_size": 1 << 30})
	s.load("faulting_signature", "socket_filter", ret0, f{"signature": 4096, "signature_size": 300})
	fd := s.load("core_relos", "socket_filter", ret0, f{"core_relos": make([]byte, 16), "core_relo_cnt": 1, "core_relo_rec_size": 16, "prog_btf_fd": 77})
	s.note("%v", fd >= 0)
}

func progLoadLog(s *script) {
	// Programs with logs of many lengths, valid and not.
	many := prog(bytes.Repeat(prog(insn(0xbf, 2, 1, 0, 0), insn(0x07, 2, 0, 0, 1)), 2000), movR0(0), exit)
	for _, insns := range [][]byte{ret0, badR0, deepR0, many} {
		for _, level := range []int{0, 1, 2, 3, 8, 16} {
			for _, size := range []int{0, 1, 2, 63, 64, 65, 127, 128, 129, 200, 1000, 4096, 1 << 16, 1 << 20} {
				log := s.out(size + 64).text()
				s.load("x", "socket_filter", insns, f{"log_level": level, "log_size": size, "log_buf": log})
			}
		}
	}
	s.load("level_without_buffer", "socket_filter", badR0, f{"log_level": 1, "log_size": 4096})
	s.load("level_without_size", "socket_filter", badR0, f{"log_level": 1, "log_buf": s.out(4096).text()})
	s.load("only_true_size", "socket_filter", badR0, f{"log_level": 1})
	s.load("faulting_log", "socket_filter", badR0, f{"log_level": 1, "log_size": 4096, "log_buf": 4096})
	s.load("faulting_log_good", "socket_filter", ret0, f{"log_level": 1, "log_size": 4096, "log_buf": 4096})
	s.load("huge_size_small_memory", "socket_filter", badR0, f{"log_level": 1, "log_size": 1 << 29, "log_buf": s.out(4096).text()})
	s.load("too_huge_size", "socket_filter", badR0, f{"log_level": 1, "log_size": 1 << 30, "log_buf": s.out(4096).text()})
	s.load("size_4g", "socket_filter", badR0, f{"log_level": 1, "log_size": uint64(0xffffffff), "log_buf": s.out(4096).text()})
	log := s.out(4096).text()
	fields := f{"prog_type": progType("socket_filter"), "insns": badR0, "insn_cnt": 1, "license": "GPL", "log_level": 1, "log_size": 4096, "log_buf": log}
	s.sized("attribute without log_true_size", abi.ProgLoad, 120, fields)
	s.sized("attribute of half a log_true_size", abi.ProgLoad, 138, fields)
	s.sized("the attribute of Linux 3.18", abi.ProgLoad, 48, fields)
}

func progLoadFDs(s *script) {
	m, a := s.hashMap("m"), s.arrayMap("a")
	log := func() *buffer { return s.out(4096).text() }
	try := func(name string, insns []byte, more f) {
		fields := f{"log_level": 2, "log_size": 4096, "log_buf": log()}
		for k, v := range more {
			fields[k] = v
		}
		fd := s.load(name, "socket_filter", insns, fields)
		if fd >= 0 {
			s.info("info", fd, abi.Prog, f{"nr_map_ids": 4, "map_ids": s.idList(abi.Map, 4)})
			syscall.Close(fd)
		}
	}
	try("map_fd", useMap(1, int32(m), 0), nil)
	try("map_value", useMap(2, int32(a), 4), nil)
	try("map_value_too_far", useMap(2, int32(a), 8), nil)
	try("map_value_of_hash", useMap(2, int32(m), 0), nil)
	try("closed_fd", useMap(1, 77, 0), nil)
	try("negative_fd", useMap(1, -1, 0), nil)
	try("fd_of_stdout", useMap(1, 1, 0), nil)
	try("fd_of_listener", useMap(1, 1000, 0), nil)
	try("high_half_set", useMap(1, int32(m), 1), nil)
	try("both_maps", prog(ldMap(1, int32(m), 0), ldMap(1, int32(a), 0), movR0(0), exit), nil)
	try("one_map_twice", prog(ldMap(1, int32(m), 0), ldMap(1, int32(m), 0), movR0(0), exit), nil)
	try("half_an_ld_imm64", insn(0x18, 1, 1, 0, int32(m)), nil)
	array := func(fds ...int) []byte {
		var b []byte
		for _, fd := range fds {
			b = append(b, byte(fd), byte(fd>>8), byte(fd>>16), byte(fd>>24))
		}
		return b
	}
	try("map_idx", useMap(5, 1, 0), f{"fd_array": array(77, m)})
	try("map_idx_value", useMap(6, 0, 4), f{"fd_array": array(a)})
	try("map_idx_without_array", useMap(5, 0, 0), nil)
	try("map_idx_negative", useMap(5, -1, 0), f{"fd_array": array(m)})
	try("map_idx_faults", useMap(5, 0, 0), f{"fd_array": 4096})
	try("fd_array_cnt", ret0, f{"fd_array": array(m, a), "fd_array_cnt": 2})
	try("fd_array_cnt_bad", ret0, f{"fd_array": array(m, 77), "fd_array_cnt": 2})
	try("fd_array_cnt_stdout", ret0, f{"fd_array": array(m, 1), "fd_array_cnt": 2})
	try("fd_array_cnt_faults", ret0, f{"fd_array": 4096, "fd_array_cnt": 2})
	try("fd_array_cnt_huge", ret0, f{"fd_array": array(m, a), "fd_array_cnt": 1 << 30})
	try("fd_array_cnt_idx_outside", useMap(5, 2, 0), f{"fd_array": array(m, a, m), "fd_array_cnt": 2})
	try("kfunc_of_no_module", prog(insn(0x85, 0, 2, 1, 1), exit), f{"fd_array": array(0, 77)})
	try("kfunc_of_a_map", prog(insn(0x85, 0, 2, 1, 1), exit), f{"fd_array": array(0, m)})
	try("kfunc_of_kernel", prog(insn(0x85, 0, 2, 0, 1), exit), nil)
	try("btf_id", prog(insn(0x18, 1, 3, 0, 1), insn(0, 0, 0, 0, 0), movR0(0), exit), nil)
	try("btf_id_of_no_module", prog(insn(0x18, 1, 3, 0, 1), insn(0, 0, 0, 0, 77), movR0(0), exit), nil)
	try("btf_id_of_a_map", prog(insn(0x18, 1, 3, 0, 1), insn(0, 0, 0, 0, int32(m)), movR0(0), exit), nil)
}

// simpleBTF has an int (1), a prototype int() (2), a function main of it (3),
// and a void function pointer's worth of strings.
var simpleBTF = func() []byte {
	strs := "\x00int\x00main\x00file.c\x00int main() { return 0; }\x00"
	u32 := func(v ...uint32) (b []byte) {
		for _, x := range v {
			b = append(b, byte(x), byte(x>>8), byte(x>>16), byte(x>>24))
		}
		return b
	}
	types := u32(
		1, 1<<24, 4, 1<<24|32, // BTF_KIND_INT
		0, 13<<24, 1, // BTF_KIND_FUNC_PROTO
		5, 12<<24|1, 2, // BTF_KIND_FUNC, BTF_FUNC_GLOBAL
	)
	head := u32(0x0001eb9f, 24, 0, uint32(len(types)), uint32(len(types)), uint32(len(strs)))
	return slices.Concat(head, types, []byte(strs))
}()

func words(v ...uint32) []byte {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		abi.Put(b, uint32(4*i), 4, uint64(x))
	}
	return b
}

func progLoadBTF(s *script) {
	b := s.must(s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}), "btf")
	try := func(name string, more f) {
		fields := f{"prog_btf_fd": b, "log_level": 2, "log_size": 4096, "log_buf": s.out(4096).text()}
		for k, v := range more {
			fields[k] = v
		}
		fd := s.load(name, "socket_filter", ret0, fields)
		if fd < 0 {
			return
		}
		s.info("lengths", fd, abi.Prog, nil)
		s.info("all", fd, abi.Prog, f{
			"nr_func_info": 1, "func_info_rec_size": 8, "func_info": s.out(8),
			"nr_line_info": 1, "line_info_rec_size": 16, "line_info": s.out(16),
			"nr_prog_tags": 1, "prog_tags": s.out(8), "nr_jited_func_lens": 1, "jited_func_lens": s.out(4),
			"xlated_prog_len": 16, "xlated_prog_insns": s.out(16),
		})
		syscall.Close(fd)
	}
	// With zeros behind them, for counts that are too large.
	funcs, lines := append(words(0, 3), make([]byte, 1<<20)...), append(words(0, 10, 17, 1<<10|1), make([]byte, 1<<20)...)
	try("both", f{"func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 8, "line_info": lines, "line_info_cnt": 1, "line_info_rec_size": 16})
	try("funcs", f{"func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 8})
	try("long_records", f{"func_info": words(0, 3, 0, 0), "func_info_cnt": 1, "func_info_rec_size": 16})
	try("long_records_not_zero", f{"func_info": words(0, 3, 0, 7), "func_info_cnt": 1, "func_info_rec_size": 16})
	try("short_records", f{"func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 4})
	try("huge_records", f{"func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 1 << 20})
	try("too_many", f{"func_info": funcs, "func_info_cnt": 1 << 20, "func_info_rec_size": 8})
	try("too_many_lines", f{"line_info": lines, "line_info_cnt": 1 << 28, "line_info_rec_size": 16})
	try("lines_without_funcs", f{"line_info": lines, "line_info_cnt": 1, "line_info_rec_size": 16})
	try("faulting_funcs", f{"func_info": 4096, "func_info_cnt": 1, "func_info_rec_size": 8})
	try("bad_type", f{"func_info": words(0, 1), "func_info_cnt": 1, "func_info_rec_size": 8})
	try("no_btf", f{"prog_btf_fd": 77, "func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 8})
	try("btf_is_stdout", f{"prog_btf_fd": 1, "func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 8})
	relo := words(0, 1, 1, 0)
	try("core_relo", f{"func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 8, "core_relos": relo, "core_relo_cnt": 1, "core_relo_rec_size": 16})
	try("core_relo_short", f{"core_relos": relo, "core_relo_cnt": 1, "core_relo_rec_size": 8})
	try("core_relo_faults", f{"func_info": funcs, "func_info_cnt": 1, "func_info_rec_size": 8, "core_relos": 4096, "core_relo_cnt": 1, "core_relo_rec_size": 16})
}

func btfLoad(s *script) {
	b := s.must(s.do("good", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}), "btf")
	s.info("info", b, abi.BTF, nil)
	s.info("info with data", b, abi.BTF, f{"btf": s.out(len(simpleBTF)), "btf_size": len(simpleBTF), "name": s.out(16), "name_len": 16})
	s.info("info with less room", b, abi.BTF, f{"btf": s.out(40), "btf_size": 40})
	broken := bytes.Clone(simpleBTF)
	broken[24+4+3] = 31 // a kind that there isn't
	for _, size := range []int{0, 1, 2, 63, 64, 65, 128, 4096, 1 << 20} {
		for _, level := range []int{0, 1, 2} {
			for _, blob := range [][]byte{simpleBTF, broken} {
				s.do(fmt.Sprintf("log size %d, level %d", size, level), abi.BTFLoad,
					f{"btf": blob, "btf_size": len(blob), "btf_log_level": level, "btf_log_size": size, "btf_log_buf": s.out(size + 64).text()})
			}
		}
	}
	s.do("empty", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": 0})
	s.do("short", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": 20})
	s.do("huge", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": 1 << 30})
	s.do("faults", abi.BTFLoad, f{"btf": 4096, "btf_size": 100})
	s.do("ends early", abi.BTFLoad, f{"btf": atEnd(simpleBTF), "btf_size": 1 << 23})
	s.do("NULL", abi.BTFLoad, f{"btf_size": 100})
	s.do("flags", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF), "btf_flags": 1})
	s.do("token", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF), "btf_flags": 1 << 16, "btf_token_fd": 1})
}

func pins(s *script) {
	m, p := s.hashMap("m"), s.filterProg("p")
	dir := s.openFile("/sys/fs/bpf", syscall.O_RDONLY|syscall.O_DIRECTORY)
	s.do("pin map", abi.ObjPin, f{"pathname": "/sys/fs/bpf/m", "bpf_fd": m})
	s.do("pin map again", abi.ObjPin, f{"pathname": "/sys/fs/bpf/m", "bpf_fd": m})
	s.do("pin program", abi.ObjPin, f{"pathname": "/sys/fs/bpf/p", "bpf_fd": p})
	s.do("pin below directory fd", abi.ObjPin, f{"pathname": "below", "bpf_fd": m, "file_flags": 1 << 14, "path_fd": dir})
	s.do("pin below a closed fd", abi.ObjPin, f{"pathname": "x", "bpf_fd": m, "file_flags": 1 << 14, "path_fd": 300})
	s.do("pin below stdout", abi.ObjPin, f{"pathname": "x", "bpf_fd": m, "file_flags": 1 << 14, "path_fd": 1})
	s.do("pin below a map", abi.ObjPin, f{"pathname": "x", "bpf_fd": m, "file_flags": 1 << 14, "path_fd": m})
	s.do("path_fd without flag", abi.ObjPin, f{"pathname": "/sys/fs/bpf/y", "bpf_fd": m, "path_fd": dir})
	if err := os.Chdir("/sys/fs/bpf"); err != nil {
		s.note("chdir: %v", err)
	}
	s.do("relative pin", abi.ObjPin, f{"pathname": "relative", "bpf_fd": m})
	s.do("relative get", abi.ObjGet, f{"pathname": "relative"})
	s.do("pin at path_fd AT_FDCWD", abi.ObjPin, f{"pathname": "cwd", "bpf_fd": m, "file_flags": 1 << 14, "path_fd": uint64(0xffffff9c)})
	os.Mkdir("/sys/fs/bpf/dir", 0o700)
	os.Symlink("dir", "/sys/fs/bpf/link")
	os.Mkdir("/sys/fs/bpf/closed", 0o700)
	os.Chdir("/sys/fs/bpf/closed")
	s.do("pin in a closed working directory", abi.ObjPin, f{"pathname": "x", "bpf_fd": m})
	s.do("pin from a closed working directory", abi.ObjPin, f{"pathname": "/sys/fs/bpf/from-closed", "bpf_fd": m})
	s.do("get from a closed working directory", abi.ObjGet, f{"pathname": "./x"})
	os.Chdir("/sys/fs/bpf")
	s.do("pin through symlink", abi.ObjPin, f{"pathname": "/sys/fs/bpf/link/m", "bpf_fd": m})
	s.do("pin through proc", abi.ObjPin, f{"pathname": "/proc/self/cwd/proc", "bpf_fd": m})
	s.do("pin through an fd", abi.ObjPin, f{"pathname": fmt.Sprintf("/proc/self/fd/%d/fd", dir), "bpf_fd": m})
	s.do("pin with a dot", abi.ObjPin, f{"pathname": "/sys/fs/bpf/a.b", "bpf_fd": m})
	s.do("pin on another file system", abi.ObjPin, f{"pathname": "/tmp/pin", "bpf_fd": m})
	s.do("pin in no directory", abi.ObjPin, f{"pathname": "/sys/fs/bpf/no/pin", "bpf_fd": m})
	s.do("pin stdout", abi.ObjPin, f{"pathname": "/sys/fs/bpf/x", "bpf_fd": 1})
	s.do("pin nothing", abi.ObjPin, f{"pathname": "/sys/fs/bpf/x", "bpf_fd": 77})
	s.do("pin at NULL", abi.ObjPin, f{"bpf_fd": m})
	s.do("pin at a faulting path", abi.ObjPin, f{"pathname": 4096, "bpf_fd": m})
	s.do("pin at an empty path", abi.ObjPin, f{"pathname": "", "bpf_fd": m})
	s.do("pin at a long path", abi.ObjPin, f{"pathname": strings.Repeat("x", 4095), "bpf_fd": m})
	s.do("pin at a long name", abi.ObjPin, f{"pathname": "/sys/fs/bpf/" + strings.Repeat("x", 256), "bpf_fd": m})
	s.do("pin at a too long path", abi.ObjPin, f{"pathname": strings.Repeat("x", 5000), "bpf_fd": m})
	s.do("pin with flags", abi.ObjPin, f{"pathname": "/sys/fs/bpf/x", "bpf_fd": m, "file_flags": 8})

	s.do("get map", abi.ObjGet, f{"pathname": "/sys/fs/bpf/m"})
	ro := s.do("get map to read", abi.ObjGet, f{"pathname": "/sys/fs/bpf/m", "file_flags": 8})
	s.do("update it", 2, f{"map_fd": ro, "key": make([]byte, 4), "value": make([]byte, 8)})
	wo := s.do("get map to write", abi.ObjGet, f{"pathname": "/sys/fs/bpf/m", "file_flags": 16})
	s.do("read it", 1, f{"map_fd": wo, "key": make([]byte, 4), "value": s.out(8)})
	got := s.do("get program", abi.ObjGet, f{"pathname": "/sys/fs/bpf/p"})
	s.info("info", got, abi.Prog, nil)
	s.do("get program to read", abi.ObjGet, f{"pathname": "/sys/fs/bpf/p", "file_flags": 8})
	s.do("get below directory fd", abi.ObjGet, f{"pathname": "below", "file_flags": 1 << 14, "path_fd": dir})
	s.do("get nothing", abi.ObjGet, f{"pathname": "/sys/fs/bpf/nothing"})
	s.do("get a directory", abi.ObjGet, f{"pathname": "/sys/fs/bpf/dir"})
	s.do("get another file", abi.ObjGet, f{"pathname": "/etc/passwd"})
	s.do("get with bpf_fd", abi.ObjGet, f{"pathname": "/sys/fs/bpf/m", "bpf_fd": 1})
	for _, name := range []string{"m", "p", "below", "relative", "cwd", "dir/m", "proc", "fd"} {
		var st syscall.Stat_t
		err := syscall.Lstat("/sys/fs/bpf/"+name, &st)
		s.note("%s: mode %o uid %d gid %d %v", name, st.Mode, st.Uid, st.Gid, err)
	}
	// As another user, without capabilities, in the same namespaces. What all may
	// open isn't open to those who come through a process of root's.
	syscall.Chmod("/sys/fs/bpf/p", 0o666)
	rooted := exec.Command("cat") // ends with us
	if _, err := rooted.StdinPipe(); err != nil || rooted.Start() != nil {
		s.note("cat: %v", err)
	}
	through := fmt.Sprintf("/proc/%d/root/sys/fs/bpf/p", rooted.Process.Pid)
	s.do("get through a process of ours", abi.ObjGet, f{"pathname": through})
	syscall.Chmod("/sys/fs/bpf/m", 0o640)
	syscall.Chmod("/sys/fs/bpf/dir", 0o700)
	for _, e := range []syscall.Errno{rawSet(syscall.SYS_SETRESGID, 7), rawSet(syscall.SYS_SETRESUID, 7)} {
		s.note("become 7: %v", e == 0)
	}
	s.do("as user 7: get program", abi.ObjGet, f{"pathname": "/sys/fs/bpf/p"})
	s.do("as user 7: get through root's process", abi.ObjGet, f{"pathname": through})
	s.do("as user 7: get through init", abi.ObjGet, f{"pathname": "/proc/1/root/sys/fs/bpf/p"})
	s.do("as user 7: get through /proc/self", abi.ObjGet, f{"pathname": "/proc/self/root/sys/fs/bpf/p"})
	s.do("as user 7: get map", abi.ObjGet, f{"pathname": "/sys/fs/bpf/m"})
	s.do("as user 7: pin", abi.ObjPin, f{"pathname": "/sys/fs/bpf/seven", "bpf_fd": m})
	s.do("as user 7: pin in dir", abi.ObjPin, f{"pathname": "/sys/fs/bpf/dir/seven", "bpf_fd": m})
}

// rawSet changes the ids of this thread, the only one that makes calls.
func rawSet(nr, id uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall(nr, id, id, id)
	return e
}

func progAttach(s *script) {
	c := s.cgroup()
	p := s.must(s.load("p", "cgroup_skb", ret1, nil), "program")
	q := s.must(s.load("q", "cgroup_skb", ret1, nil), "program")
	const ingress, multi, replace = 0, 2, 4
	s.do("attach", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": ingress, "attach_flags": multi})
	s.do("attach again", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": ingress, "attach_flags": multi})
	s.do("replace", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": q, "replace_bpf_fd": p, "attach_type": ingress, "attach_flags": multi | replace})
	s.do("replace by nothing", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": q, "replace_bpf_fd": 77, "attach_type": ingress, "attach_flags": multi | replace})
	s.do("detach what isn't there", abi.ProgDetach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": ingress})
	s.do("detach", abi.ProgDetach, f{"target_fd": c, "attach_bpf_fd": q, "attach_type": ingress})
	s.do("attach alone", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": 1})
	s.do("detach any", abi.ProgDetach, f{"target_fd": c, "attach_type": 1})
	s.do("attach to stdout", abi.ProgAttach, f{"target_fd": 1, "attach_bpf_fd": p, "attach_type": ingress})
	s.do("attach to nothing", abi.ProgAttach, f{"target_fd": 77, "attach_bpf_fd": p, "attach_type": ingress})
	s.do("attach to a plain directory", abi.ProgAttach, f{"target_fd": s.openFile("/", syscall.O_RDONLY), "attach_bpf_fd": p, "attach_type": ingress})
	s.do("attach stdout", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": 1, "attach_type": ingress})
	s.do("attach of another type", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": attachType("cgroup_device")})
	dis := s.load("dis", "flow_dissector", ret1, nil)
	s.do("flow dissector", abi.ProgAttach, f{"attach_bpf_fd": dis, "attach_type": attachType("flow_dissector")})
	s.do("off again", abi.ProgDetach, f{"attach_bpf_fd": dis, "attach_type": attachType("flow_dissector")})
	sock := s.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})
	verdict := s.load("verdict", "sk_skb", ret1, f{"expected_attach_type": attachType("sk_skb_verdict")})
	s.do("attach to map", abi.ProgAttach, f{"target_fd": sock, "attach_bpf_fd": verdict, "attach_type": attachType("sk_skb_verdict")})
	s.do("detach from map", abi.ProgDetach, f{"target_fd": sock, "attach_bpf_fd": verdict, "attach_type": attachType("sk_skb_verdict")})
	tcx := s.load("tcx", "sched_cls", ret0, nil)
	const before = 8
	s.do("tcx", abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	other := s.load("tcx2", "sched_cls", ret0, nil)
	s.do("tcx before it", abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": other, "attach_type": attachType("tcx_ingress"), "attach_flags": before, "relative_fd": tcx})
	s.do("tcx, revision", abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": other, "attach_type": attachType("tcx_egress"), "expected_revision": 7})
	s.do("tcx, no interface", abi.ProgAttach, f{"target_ifindex": 99, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	s.do("tcx off", abi.ProgDetach, f{"target_ifindex": 1, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	s.do("tcx off again", abi.ProgDetach, f{"target_ifindex": 1, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	s.do("lirc on a map", abi.ProgAttach, f{"target_fd": sock, "attach_bpf_fd": tcx, "attach_type": attachType("lirc_mode2")})
}

func testRun(s *script) {
	p := s.filterProg("p")
	data := bytes.Repeat([]byte{1}, 64)
	s.do("run", abi.ProgTestRun, f{"prog_fd": p, "data_in": data, "data_size_in": 64})
	s.do("run with too little", abi.ProgTestRun, f{"prog_fd": p, "data_in": data, "data_size_in": 1})
	s.do("no program", abi.ProgTestRun, f{"prog_fd": 1, "data_in": data, "data_size_in": 64})
	s.load("sys", "syscall", ret0, f{"prog_flags": 16})
}

// nextIDs asks only where the answer is an object of the script's own: what else
// there is on the host, root sees and a workload doesn't.
func nextIDs(s *script) {
	m, p := s.hashMap("m"), s.filterProg("p")
	b := s.must(s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}), "btf")
	l := s.rawLink()
	for _, o := range []struct {
		kind abi.Object
		next abi.Command
		fd   int
	}{{abi.Map, abi.MapGetNextID, m}, {abi.Prog, abi.ProgGetNextID, p}, {abi.BTF, abi.BTFGetNextID, b}, {abi.Link, abi.LinkGetNextID, l}} {
		before := f{"start_id": uint64(s.idOf(o.fd, o.kind) - 1)}
		s.do(fmt.Sprint("next ", o.kind), o.next, before)
		for _, size := range []int{4, 7, 8, 9, 128, 4096, 4097} {
			s.sized(fmt.Sprint("attribute of ", size), o.next, size, before)
		}
		s.do("next_id set", o.next, f{"start_id": before["start_id"], "next_id": 77})
		s.do(fmt.Sprint("after the last ", o.kind), o.next, f{"start_id": uint64(1<<31 - 2)})
		s.do(fmt.Sprint("start above all ", o.kind), o.next, f{"start_id": uint64(1 << 31)})
		s.do(fmt.Sprint("start at -1 ", o.kind), o.next, f{"start_id": uint64(0xffffffff)})
	}
}

// idOf is an object's id.
func (s *script) idOf(fd int, kind abi.Object) uint32 {
	l := abi.InfoLayout(kind)
	info := make([]byte, l.Size)
	attr := make([]byte, abi.AttrSize)
	s.put(&abi.RowOf(abi.ObjGetInfoByFD).Layout, attr, f{"bpf_fd": fd, "info_len": len(info), "info": info})
	s.call("id", abi.ObjGetInfoByFD, nil, attr, 16)
	return uint32(l.Field("id").Uint(info))
}

func (s *script) rawLink() int {
	p := s.must(s.load("raw", "raw_tracepoint", ret0, nil), "program")
	return s.must(s.do("raw tracepoint", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": p}), "link")
}

func byIDs(s *script) {
	m, p := s.hashMap("m"), s.filterProg("p")
	b := s.must(s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}), "btf")
	l := s.rawLink()
	for _, o := range []struct {
		kind abi.Object
		get  abi.Command
		id   string
		fd   int
	}{{abi.Map, abi.MapGetFDByID, "map_id", m}, {abi.Prog, abi.ProgGetFDByID, "prog_id", p},
		{abi.BTF, abi.BTFGetFDByID, "btf_id", b}, {abi.Link, abi.LinkGetFDByID, "link_id", l}} {
		fd := s.do(fmt.Sprint("own ", o.kind), o.get, f{o.id: uint64(s.idOf(o.fd, o.kind))})
		s.info("info", fd, o.kind, nil)
		s.do(fmt.Sprint("no ", o.kind), o.get, f{o.id: 1<<31 - 2})
		s.do(fmt.Sprint("none ", o.kind), o.get, f{o.id: 0})
	}
	id := uint64(s.idOf(m, abi.Map))
	ro := s.do("to read", abi.MapGetFDByID, f{"map_id": id, "open_flags": 8})
	s.do("update it", 2, f{"map_fd": ro, "key": make([]byte, 4), "value": make([]byte, 8)})
	s.do("bad flags", abi.MapGetFDByID, f{"map_id": id, "open_flags": 1})
	s.do("both flags", abi.MapGetFDByID, f{"map_id": id, "open_flags": 8 | 16})
	s.do("the kernel's btf", abi.BTFGetFDByID, f{"btf_id": 1})
}

func infos(s *script) {
	m, p := s.hashMap("m"), s.filterProg("p")
	s.info("map", m, abi.Map, nil)
	s.info("prog", p, abi.Prog, nil)
	for _, size := range []int{0, 1, 4, 8, 40, 80, int(abi.MapInfo.Size) + 8, 256, 4096, 4104} {
		s.do(fmt.Sprint("map, size ", size), abi.ObjGetInfoByFD, f{"bpf_fd": m, "info_len": size, "info": s.out(0).sizedZero(size)})
		s.do(fmt.Sprint("prog, size ", size), abi.ObjGetInfoByFD, f{"bpf_fd": p, "info_len": size, "info": s.out(0).sizedZero(size)})
	}
	tail := s.buf(make([]byte, 512))
	tail.data[500], tail.hidden = 1, true
	s.do("map, tail not zero", abi.ObjGetInfoByFD, f{"bpf_fd": m, "info_len": 512, "info": tail})
	garbage := s.buf(bytes.Repeat([]byte{0x41}, int(abi.MapInfo.Size)))
	garbage.ofLayout = &abi.MapInfo
	s.do("map, not cleared", abi.ObjGetInfoByFD, f{"bpf_fd": m, "info_len": len(garbage.data), "info": garbage})
	s.do("NULL", abi.ObjGetInfoByFD, f{"bpf_fd": m, "info_len": 80})
	s.do("faults", abi.ObjGetInfoByFD, f{"bpf_fd": m, "info_len": 80, "info": 4096})
	s.do("stdout", abi.ObjGetInfoByFD, f{"bpf_fd": 1, "info_len": 80, "info": s.out(80)})
	s.do("nothing", abi.ObjGetInfoByFD, f{"bpf_fd": 77, "info_len": 80, "info": s.out(80)})
	s.info("map with hash", m, abi.Map, f{"hash": s.out(32), "hash_size": 32})
	s.info("map with short hash", m, abi.Map, f{"hash": s.out(32), "hash_size": 16})

	tr := s.must(s.load("tracing", "raw_tracepoint", useMap(1, int32(m), 0), nil), "program")
	s.info("instructions", tr, abi.Prog, f{"xlated_prog_len": 32, "xlated_prog_insns": s.xlated(32), "nr_map_ids": 2, "map_ids": s.idList(abi.Map, 2)})
	s.info("fewer instructions", tr, abi.Prog, f{"xlated_prog_len": 16, "xlated_prog_insns": s.xlated(32)})
	s.info("instructions fault", tr, abi.Prog, f{"xlated_prog_len": 32, "xlated_prog_insns": 4096})
	s.info("instructions NULL", tr, abi.Prog, f{"xlated_prog_len": 32})
	s.info("map ids fault", tr, abi.Prog, f{"nr_map_ids": 2, "map_ids": 4096})
	s.info("a huge length", tr, abi.Prog, f{"xlated_prog_len": uint64(0xffffffff), "xlated_prog_insns": s.xlated(32)})
	jited := s.out(4096)
	jited.show = func(p []byte) string { return fmt.Sprint("changed ", len(bytes.TrimRight(p, "\xa5")), " bytes") }
	s.info("jited", p, abi.Prog, f{"jited_prog_len": 4096, "jited_prog_insns": jited})
	ksyms := s.out(8)
	ksyms.show = func(p []byte) string { return fmt.Sprint("in the kernel: ", abi.Uint(p, 0, 8)>>47 == 0x1ffff) }
	s.info("ksyms", p, abi.Prog, f{"nr_jited_ksyms": 1, "jited_ksyms": ksyms})

	link := s.rawLink()
	s.info("raw tracepoint", link, abi.Link, nil)
	s.info("its name", link, abi.Link, f{"raw_tracepoint.tp_name": s.out(32).text(), "raw_tracepoint.tp_name_len": 32})
	s.info("its name, no room", link, abi.Link, f{"raw_tracepoint.tp_name": s.out(32).text(), "raw_tracepoint.tp_name_len": 4})
	s.info("its name, no length", link, abi.Link, f{"raw_tracepoint.tp_name": s.out(32).text()})
	s.info("its name faults", link, abi.Link, f{"raw_tracepoint.tp_name": 4096, "raw_tracepoint.tp_name_len": 32})
}

// sizedZero makes a buffer of n zero bytes.
func (b *buffer) sizedZero(n int) *buffer {
	b.data = make([]byte, n, n+1)
	b.show = func(p []byte) string { return fmt.Sprint(len(bytes.TrimRight(p, "\x00")) > 0) }
	return b
}

// xlated shows instructions with the ids of maps as ids.
func (s *script) xlated(n int) *buffer {
	b := s.out(n)
	b.show = func(p []byte) string {
		var out []string
		for o := 0; o+8 <= len(p); o += 8 {
			if p[o] == 0x18 && p[o+1]>>4 == 1 {
				out = append(out, fmt.Sprintf("%x %s", p[o:o+4], s.id(abi.Map, uint32(abi.Uint(p, uint32(o+4), 4)))))
			} else {
				out = append(out, fmt.Sprintf("%x", p[o:o+8]))
			}
		}
		return strings.Join(out, ", ")
	}
	return b
}

func progQuery(s *script) {
	c := s.cgroup()
	p := s.must(s.load("p", "cgroup_skb", ret1, nil), "program")
	q := s.must(s.load("q", "cgroup_skb", ret1, nil), "program")
	s.do("empty", abi.ProgQuery, f{"target_fd": c})
	for _, fd := range []int{p, q} {
		s.do("attach", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": fd, "attach_type": 0, "attach_flags": 2})
	}
	s.do("count", abi.ProgQuery, f{"target_fd": c})
	s.do("ids", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 8})
	s.do("ids and flags", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 8, "prog_attach_flags": s.out(32)})
	s.do("no room", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 1})
	s.do("faults", abi.ProgQuery, f{"target_fd": c, "prog_ids": 4096, "count": 8})
	s.do("huge count", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": uint64(0xffffffff)})
	s.do("effective", abi.ProgQuery, f{"target_fd": c, "query_flags": 1, "prog_ids": s.idList(abi.Prog, 8), "count": 8})
	s.do("bad flags", abi.ProgQuery, f{"target_fd": c, "query_flags": 2})
	s.do("of stdout", abi.ProgQuery, f{"target_fd": 1})
	s.sized("short attribute", abi.ProgQuery, 28, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 8})
	tcx := s.load("tcx", "sched_cls", ret0, nil)
	link := s.do("tcx link", abi.LinkCreate, f{"prog_fd": tcx, "target_ifindex": 1, "attach_type": attachType("tcx_ingress")})
	query := f{"target_ifindex": 1, "attach_type": attachType("tcx_ingress")}
	s.do("tcx count", abi.ProgQuery, query)
	query["count"], query["prog_ids"], query["link_ids"] = 4, s.idList(abi.Prog, 4), s.idList(abi.Link, 4)
	query["prog_attach_flags"], query["link_attach_flags"] = s.out(16), s.out(16)
	s.do("tcx", abi.ProgQuery, query)
	s.do("tcx, no interface", abi.ProgQuery, f{"target_ifindex": 99, "attach_type": attachType("tcx_ingress")})
	syscall.Close(link)
	ns := s.openFile("/proc/self/ns/net", syscall.O_RDONLY)
	s.do("flow dissector", abi.ProgQuery, f{"target_fd": ns, "attach_type": attachType("flow_dissector")})
	s.do("sk_lookup", abi.ProgQuery, f{"target_fd": ns, "attach_type": attachType("sk_lookup"), "count": 4, "prog_ids": s.idList(abi.Prog, 4)})
}

func rawTracepoint(s *script) {
	p := s.must(s.load("p", "raw_tracepoint", ret0, nil), "program")
	s.do("open", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": p})
	s.do("open with cookie", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": p, "cookie": uint64(0x1122334455667788)})
	s.do("no such tracepoint", abi.RawTPOpen, f{"name": "no_such_thing", "prog_fd": p})
	s.do("long name", abi.RawTPOpen, f{"name": strings.Repeat("x", 200), "prog_fd": p})
	s.do("no name", abi.RawTPOpen, f{"prog_fd": p})
	s.do("faulting name", abi.RawTPOpen, f{"name": 4096, "prog_fd": p})
	s.do("stdout", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": 1})
	s.do("nothing", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": 77})
	s.do("of another type", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": s.filterProg("f")})
	if id := s.kernelType("btf_trace_sys_enter", (*btf.Typedef)(nil)); id != 0 {
		tp := s.load("tp", "tracing", ret0, f{"expected_attach_type": attachType("trace_raw_tp"), "attach_btf_id": id})
		s.do("by btf", abi.RawTPOpen, f{"prog_fd": tp})
		s.do("by btf, with name", abi.RawTPOpen, f{"prog_fd": tp, "name": "sys_enter"})
	}
}

// kernelType is the id of a type of the kernel's BTF.
func (s *script) kernelType(name string, want btf.Type) int {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		s.note("kernel BTF: %v", err)
		return 0
	}
	types, err := spec.AnyTypesByName(name)
	if err != nil {
		s.note("kernel type %s: %v", name, err)
		return 0
	}
	for _, t := range types {
		if fmt.Sprintf("%T", t) == fmt.Sprintf("%T", want) {
			id, err := spec.TypeID(t)
			if err == nil {
				return int(id)
			}
		}
	}
	s.note("kernel type %s: none fits", name)
	return 0
}

func taskFDQuery(s *script) {
	l := s.rawLink()
	own := os.Getpid()
	s.do("own link", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": s.out(64).text(), "buf_len": 64})
	s.do("without buffer", abi.TaskFDQuery, f{"pid": own, "fd": l})
	s.do("no room", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": s.out(64).text(), "buf_len": 4})
	s.do("faults", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": 4096, "buf_len": 64})
	s.do("huge length", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": s.out(64).text(), "buf_len": 1 << 30})
	s.do("stdout", abi.TaskFDQuery, f{"pid": own, "fd": 1, "buf": s.out(64).text(), "buf_len": 64})
	s.do("nothing", abi.TaskFDQuery, f{"pid": own, "fd": 77, "buf": s.out(64).text(), "buf_len": 64})
	s.do("nobody", abi.TaskFDQuery, f{"pid": 4194303, "fd": l})
	s.do("pid 0", abi.TaskFDQuery, f{"pid": 0, "fd": l})
	s.do("flags", abi.TaskFDQuery, f{"pid": own, "fd": l, "flags": 1})
}

func linkCreate(s *script) {
	create := func(label string, prog int, attach string, kind string, more f) int {
		fields := f{"prog_fd": prog, "attach_type": attachType(attach)}
		for k, v := range more {
			fields[k] = v
		}
		l := s.do(label, abi.LinkCreate, fields)
		if l >= 0 {
			s.info("info of "+label, l, abi.Link, nil)
		}
		return l
	}
	c := s.cgroup()
	skb := s.load("skb", "cgroup_skb", ret1, nil)
	first := create("cgroup", skb, "cgroup_inet_egress", "cgroup", f{"target_fd": c})
	create("cgroup, before", s.load("skb2", "cgroup_skb", ret1, nil), "cgroup_inet_egress", "", f{"target_fd": c, "flags": 8 | 1<<13, "cgroup.relative_fd": first})
	create("cgroup, no fd", skb, "cgroup_inet_egress", "", f{"target_fd": 77})
	create("cgroup, a map", skb, "cgroup_inet_egress", "", f{"target_fd": s.hashMap("m")})
	xdp := s.load("xdp", "xdp", prog(movR0(2), exit), nil)
	x := create("xdp on lo", xdp, "xdp", "xdp", f{"target_ifindex": 1, "flags": 2})
	create("xdp twice", xdp, "xdp", "xdp", f{"target_ifindex": 1, "flags": 2})
	create("xdp on nothing", xdp, "xdp", "xdp", f{"target_ifindex": 99})
	syscall.Close(x)
	if i, err := net.InterfaceByName("lo"); err != nil || i.Index != 1 {
		s.note("lo: %v", err)
	}
	cls := s.load("cls", "sched_cls", ret0, nil)
	tcx := create("tcx", cls, "tcx_egress", "tcx", f{"target_ifindex": 1})
	create("tcx, relative", s.load("cls2", "sched_cls", ret0, nil), "tcx_egress", "", f{"target_ifindex": 1, "flags": 16 | 1<<13, "tcx.relative_fd": tcx})
	create("tcx, relative id", s.load("cls3", "sched_cls", ret0, nil), "tcx_egress", "", f{"target_ifindex": 1, "flags": 16 | 1<<13 | 1<<5, "tcx.relative_id": uint64(s.idOf(tcx, abi.Link))})
	create("netkit on lo", cls, "netkit_primary", "", f{"target_ifindex": 1})
	nf := s.load("nf", "netfilter", ret1, f{"expected_attach_type": attachType("netfilter")})
	create("netfilter", nf, "netfilter", "netfilter", f{"netfilter.pf": 2, "netfilter.hooknum": 1, "netfilter.priority": uint64(0xfffffff6)})
	create("netfilter, bad hook", nf, "netfilter", "", f{"netfilter.pf": 2, "netfilter.hooknum": 77})
	ns := s.openFile("/proc/self/ns/net", syscall.O_RDONLY)
	look := s.load("look", "sk_lookup", ret1, f{"expected_attach_type": attachType("sk_lookup")})
	create("sk_lookup", look, "sk_lookup", "netns", f{"target_fd": ns})
	create("sk_lookup on a cgroup", look, "sk_lookup", "netns", f{"target_fd": c})
	if id := s.kernelType("btf_trace_sys_enter", (*btf.Typedef)(nil)); id != 0 {
		tp := s.load("tp", "tracing", ret0, f{"expected_attach_type": attachType("trace_raw_tp"), "attach_btf_id": id})
		create("tp_btf", tp, "trace_raw_tp", "tracing", f{"tracing.cookie": 99})
	}
	up := s.load("up", "kprobe", ret0, f{"expected_attach_type": attachType("trace_uprobe_multi")})
	exe := fmt.Sprintf("/proc/%d/exe", os.Getpid())
	offsets := []byte{0x40, 0x12, 0, 0, 0, 0, 0, 0, 0x80, 0x12, 0, 0, 0, 0, 0, 0}
	multi := func(label string, more f) {
		fields := f{"uprobe_multi.path": "/bin/true", "uprobe_multi.offsets": offsets, "uprobe_multi.cnt": 2}
		for k, v := range more {
			fields[k] = v
		}
		l := create(label, up, "trace_uprobe_multi", "uprobe_multi", fields)
		if l < 0 {
			return
		}
		s.info("all of "+label, l, abi.Link, f{
			"uprobe_multi.path": s.out(64).text(), "uprobe_multi.path_size": 64, "uprobe_multi.count": 2,
			"uprobe_multi.offsets": s.out(16), "uprobe_multi.cookies": s.out(16), "uprobe_multi.ref_ctr_offsets": s.out(16)})
		syscall.Close(l)
	}
	multi("uprobe_multi", nil)
	multi("uprobe_multi with cookies", f{"uprobe_multi.cookies": offsets})
	multi("uprobe_multi for this process", f{"uprobe_multi.pid": os.Getpid()})
	multi("uprobe_multi for nobody", f{"uprobe_multi.pid": 4194303})
	multi("uprobe_multi through proc", f{"uprobe_multi.path": exe})
	multi("uprobe_multi, no file", f{"uprobe_multi.path": "/no/such/file"})
	multi("uprobe_multi, a directory", f{"uprobe_multi.path": "/bin"})
	multi("uprobe_multi, no path", f{"uprobe_multi.path": 0})
	multi("uprobe_multi, path faults", f{"uprobe_multi.path": 4096})
	multi("uprobe_multi, offsets fault", f{"uprobe_multi.offsets": 4096})
	multi("uprobe_multi, too many", f{"uprobe_multi.cnt": 1 << 21})
	multi("uprobe_multi, none", f{"uprobe_multi.cnt": 0})
	multi("uprobe_multi, flags", f{"uprobe_multi.flags": 1})
	multi("uprobe_multi, bad flags", f{"uprobe_multi.flags": 2})
	kp := s.load("kp", "kprobe", ret0, f{"expected_attach_type": attachType("trace_kprobe_multi")})
	syms := s.pointers("vfs_read", "vfs_write")
	create("kprobe_multi", kp, "trace_kprobe_multi", "kprobe_multi", f{"kprobe_multi.syms": syms, "kprobe_multi.cnt": 2})
	create("kprobe_multi, no symbol", kp, "trace_kprobe_multi", "", f{"kprobe_multi.syms": s.pointers("no_such_symbol"), "kprobe_multi.cnt": 1})
	create("kprobe_multi, long symbol", kp, "trace_kprobe_multi", "", f{"kprobe_multi.syms": s.pointers(strings.Repeat("x", 600)), "kprobe_multi.cnt": 1})
	create("kprobe_multi, faults", kp, "trace_kprobe_multi", "", f{"kprobe_multi.syms": make([]byte, 8), "kprobe_multi.cnt": 1})
	create("perf event on a map", s.load("pe", "perf_event", ret0, nil), "perf_event", "", f{"target_fd": s.hashMap("m2")})
	create("struct_ops of a hash", s.hashMap("m3"), "struct_ops", "", nil)
	sock := s.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})
	verdict := s.load("verdict", "sk_skb", ret1, f{"expected_attach_type": attachType("sk_skb_verdict")})
	create("sockmap link", verdict, "sk_skb_verdict", "sockmap", f{"target_fd": sock})
	create("program is stdout", 1, "cgroup_inet_egress", "", f{"target_fd": c})
	create("program is nothing", 77, "cgroup_inet_egress", "", f{"target_fd": c})
}

// pointers is an array of pointers to strings.
func (s *script) pointers(texts ...string) []byte {
	l := &abi.RowOf(abi.RawTPOpen).Layout // its name is a pointer at offset 0
	var out []byte
	for _, t := range texts {
		one := make([]byte, abi.AttrSize)
		s.put(l, one, f{"name": t})
		out = append(out, one[:8]...)
	}
	return out
}

func linkUpdate(s *script) {
	c := s.cgroup()
	p := s.must(s.load("p", "cgroup_skb", ret1, nil), "program")
	q := s.must(s.load("q", "cgroup_skb", ret1, nil), "program")
	l := s.must(s.do("link", abi.LinkCreate, f{"prog_fd": p, "target_fd": c, "attach_type": 0}), "link")
	s.do("update", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": q})
	s.do("update, the old one is another", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": p, "old_prog_fd": p, "flags": 4})
	s.do("update, the old one given", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": p, "old_prog_fd": q, "flags": 4})
	s.do("old without flag", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": p, "old_prog_fd": q})
	s.do("update by nothing", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": 77})
	s.do("update by stdout", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": 1})
	s.do("update stdout", abi.LinkUpdate, f{"link_fd": 1, "new_prog_fd": p})
	s.do("update a program", abi.LinkUpdate, f{"link_fd": p, "new_prog_fd": q})
	s.do("bad flags", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": q, "flags": 1})
	s.info("info", l, abi.Link, nil)
	s.do("detach", abi.LinkDetach, f{"link_fd": l})
	s.do("detach again", abi.LinkDetach, f{"link_fd": l})
	s.info("info after", l, abi.Link, nil)
	s.do("update after", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": q})
	s.do("detach stdout", abi.LinkDetach, f{"link_fd": 1})
	s.do("detach raw tracepoint", abi.LinkDetach, f{"link_fd": s.rawLink()})
}

func enableStats(s *script) {
	fd := s.do("run time", abi.EnableStats, f{"type": 0})
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	s.note("%s %v", link, err)
	s.do("another", abi.EnableStats, f{"type": 1})
}

func iterCreate(s *script) {
	m := s.hashMap("m")
	s.do("update", 2, f{"map_fd": m, "key": []byte{1, 0, 0, 0}, "value": []byte("12345678")})
	iter := func(target string) int {
		id := s.kernelType("bpf_iter_"+target, (*btf.Func)(nil))
		return s.load("iter", "tracing", ret0, f{"expected_attach_type": attachType("trace_iter"), "attach_btf_id": id})
	}
	link := func(label string, p int, info []byte) {
		fields := f{"prog_fd": p, "attach_type": attachType("trace_iter")}
		if info != nil {
			fields["iter_info"], fields["iter_info_len"] = info, len(info)
		}
		l := s.do(label, abi.LinkCreate, fields)
		if l < 0 {
			return
		}
		s.info("info", l, abi.Link, f{"iter.target_name": s.out(16).text(), "iter.target_name_len": 16})
		it := s.do("iterator", abi.IterCreate, f{"link_fd": l})
		n, err := syscall.Read(it, make([]byte, 64))
		s.note("read: %d %v", n, err)
	}
	elems := iter("bpf_map_elem")
	link("map elements", elems, words(uint32(m)))
	link("map elements, more bytes", elems, words(uint32(m), 0, 0, 0))
	link("map elements of nothing", elems, words(77))
	link("map elements of stdout", elems, words(1))
	link("map elements without a map", elems, nil)
	tasks := iter("task")
	own := uint32(os.Getpid())
	link("tasks", tasks, nil)
	link("one task", tasks, words(own, 0, 0, 0))
	link("one process", tasks, words(0, own, 0, 0))
	link("two", tasks, words(own, own, 0, 0))
	r, _, e := syscall.RawSyscall(434, uintptr(own), 0, 0) // pidfd_open
	s.note("pidfd: %v", e == 0)
	link("by pidfd", tasks, words(0, 0, uint32(r), 0))
	link("by no pidfd", tasks, words(0, 0, 77, 0))
	for size := 8; size < 12; size++ { // the number of an fd given in part
		link(fmt.Sprint("by part of a pidfd, ", size), tasks, words(0, 0, 1002)[:size])
	}
	link("too long", tasks, bytes.Repeat([]byte{0}, 64))
	link("too long, not zero", tasks, bytes.Repeat([]byte{1}, 64))
	link("huge", tasks, make([]byte, 5000))
	cg := iter("cgroup")
	link("cgroups", cg, words(1, uint32(s.cgroup()), 0, 0))
	link("cgroups of the namespace", cg, words(1, 0, 0, 0))
	link("cgroups without order", cg, words(0, uint32(s.cgroup()), 0, 0))
	link("cgroups of stdout", cg, words(1, 1, 0, 0))
	s.do("no link", abi.IterCreate, f{"link_fd": m})
}

func bindMap(s *script) {
	m, p := s.hashMap("m"), s.filterProg("p")
	s.do("bind", abi.ProgBindMap, f{"prog_fd": p, "map_fd": m})
	s.do("again", abi.ProgBindMap, f{"prog_fd": p, "map_fd": m})
	s.do("flags", abi.ProgBindMap, f{"prog_fd": p, "map_fd": m, "flags": 1})
	s.do("stdout", abi.ProgBindMap, f{"prog_fd": p, "map_fd": 1})
	s.info("info", p, abi.Prog, f{"nr_map_ids": 4, "map_ids": s.idList(abi.Map, 4)})
}

func tokenCreate(s *script) {
	dir := s.openFile("/sys/fs/bpf", syscall.O_RDONLY|syscall.O_DIRECTORY)
	// Not tried: a bpffs that delegates nothing. Root is in the initial user
	// namespace, where there are no tokens at all (EOPNOTSUPP).
	s.do("of another directory", abi.TokenCreate, f{"bpffs_fd": s.openFile("/", syscall.O_RDONLY)})
	s.do("of stdout", abi.TokenCreate, f{"bpffs_fd": 1})
	s.do("of a map", abi.TokenCreate, f{"bpffs_fd": s.hashMap("m")})
	s.do("of nothing", abi.TokenCreate, f{"bpffs_fd": 77})
	s.do("flags", abi.TokenCreate, f{"bpffs_fd": dir, "flags": 1})
}

func streamRead(s *script) {
	p := s.filterProg("p")
	for stream := range 4 {
		s.do(fmt.Sprint("stream ", stream), abi.ProgStreamRead, f{"stream_buf": s.out(16), "stream_buf_len": 16, "stream_id": stream, "prog_fd": p})
	}
	s.do("no program", abi.ProgStreamRead, f{"stream_buf": s.out(16), "stream_buf_len": 16, "stream_id": 1, "prog_fd": 1})
}

// perf makes a perf_event_open() call with an attribute of size bytes, which is
// also what its field size says, and args pid, cpu, group_fd, flags.
func (s *script) perf(label string, size int, fields f, pid, cpu, group int, flags uint64) int {
	attr := make([]byte, 8192)
	s.put(&abi.PerfEventOpen.Layout, attr, f{"size": size})
	s.put(&abi.PerfEventOpen.Layout, attr, fields)
	before := bytes.Clone(attr)
	fd, e := sys.PerfEventOpen(attr, pid, cpu, group, flags)
	runtime.KeepAlive(s.keep)
	s.bufs = nil
	if e != 0 {
		s.note("%s: %s", label, errnoName(e))
		fd = -1
	} else {
		fl, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		n, err := syscall.Read(fd, make([]byte, 256))
		s.note("%s: %d, fd flags %d, read %d %v", label, fd, fl, n, err)
	}
	for i := range attr {
		if attr[i] != before[i] {
			s.note("    byte %d = %#x", i, attr[i])
		}
	}
	return fd
}

func perfEventOpen(s *script) {
	const all, anyCPU, none, software, tracepoint, breakpoint = -1, -1, -1, 1, 2, 5
	const excludeKernel = 1 << 5
	clock := f{"type": software, "config": 0}
	for _, size := range []int{0, 1, 8, 63, 64, 65, 72, 80, 96, 104, 112, 120, 128, 135, 136, 137, 144, 1000, 4096, 4097, 1 << 30} {
		s.perf(fmt.Sprint("size ", size), size, clock, 0, anyCPU, none, 0)
	}
	for _, at := range []int{64, 100, 128, 136, 144, 199} {
		attr := make([]byte, 4096)
		s.put(&abi.PerfEventOpen.Layout, attr, f{"type": software, "size": 200})
		attr[at] = 0xff
		fd, e := sys.PerfEventOpen(attr, 0, anyCPU, none, 0)
		s.note("byte %d set: %d %v, size then %d", at, fd, e, abi.Uint(attr, 4, 4))
	}
	end := atEnd(make([]byte, 64))
	s.put(&abi.PerfEventOpen.Layout, end, f{"type": software, "size": 64})
	fd, e := sys.PerfEventOpen(end, 0, anyCPU, none, 0)
	s.note("at the end of memory: %d %v", fd, e)
	s.put(&abi.PerfEventOpen.Layout, end, f{"size": 72})
	fd, e = sys.PerfEventOpen(end, 0, anyCPU, none, 0)
	s.note("beyond the end of memory: %d %v", fd, e)

	for _, flags := range []uint64{0, 16, 1 << 40} {
		fd, e := sys.PerfEventOpen(nil, 0, anyCPU, none, flags)
		s.note("no attribute, flags %#x: %d %v", flags, fd, e)
	}

	own := os.Getpid()
	s.perf("own process", 112, clock, own, anyCPU, none, 0)
	s.perf("nobody", 112, clock, 4194303, anyCPU, none, 0)
	s.perf("negative pid", 112, clock, -5, anyCPU, none, 0)
	s.perf("a CPU", 112, f{"type": software, "config": 10, "sample_type": 1024}, all, 0, none, 8)
	s.perf("no such CPU", 112, clock, all, 1<<20, none, 0)
	s.perf("no process and no CPU", 112, clock, all, anyCPU, none, 0)
	leader := s.perf("leader", 112, clock, 0, anyCPU, none, 8)
	s.perf("in its group", 112, clock, 0, anyCPU, leader, 8)
	s.perf("in a map's group", 112, clock, 0, anyCPU, s.hashMap("m"), 0)
	s.perf("in nobody's group", 112, clock, 0, anyCPU, 77, 0)
	for _, flags := range []uint64{1, 2, 4, 8, 16, 1 << 40, 1<<64 - 1} {
		s.perf(fmt.Sprintf("flags %#x", flags), 112, clock, 0, anyCPU, none, flags)
	}
	cg := s.cgroup()
	s.perf("a cgroup", 112, clock, cg, 0, none, 4)
	s.perf("a cgroup that is stdout", 112, clock, 1, 0, none, 4)
	s.perf("a cgroup that is closed", 112, clock, 77, 0, none, 4)
	for typ := range 12 {
		s.perf(fmt.Sprint("type ", typ), 112, f{"type": typ, "config": 1, "bits": excludeKernel}, 0, anyCPU, none, 0)
	}
	s.perf("type that there isn't", 112, f{"type": 1 << 20}, 0, anyCPU, none, 0)
	s.perf("breakpoint", 112, f{"type": breakpoint, "bp_type": 1, "config1": uint64(0x1000), "config2": 4, "bits": excludeKernel}, 0, anyCPU, none, 0)
	s.perf("tracepoint that there isn't", 112, f{"type": tracepoint, "config": uint64(1 << 30)}, all, 0, none, 0)
	s.perf("a reserved field", 112, f{"type": software, "reserved_2": 1}, 0, anyCPU, none, 0)

	uprobe, ok := sys.EventType("uprobe")
	s.note("uprobes: %v", ok)
	for _, path := range []any{"/bin/true", "/no/such/file", "/bin", "", "/proc/self/exe", strings.Repeat("x", 5000), 4096, 0} {
		s.perf(fmt.Sprint("uprobe ", path), 112, f{"type": int(uprobe), "uprobe_path": path, "config2": 0x1240}, 0, anyCPU, none, 8)
		s.perf(fmt.Sprint("uretprobe ", path), 112, f{"type": int(uprobe), "config": 1, "uprobe_path": path, "config2": 0x1240}, all, 0, none, 8)
	}
	up := s.perf("uprobe for a link", 112, f{"type": int(uprobe), "uprobe_path": "/bin/true", "config2": 0x1240}, all, 0, none, 8)
	p := s.load("p", "kprobe", ret0, nil)
	s.do("link", abi.LinkCreate, f{"prog_fd": p, "target_fd": up, "attach_type": attachType("perf_event"), "perf_event.bpf_cookie": 7})
	// Not compared: the link's info has the path that the kernel was given, which
	// is the broker's.
	if kprobe, ok := sys.EventType("kprobe"); ok {
		for _, sym := range []any{"vfs_read", "no_such_symbol", "", 4096, 0} {
			s.perf(fmt.Sprint("kprobe ", sym), 112, f{"type": int(kprobe), "kprobe_func": sym}, all, 0, none, 8)
		}
	}
}
