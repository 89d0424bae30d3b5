package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// TestStallFUSE has a workload mount a file system of its own, which answers to nothing
// that takes long: to reads of its file, as which memory is mapped; to names looked up in
// a path; to the flush when a copy of an fd is closed. Who waits for it can't be killed
// before it ends. It must cost the workload alone.
func TestStallFUSE(t *testing.T) {
	needRoot(t)
	device := filepath.Join(bin, "fuse") // the host's is root's
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(device)
	if err := os.Chmod(device, 0o666); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "fuse-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s := start(t, brokered(probe("fuse", device, dir)))
	worker := s.findWorker()
	s.expect("going on")
	eventually(t, "calls hang", func() bool { return look(worker).threads >= stallThreads+idleThreads })
	says(t, brokered(probe("target-plain")))

	// Without its server all comes back.
	stalled := look(worker).threads
	s.say("end the server")
	s.expect("going on")
	eventually(t, "the worker's threads are free again", func() bool { return look(worker).threads <= stalled-stallThreads/2 })

	// More than the worker has threads.
	s.say("stall all")
	s.expect("stalled")
	eventually(t, "the worker has no thread left", func() bool { return look(worker).threads > maxServing })
	says(t, brokered(probe("target-plain")))
	eventually(t, "the worker is being killed", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
		return err != nil || strings.Contains(string(state), ") Z ")
	})
	says(t, brokered(probe("target-plain")))
	s.say("end the server")
	s.expect("going on")
	if now := s.process("worker"); now == worker {
		t.Error("it is the same worker")
	}

	// The daemon as well, by a uprobe.
	s.say("stall the daemon")
	s.expect("stalled")
	says(t, brokered(probe("target-plain")))
	worker, daemon := s.process("worker"), s.process("daemon")
	// CMD can't end either, while it has files of that file system, and so run wouldn't at
	// SIGTERM.
	s.cmd.Process.Kill()
	s.end(false)
	for _, pid := range []int{worker, daemon} {
		eventually(t, fmt.Sprintf("the end of %d", pid), func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	}
}

func init() {
	probes["fuse-server"] = func() { serveFUSE(3) }
	probes["fuse"] = func() {
		goOn := func() {
			if err := someMaps(100); err != nil {
				fail("%v", err)
			}
			ask("going on")
		}
		end := stallFUSE(stallThreads, false)
		goOn()
		end()
		goOn()
		end = stallFUSE(maxServing+20, false)
		ask("stalled")
		end()
		goOn()
		stallFUSE(stallThreads, true)
		ask("stalled")
	}
}

// stallFUSE makes n calls that stall for a file system of ours, each on a thread of its
// own; with daemon also such that the daemon performs. They come back with an error when
// the file system ends.
func stallFUSE(n int, daemon bool) (end func()) {
	device := os.Args[1]
	dir, err := os.MkdirTemp(os.Args[2], "")
	if err != nil {
		fail("%v", err)
	}
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fail("open %s: %v", device, err)
	}
	if err := unix.Mount("fuse", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0", fd)); err != nil {
		fail("mount fuse: %v", err)
	}
	server := exec.Command("/proc/self/exe")
	server.Env = append(os.Environ(), probeEnv+"=fuse-server")
	server.Stderr = os.Stderr
	server.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "fuse")}
	if err := server.Start(); err != nil {
		fail("%v", err)
	}
	server.ExtraFiles[0].Close()
	file, err := unix.Open(filepath.Join(dir, fuseFile), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fail("open %s: %v", fuseFile, err)
	}
	page := os.Getpagesize()
	mem, err := unix.Mmap(file, 0, fuseSize, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		fail("mmap: %v", err)
	}
	path := append([]byte(filepath.Join(dir, "never", "map")), 0)
	kinds := []func(i int) sys.Errno{
		func(i int) sys.Errno {
			_, e := sys.BPF(cmdMapCreate, mem[i*page:][:page], 72)
			return e
		},
		func(int) sys.Errno {
			_, e := bpf(cmdObjGet, new(attr).u64(0, sys.Addr(path)), 16, path)
			return e
		},
		func(int) sys.Errno {
			_, e := bpf(cmdProgAttach, new(attr).u32(0, uint32(file)).u32(4, uint32(file)), 16)
			return e
		},
	}
	if daemon {
		kinds = append(kinds, func(int) sys.Errno { return uprobeAt(filepath.Join(dir, fuseFile)) })
	}
	for i := range n {
		go func() {
			if e := kinds[i%len(kinds)](i); e == 0 {
				fail("call %d came back without an error", i)
			}
		}()
	}
	time.Sleep(100 * time.Millisecond) // more or less until they hang
	return func() {
		server.Process.Kill()
		server.Wait()
	}
}

// uprobeAt makes a uprobe at the beginning of a file. The kernel reads the instruction if
// somebody has the file mapped.
func uprobeAt(path string) sys.Errno {
	b, err := os.ReadFile("/sys/bus/event_source/devices/uprobe/type")
	if err != nil {
		fail("%v", err)
	}
	kind, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		fail("%v", err)
	}
	name := append([]byte(path), 0)
	a := new(attr).u32(0, uint32(kind)).u32(4, 112).u64(56, sys.Addr(name)) // type, size, uprobe_path
	_, e := sys.PerfEventOpen(a[:112], -1, 0, -1, 0)
	runtime.KeepAlive(name)
	return e
}

const (
	fuseFile = "file"
	fuseSize = 4 << 20
)

// serveFUSE serves a file system of one directory and one file (fuse(4),
// include/uapi/linux/fuse.h).
func serveFUSE(device int) {
	const (
		lookup, getattr, open, initialize = 1, 3, 14, 26
		root, file                        = 1, 2
	)
	le := binary.LittleEndian
	attr := func(node uint64) []byte {
		mode := uint32(unix.S_IFDIR | 0o755)
		if node == file {
			mode = unix.S_IFREG | 0o755
		}
		b := le.AppendUint64(nil, node)
		b = le.AppendUint64(b, fuseSize)
		b = append(b, make([]byte, 4*8+3*4)...) // blocks and times
		b = le.AppendUint32(b, mode)
		b = le.AppendUint32(b, 1)              // links
		return append(b, make([]byte, 5*4)...) // owner, device, block size, flags
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(device, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) { // one that was withdrawn
			continue
		}
		if err != nil {
			fail("read from /dev/fuse: %v", err)
		}
		in, body := buf[:40], buf[40:n]
		node := le.Uint64(in[16:])
		var out []byte
		switch le.Uint32(in[4:]) {
		case initialize:
			out = le.AppendUint32(le.AppendUint32(nil, 7), 31)
			out = append(out, make([]byte, 64-8)...)
			le.PutUint32(out[20:], 1<<16) // max_write
		case lookup:
			if string(body) != fuseFile+"\x00" {
				continue // never
			}
			out = append(le.AppendUint64(nil, file), make([]byte, 4*8)...)
			out = append(out, attr(file)...)
		case getattr:
			out = append(make([]byte, 16), attr(node)...)
		case open:
			out = make([]byte, 16)
		default:
			continue // never: reads, flushes
		}
		head := le.AppendUint32(nil, uint32(16+len(out)))
		head = append(head, 0, 0, 0, 0) // no error
		head = append(head, in[8:16]...)
		if _, err := unix.Write(device, append(head, out...)); err != nil {
			fail("write to /dev/fuse: %v", err)
		}
	}
}
