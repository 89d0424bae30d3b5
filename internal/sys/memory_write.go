package sys

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory is the memory of a process, open to be written to. Once open it stays
// that process's, whoever gets the process's id: process_vm_writev(2) looks the id
// up anew each time, and a target that was killed in the middle may have left it
// to any process of the host.
type Memory struct{ mem, maps int }

// OpenMemory opens the memory of thread tid's process, on an OS thread that the
// caller is locked to. The caller makes sure, afterwards, that the thread tid was
// still the one that is meant.
func OpenMemory(tid int) (Memory, Errno) {
	path := fmt.Sprintf("/proc/%d/mem", tid)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Memory{}, err.(unix.Errno)
	}
	// Only its owner may open it: CAP_SYS_PTRACE, which we have, lets us into the
	// memory, but not past the file's mode.
	own := uintptr(unix.Geteuid())
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(st.Uid), 0, 0)
	mem, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, own, 0, 0)
	if err != nil {
		return Memory{}, err.(unix.Errno)
	}
	maps, err := unix.Open(fmt.Sprintf("/proc/%d/maps", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(mem)
		return Memory{}, err.(unix.Errno)
	}
	return Memory{mem, maps}, 0
}

// Close closes it.
func (m Memory) Close() {
	unix.Close(m.mem)
	unix.Close(m.maps)
}

// Write copies p to addr, as far as the process itself could write there. It
// returns how much that was, and EFAULT where it was nothing. It doesn't wait for
// pages that a userfaultfd would bring: EFAULT, too.
func (m Memory) Write(addr uint64, p []byte) (int, Errno) {
	// /proc/PID/mem writes to read-only memory too.
	end := addr
	for end-addr < uint64(len(p)) {
		next, e := m.writable(end)
		if e != 0 {
			return 0, e
		}
		if next <= end {
			break
		}
		end = next
	}
	p = p[:min(uint64(len(p)), end-addr)]
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(m.mem, p[done:], int64(addr)+int64(done))
		if err != nil || n == 0 { // unmapped meanwhile; 0: all of it is gone
			break
		}
		done += n
	}
	if done == 0 {
		return 0, unix.EFAULT
	}
	return done, 0
}

// procmapQuery is struct procmap_query of include/uapi/linux/fs.h.
type procmapQuery struct {
	size, flags, addr       uint64
	start, end, vmaFlags    uint64
	pageSize, offset, inode uint64
	devMajor, devMinor      uint32
	nameSize, buildIDSize   uint32
	nameAddr, buildIDAddr   uint64
}

const (
	iocProcmapQuery = 0xc0686611 // PROCMAP_QUERY, kernel 6.11
	procmapWritable = 1 << 1     // PROCMAP_QUERY_VMA_WRITABLE
)

// writable returns where the mapping at addr ends, if it is one that may be
// written to, and 0 otherwise.
func (m Memory) writable(addr uint64) (uint64, Errno) {
	q := procmapQuery{size: uint64(unsafe.Sizeof(procmapQuery{})), addr: addr}
	switch _, e := ioctl(m.maps, iocProcmapQuery, unsafe.Pointer(&q)); e {
	case 0:
		if q.vmaFlags&procmapWritable == 0 {
			return 0, 0
		}
		return q.end, 0
	case unix.ENOTTY: // before 6.11
		return m.writableByText(addr)
	case unix.ENOENT: // nothing is mapped there
		return 0, 0
	default:
		return 0, e
	}
}

// writableByText is writable from the text of /proc/PID/maps.
func (m Memory) writableByText(addr uint64) (uint64, Errno) {
	if _, err := unix.Seek(m.maps, 0, 0); err != nil {
		return 0, err.(unix.Errno)
	}
	text, err := readAll(m.maps)
	if err != nil {
		return 0, err.(unix.Errno)
	}
	for line := range strings.Lines(string(text)) {
		var start, end uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil {
			return 0, unix.EIO
		}
		if start <= addr && addr < end && len(mode) > 1 && mode[1] == 'w' {
			return end, 0
		}
	}
	return 0, 0
}
