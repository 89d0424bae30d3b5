package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is a log in a file. When it has become large, it is renamed to PATH.1, that to
// PATH.2, and so on. Several processes may write to one, and others may rename or
// remove it at any time (logrotate): then the next lines go to a new one.
type File struct {
	Path string
	Size int64 // larger than that it gets by its last lines only
	Keep int   // how many renamed ones are kept

	f *os.File
}

const (
	fileSize = 64 << 20
	fileKeep = 4
)

// NewFile returns the log at path, which is opened when it is first written to.
func NewFile(path string) *File { return &File{Path: path, Size: fileSize, Keep: fileKeep} }

func (f *File) String() string { return f.Path }

// Close implements Sink.
func (f *File) Close() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

// check says whether the log can be written to, and what to do if not.
func (f *File) check() error {
	err := f.open()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; make the directory %q first", err, filepath.Dir(f.Path))
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; give a file in a directory that root may write to, such as /var/log/bpfbroker.log", err)
	case errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%w; give a file in it", err)
	}
	return err
}

// open opens the file, if it isn't open. A link isn't followed: whoever may write to
// the directory would choose which file we write to.
func (f *File) open() error {
	if f.f != nil {
		return nil
	}
	file, err := os.OpenFile(f.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("open %q: it is a symbolic link, which isn't followed; give the path that it leads to", f.Path)
	}
	if err != nil {
		return err
	}
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		file.Close()
		return errors.Join(err, fmt.Errorf("open %q: it is no regular file; for a stream there is stdout or stderr", f.Path))
	}
	f.f = file
	return nil
}

// Write implements Sink.
func (f *File) Write(lines []Line) error {
	err := f.write(join(lines))
	if err != nil { // perhaps it works with another file
		f.Close()
	}
	return err
}

func (f *File) write(text []byte) error {
	if err := f.current(); err != nil {
		return err
	}
	defer func() {
		if f.f != nil {
			_ = flock(f.f, syscall.LOCK_UN)
		}
	}()
	st, err := f.whole()
	if err != nil {
		return err
	}
	if size := st.Size(); size > 0 && size+int64(len(text)) > f.Size {
		if err := f.rotate(); err != nil {
			return err
		}
		if st, err = f.f.Stat(); err != nil {
			return err
		}
	}
	if n, err := f.f.Write(text); err != nil {
		if n > 0 {
			_ = f.f.Truncate(st.Size()) // half a line would spoil the next one, too
		}
		return err
	}
	return nil
}

// whole makes sure that the file ends with a line. A process that was killed while it
// wrote may have left half a record: whoever takes over its book writes it again.
func (f *File) whole() (fs.FileInfo, error) {
	st, err := f.f.Stat()
	if err != nil || st.Size() == 0 {
		return st, err
	}
	end := make([]byte, 1, maxLine)
	if _, err := f.f.ReadAt(end, st.Size()-1); err != nil || end[0] == '\n' {
		return st, err
	}
	end = end[:min(st.Size(), maxLine)]
	at := st.Size() - int64(len(end))
	if _, err := f.f.ReadAt(end, at); err != nil {
		return nil, err
	}
	half := end[bytes.LastIndexByte(end, '\n')+1:]
	if begin := []byte(lineBegin); bytes.HasPrefix(half, begin) || bytes.HasPrefix(begin, half) {
		err = f.f.Truncate(at + int64(len(end)-len(half)))
	} else { // not ours
		_, err = f.f.Write([]byte("\n"))
	}
	if err != nil {
		return nil, err
	}
	return f.f.Stat()
}

// current makes sure that the file which is open is the one of that name, and locks
// it.
func (f *File) current() error {
	for {
		if err := f.open(); err != nil {
			return err
		}
		if err := flock(f.f, syscall.LOCK_EX); err != nil {
			return fmt.Errorf("lock %q: %w", f.Path, err)
		}
		is, err := f.f.Stat()
		if err != nil {
			return err
		}
		if named, err := os.Lstat(f.Path); err == nil && os.SameFile(is, named) {
			return nil
		}
		f.Close() // and the lock with it
	}
}

// rotate renames the files, and begins a new one, which it locks.
func (f *File) rotate() error {
	for i := f.Keep - 1; i >= 0; i-- {
		from := f.Path
		if i > 0 {
			from = fmt.Sprint(f.Path, ".", i)
		}
		if err := os.Rename(from, fmt.Sprint(f.Path, ".", i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if f.Keep == 0 {
		if err := os.Remove(f.Path); err != nil {
			return err
		}
	}
	f.Close()
	return f.current()
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
