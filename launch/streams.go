package launch

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// undo is what a standard stream was before the workload's root became its owner.
type undo struct {
	UID, GID, Mode uint32
	ACL            []byte
	Theirs         []IDMap // the change is undone only while one of these owns it
}

// lends says whether the workload's root has to own a stream for a while so that
// it may open it by name (/dev/stdout, /proc/self/fd/1, $(tty)), as CMD's user
// could natively. That is a terminal, and a file that is open for writing.
//
// A file that is open for reading is left alone: its owner could write to it. So
// is one that executes as its owner or group: as root's, with the workload's
// content. So are /dev/null and other devices, which are shared by all.
func lends(s sys.Stream) bool {
	const setID = 0o6000
	switch {
	case s.TTY:
		return s.Mode&0o006 != 0o006
	case s.Reg && s.Write && s.Mode&setID == 0:
		return s.Mode&0o002 == 0 || s.Read && s.Mode&0o004 == 0
	}
	return false
}

// openStreams makes the streams openable by name. What can't be changed stays as
// it is: a file system may have no owners, and a stream is usable without its
// name.
func (w *Workload) openStreams(files []*os.File) error {
	type file struct{ dev, ino uint64 }
	seen := make(map[file]bool)
	for _, f := range files {
		s, err := sys.StatStream(int(f.Fd()))
		if err != nil || seen[file{s.Dev, s.Ino}] {
			continue // closed
		}
		seen[file{s.Dev, s.Ino}] = true
		if !s.Pipe && !lends(s) {
			continue
		}
		h, err := sys.Handle(int(f.Fd()))
		if err != nil {
			continue
		}
		if s.Pipe {
			// Its mode protects from nobody: it has no name but in the processes
			// that hold it. Others may count on it by now, so it stays so.
			_ = sys.ChmodHandle(h, s.Mode|0o666)
			sys.Close(h)
			continue
		}
		if err := w.lend(h); err != nil {
			return err
		}
	}
	return nil
}

// lend gives the file that a handle is open at, which it takes over, to the
// workload's root.
func (w *Workload) lend(handle int) error {
	unlock, err := lockLoans()
	if err != nil {
		sys.Close(handle)
		return nil // no place for the record
	}
	defer unlock()
	l, err := newLoan(handle, w.uids)
	if l == nil {
		sys.Close(handle)
		return err
	}
	w.loans = append(w.loans, l)
	// First the guardian, then the change.
	if err := w.guardian.undoLater(l); err != nil {
		return err
	}
	_ = sys.ChownHandle(handle, rootOf(w.uids), -1)
	return nil
}

// loan is a stream that belongs to the workload's root for now. Several
// workloads with the same root may have it at once; the last one gives it back.
type loan struct {
	undo   undo
	handle int      // O_PATH
	record *os.File // of loanDir; `run` and its guardian share the open file, and so its lock
}

// newLoan records that the file belongs to the root of uids from now on; nil: it
// can't, or need not. The loans are locked.
func newLoan(handle int, uids []IDMap) (*loan, error) {
	s, err := sys.StatStream(handle)
	if err != nil {
		return nil, fmt.Errorf("owner of a stream: %w", err)
	}
	record, err := os.OpenFile(loanPath(s), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil // no place
	}
	l := &loan{undo{s.UID, s.GID, s.Mode, sys.ACL(handle), uids}, handle, record}
	first := l.lock(syscall.LOCK_EX) == nil
	var earlier undo
	switch err := gob.NewDecoder(record).Decode(&earlier); {
	case err == nil && mapsTo(earlier.Theirs, s.UID) && rootOf(earlier.Theirs) == rootOf(uids):
		l.undo = earlier // if first, it is left by a run that was killed with its guardian
	case !first: // a workload's with another root
		return nil, record.Close()
	case mapsTo(uids, s.UID):
		return nil, errors.Join(os.Remove(record.Name()), record.Close())
	}
	if first {
		err = l.save()
	}
	if err == nil {
		err = l.lock(syscall.LOCK_SH)
	}
	if err != nil {
		return nil, fmt.Errorf("record the owner of a stream: %w", errors.Join(err, record.Close()))
	}
	return l, nil
}

func (l *loan) lock(how int) error {
	return syscall.Flock(int(l.record.Fd()), how|syscall.LOCK_NB)
}

// loanDir has a file for each stream that belongs to a workload, with its undo.
// Each user of the stream has a shared lock on the file, which ends with the
// process: so the last one can tell that it is.
const loanDir = "/run/bpfbroker-streams"

// loanPath is the file of a stream.
func loanPath(s sys.Stream) string {
	return filepath.Join(loanDir, fmt.Sprintf("%x-%d", s.Dev, s.Ino))
}

// lockLoans makes loanDir, and locks it until unlock is called, which removes it
// if it is empty.
func lockLoans() (unlock func(), err error) {
	for {
		if err := os.Mkdir(loanDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		d, err := os.Open(loanDir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := lockFile(d); err != nil {
			return nil, errors.Join(err, d.Close())
		}
		if s, err := sys.StatStream(int(d.Fd())); err == nil && s.Links > 0 {
			return func() {
				os.Remove(loanDir) // not empty: others' files
				d.Close()
			}, nil
		}
		d.Close() // removed while we waited
	}
}

func lockFile(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			return err
		}
	}
}

func (l *loan) save() error {
	if err := l.record.Truncate(0); err != nil {
		return err
	}
	if _, err := l.record.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return gob.NewEncoder(l.record).Encode(l.undo)
}

// end gives the stream back, unless another workload uses it still. It closes
// what the loan holds.
func (l *loan) end() error {
	defer sys.Close(l.handle)
	defer l.record.Close()
	unlock, err := lockLoans()
	if err != nil {
		return fmt.Errorf("restore the owner of a stream: %w", err)
	}
	defer unlock()
	if l.lock(syscall.LOCK_EX) != nil {
		// Closing isn't enough: the guardian has the open file a little longer.
		return l.lock(syscall.LOCK_UN)
	}
	if r, err := sys.StatStream(int(l.record.Fd())); err == nil && r.Links == 0 {
		return nil // `run` was killed after it had done this
	}
	now, err := sys.StatStream(l.handle)
	if err != nil {
		return fmt.Errorf("restore the owner of a stream: %w", err)
	}
	if mapsTo(l.undo.Theirs, now.UID) { // else someone else has taken it meanwhile
		err = l.restore()
	}
	return errors.Join(err, os.Remove(loanPath(now)))
}

func (l *loan) restore() error {
	if err := sys.ChownHandle(l.handle, int(l.undo.UID), int(l.undo.GID)); err != nil {
		return fmt.Errorf("restore the owner of a stream: %w", err)
	}
	// After the owner: as the owner the workload could have changed them.
	if err := sys.SetACL(l.handle, l.undo.ACL); err != nil {
		return fmt.Errorf("restore the ACL of a stream: %w", err)
	}
	if err := sys.ChmodHandle(l.handle, l.undo.Mode); err != nil {
		return fmt.Errorf("restore the mode of a stream: %w", err)
	}
	return nil
}
