package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workerDir holds the copy of this binary that workers are executed from. It isn't
// below /run, which is often mounted noexec.
const workerDir = "/var/cache/bpfbroker"

// UnreadableExecutable opens a copy of this binary that belongs to root, and that
// others may execute and not read. A process that was executed from what the root
// of its user namespace can't read is out of that root's reach: the kernel lets
// its memory belong to the namespace above (fs/exec.c, would_dump), whatever its
// own ids are.
//
// The copy stays for the next time, in a file, so that all workers share its
// pages; where no file can be made or executed, it is in memory (memfd_create(2)).
func UnreadableExecutable() (*os.File, error) {
	const self = "/proc/self/exe"
	var st unix.Stat_t
	if err := unix.Stat(self, &st); err != nil {
		return nil, fmt.Errorf("own binary: %w", err)
	}
	if unreadable(&st) {
		return os.Open(self)
	}
	f, cached := cachedCopy(workerDir, self, &st)
	if cached == nil {
		return f, nil
	}
	f, err := memoryCopy(self)
	if err != nil {
		return nil, fmt.Errorf("copy own binary for workers: %w", errors.Join(cached, err))
	}
	return f, nil
}

// CurrentBinary opens the file at the path that this process was executed from: a
// newer version, if it was replaced. Where others than root could have put it there,
// or there is none, it is this process's own binary: OwnBinary.
func CurrentBinary() (*os.File, error) {
	path, err := os.Executable()
	if err != nil || !rootsAlone(filepath.Dir(path)) {
		return OwnBinary()
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return OwnBinary()
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Uid != 0 || st.Mode&(unix.S_IFMT|0o022|0o100) != unix.S_IFREG|0o100 {
		f.Close()
		return OwnBinary()
	}
	return f, nil
}

// OwnBinary opens what this process was executed from.
func OwnBinary() (*os.File, error) { return os.Open("/proc/self/exe") }

// rootsAlone says whether nobody but root can put something else in the place of the
// directory, or of one above.
func rootsAlone(dir string) bool {
	for {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR ||
			st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 { // what is root's in a sticky directory stays
			return false
		}
		if dir == "/" {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// unreadable says whether all others may execute a file, and none read it.
func unreadable(st *unix.Stat_t) bool {
	return st.Uid == 0 && st.Gid == 0 && st.Mode&(unix.S_IFMT|0o077) == unix.S_IFREG|0o011
}

// cachedCopy opens the copy of the file self in dir, which it makes if it isn't
// there. Its name tells which file it is a copy of: each write changes the ctime.
func cachedCopy(dir, self string, st *unix.Stat_t) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dst unix.Stat_t
	var vfs unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(d.Fd()), &dst), unix.Fstatfs(int(d.Fd()), &vfs)); err != nil {
		return nil, err
	}
	if dst.Uid != 0 || dst.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%s: others than root may write to it", dir)
	}
	if vfs.Flags&unix.ST_NOEXEC != 0 {
		return nil, fmt.Errorf("%s is mounted noexec", dir)
	}
	const prefix = "worker-"
	name := fmt.Sprintf(prefix+"%x-%x-%x-%x.%09d", st.Dev, st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
	path := filepath.Join(dir, name)
	if f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
		var have unix.Stat_t
		if unix.Fstat(int(f.Fd()), &have) == nil && unreadable(&have) && have.Size == st.Size {
			return f, nil
		}
		f.Close()
	}
	// No fork meanwhile: a child would have the file open for writing until it
	// executes, and the kernel executes no such file.
	syscall.ForkLock.RLock()
	err = writeCopy(dir, path, self)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	// Copies of other versions; what is executed from them goes on.
	if entries, err := d.ReadDir(-1); err == nil {
		for _, e := range entries {
			other := strings.HasPrefix(e.Name(), prefix) && e.Name() != name
			if info, err := e.Info(); other || err == nil && strings.HasPrefix(e.Name(), unfinished) && time.Since(info.ModTime()) > time.Hour {
				_ = os.Remove(filepath.Join(dir, e.Name())) // the next one tries again
			}
		}
	}
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

// SameBinary says whether two files that UnreadableExecutable has opened are copies of
// the same binary: another run of it may have made the second one, if a bpfbroker of
// another version has removed the first.
func SameBinary(a, b int) bool {
	var x, y unix.Stat_t
	if unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino {
		return true
	}
	name := func(fd int) string {
		to, _ := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
		dir, base := filepath.Split(strings.TrimSuffix(to, " (deleted)"))
		if filepath.Clean(dir) != workerDir {
			return ""
		}
		return base
	}
	return name(a) != "" && name(a) == name(b)
}

// unfinished is how a copy's name begins that is being made.
const unfinished = "new-"

func writeCopy(dir, path, self string) error {
	tmp, err := os.CreateTemp(dir, unfinished)
	if err != nil {
		return err
	}
	err = fillCopy(tmp, self)
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// fillCopy copies self to f, sets its mode, and closes it.
func fillCopy(f *os.File, self string) error {
	src, err := os.Open(self)
	if err != nil {
		f.Close()
		return err
	}
	defer src.Close()
	if err = f.Chmod(0o711); err == nil {
		_, err = f.ReadFrom(src)
	}
	if err == nil {
		err = f.Sync() // else, after a power failure, it may have its size and nothing else
	}
	return errors.Join(err, f.Close())
}

// memoryCopy is a copy of the file self in memory, open for reading.
func memoryCopy(self string) (*os.File, error) {
	fd, err := unix.MemfdCreate("bpfbroker", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC is known from 6.3 on; before, it is the only way
		fd, err = unix.MemfdCreate("bpfbroker", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	m := os.NewFile(uintptr(fd), "bpfbroker")
	ro, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY, 0)
	if err != nil {
		m.Close()
		return nil, err
	}
	if err := fillCopy(m, self); err != nil {
		ro.Close()
		return nil, err
	}
	return ro, nil
}
