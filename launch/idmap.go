package launch

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// IDMap maps a range of ids in the workload's user namespace to ids outside:
// one line of /proc/PID/uid_map (user_namespaces(7)).
type IDMap struct {
	Inside, Outside, Size uint32
}

// String is the range in the syntax of ParseIDMap.
func (m IDMap) String() string { return fmt.Sprintf("%d:%d:%d", m.Inside, m.Outside, m.Size) }

// defaultMap serves where /etc/subuid says nothing for root.
var defaultMap = []IDMap{{Inside: 0, Outside: 100000, Size: 65536}}

// maxIDMaps is UID_GID_MAP_MAX_EXTENTS of include/linux/user_namespace.h.
const maxIDMaps = 340

// ParseIDMap reads "INSIDE:OUTSIDE:SIZE[,…]", as "0:100000:65536". What it
// returns is usable: ranges don't overlap on either side, 0 is mapped inside,
// and 0 is not mapped outside.
func ParseIDMap(s string) ([]IDMap, error) {
	var maps []IDMap
	for part := range strings.SplitSeq(s, ",") {
		fields := strings.Split(part, ":")
		if len(fields) != 3 {
			return nil, fmt.Errorf("id map %q: range %q isn't INSIDE:OUTSIDE:SIZE, as 0:100000:65536", s, part)
		}
		var n [3]uint32
		for i, f := range fields {
			v, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("id map %q: %q in range %q isn't a number from 0 to 4294967295", s, f, part)
			}
			n[i] = uint32(v)
		}
		maps = append(maps, IDMap{n[0], n[1], n[2]})
	}
	if err := checkIDMap(maps); err != nil {
		return nil, fmt.Errorf("id map %q: %w", s, err)
	}
	return maps, nil
}

func checkIDMap(maps []IDMap) error {
	if len(maps) == 0 {
		return fmt.Errorf("it is empty")
	}
	if len(maps) > maxIDMaps {
		return fmt.Errorf("%d ranges, the kernel takes %d", len(maps), maxIDMaps)
	}
	root := false
	for i, m := range maps {
		switch {
		case m.Size == 0:
			return fmt.Errorf("range %v is empty", m)
		case uint64(m.Inside)+uint64(m.Size) > 1<<32-1 || uint64(m.Outside)+uint64(m.Size) > 1<<32-1:
			return fmt.Errorf("range %v goes beyond the last id, 4294967294", m)
		case m.Outside == 0:
			return fmt.Errorf("range %v maps the host's id 0: the workload would own what the host's root owns", m)
		}
		root = root || m.Inside == 0
		for _, o := range maps[:i] {
			if overlap(m.Inside, o.Inside, m.Size, o.Size) || overlap(m.Outside, o.Outside, m.Size, o.Size) {
				return fmt.Errorf("ranges %v and %v overlap", o, m)
			}
		}
	}
	if !root {
		return fmt.Errorf("no range maps id 0: the workload's root")
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// subordinateMap returns what a file like /etc/subuid grants to root, as ids from
// 0 on inside (subuid(5)); the default where it grants nothing.
func subordinateMap(path string) ([]IDMap, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return defaultMap, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read id ranges: %w", err)
	}
	defer f.Close()
	var maps []IDMap
	var next uint32
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if fields[0] != "root" && fields[0] != "0" {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s:%d: %q isn't USER:FIRST:COUNT", path, n, lines.Text())
		}
		first, err1 := strconv.ParseUint(fields[1], 10, 32)
		size, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%s:%d: %q isn't USER:FIRST:COUNT", path, n, lines.Text())
		}
		maps = append(maps, IDMap{next, uint32(first), uint32(size)})
		next += uint32(size)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read id ranges: %w", err)
	}
	if len(maps) == 0 {
		return defaultMap, nil
	}
	if err := checkIDMap(maps); err != nil {
		return nil, fmt.Errorf("%s, root's ranges: %w; or give --user-map", path, err)
	}
	return maps, nil
}

// idMaps is what Start uses: given maps, or root's subordinate ids.
func idMaps(users, groups []IDMap) (uids, gids []IDMap, err error) {
	switch {
	case users == nil:
		if users, err = subordinateMap("/etc/subuid"); err != nil {
			return nil, nil, err
		}
		if groups == nil {
			if groups, err = subordinateMap("/etc/subgid"); err != nil {
				return nil, nil, err
			}
		}
	case groups == nil:
		groups = users
	}
	if err := checkIDMap(users); err != nil {
		return nil, nil, fmt.Errorf("user map: %w", err)
	}
	if err := checkIDMap(groups); err != nil {
		return nil, nil, fmt.Errorf("group map: %w", err)
	}
	return users, groups, nil
}

// rootOf is the id outside of the workload's id 0.
func rootOf(maps []IDMap) int {
	for _, m := range maps {
		if m.Inside == 0 {
			return int(m.Outside)
		}
	}
	return -1 // checkIDMap lets no such map pass
}

// mapsTo says whether an id outside is one of the workload's.
func mapsTo(maps []IDMap, id uint32) bool {
	for _, m := range maps {
		if id >= m.Outside && id-m.Outside < m.Size {
			return true
		}
	}
	return false
}

func sysMap(maps []IDMap) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(maps))
	for i, m := range maps {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Size)}
	}
	return out
}
