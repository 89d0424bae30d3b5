package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/bpfbroker/bpfbroker/abi"
)

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
