package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/bpfbroker/bpfbroker/abi"
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
		"perf_event_set_bpf":     perfEventIoctl, "perf_event_query_bpf": perfEventIoctl,
		"sizes":      attributeSizes,
		"unknown":    unknownCommands,
		"host_admin": hostAdmin,
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

const zeroSeedBit = 6 // BPF_F_ZERO_SEED

// hostAdmin does what takes capabilities of the initial user namespace that no
// token replaces, and isn't left to the daemon: only a capability worker can.
func hostAdmin(s *script) {
	base := f{"map_type": mapType("hash"), "key_size": 4, "value_size": 4, "max_entries": 8}
	with := func(name string, v uint64) f {
		m := maps.Clone(base)
		m[name] = v
		return m
	}
	s.do("zero seed", abi.MapCreate, with("map_flags", 1<<zeroSeedBit))
	s.do("map for no such interface", abi.MapCreate, with("map_ifindex", 99))
	s.do("map for interface lo", abi.MapCreate, with("map_ifindex", 1))
	s.load("ifindex", "xdp", ret0, f{"prog_ifindex": 1})
	s.load("ifindex_dev_bound", "xdp", ret0, f{"prog_ifindex": 1, "prog_flags": 1 << 6})
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
		if bit == zeroSeedBit {
			continue // see hostAdmin
		}
		s.do(fmt.Sprintf("flag bit %d", bit), abi.MapCreate, base(f{"map_flags": uint64(1) << bit}))
	}
	s.do("numa node", abi.MapCreate, base(f{"map_flags": 4, "numa_node": 0}))
	s.do("no such numa node", abi.MapCreate, base(f{"map_flags": 4, "numa_node": 1000}))
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
		s.do("next_id set", o.next, f{"start_id": before["start_id"], "next_id": 1<<30 + 7}) // which is none's
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

func enableStats(s *script) {
	fd := s.do("run time", abi.EnableStats, f{"type": 0})
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	s.note("%s %v", link, err)
	s.do("another", abi.EnableStats, f{"type": 1})
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
