package tracing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

const runDir = "/run"

// store is a directory of copies, each a directory that is named by its key. Who uses a
// copy has a shared lock on it, which ends with the process: so others can tell that
// it isn't used any more. Who makes or removes one has an exclusive lock on the store.
//
// None but root may open either, who could lock it then; workloads see only what is
// mounted from within a copy. So files there may be for all.
type store struct {
	base string // that exists, and is root's
	name string // below base/bpfbroker
}

// hidden begins the names of what isn't a copy yet, or no longer.
const hidden = "."

// open returns the copy with that key, locked; where there is none, make fills it first.
// Its Name is its path.
func (s store) open(key string, make func(*os.Root) error) (*os.File, error) {
	dir, err := s.root()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if f, err := use(dir, key); f != nil || err != nil {
		return f, err
	}
	lock, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := flock(lock, syscall.LOCK_EX); err != nil {
		return nil, err
	}
	// Another has made it while we waited for the lock?
	if f, err := use(dir, key); f != nil || err != nil {
		return f, err
	}
	const unfinished = hidden + "new"
	if err := dir.RemoveAll(unfinished); err != nil { // of one that was killed
		return nil, err
	}
	if err := makeDir(dir, unfinished, 0o755); err != nil {
		return nil, err
	}
	err = fill(dir, unfinished, make)
	if err == nil {
		err = dir.Rename(unfinished, key)
	}
	if err != nil {
		dir.RemoveAll(unfinished) // else the next one does
		return nil, err
	}
	f, err := use(dir, key)
	if f == nil && err == nil {
		err = errors.New("a copy was removed while it was made") // by none of us
	}
	// Last, as ext4 makes files slowly for some minutes after many were removed. What
	// can't be removed stays until another copy is made.
	_ = prune(dir)
	return f, err
}

func fill(dir *os.Root, name string, make func(*os.Root) error) error {
	to, err := dir.OpenRoot(name)
	if err != nil {
		return err
	}
	defer to.Close()
	return make(to)
}

// root makes and opens the store. All directories on the way must be root's alone, or
// else another could put a link, or what it likes, in the place of a copy.
func (s store) root() (*os.Root, error) {
	dir, err := os.OpenRoot(s.base)
	if err != nil {
		return nil, err
	}
	for _, next := range []struct {
		name string
		mode os.FileMode
	}{{"bpfbroker", 0o755}, {s.name, 0o700}} {
		err := ofRoot(dir)
		if err == nil {
			err = makeDir(dir, next.name, next.mode)
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		var sub *os.Root
		if err == nil {
			sub, err = dir.OpenRoot(next.name)
		}
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = sub
	}
	if err := ofRoot(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// ofRoot says why a directory isn't this user's alone to write to, who is root.
func ofRoot(dir *os.Root) error {
	st, err := dir.Stat(".")
	if err != nil {
		return err
	}
	if st.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others than root may write to %s (mode %v); make it root's", dir.Name(), st.Mode())
	}
	return nil
}

// use opens and locks a copy; nil: there is none.
func use(dir *os.Root, key string) (*os.File, error) {
	return openLocked(dir, key, syscall.LOCK_SH)
}

// openLocked opens a directory and locks it; nil: there is none, or another's lock on
// it is in the way.
func openLocked(dir *os.Root, name string, how int) (*os.File, error) {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = flock(f, how|syscall.LOCK_NB)
	if err == nil && sameFile(dir, name, f) {
		return f, nil
	}
	f.Close()
	if err == syscall.EWOULDBLOCK {
		err = nil
	}
	return nil, err
}

// sameFile says whether f still has its name.
func sameFile(dir *os.Root, name string, f *os.File) bool {
	a, errA := dir.Lstat(name)
	b, errB := f.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// prune removes copies that nobody uses, and what was left unfinished.
func prune(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, hidden) {
			f, err := openLocked(dir, name, syscall.LOCK_EX)
			if err != nil {
				return err
			}
			if f == nil {
				continue // in use
			}
			// Renamed first, so that half of a copy is never taken for one.
			old := hidden + name
			err = dir.Rename(name, old)
			f.Close()
			if err != nil {
				return err
			}
			name = old
		}
		if err := dir.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
