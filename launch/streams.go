package launch

import (
	"fmt"
	"os"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// undo is one change to a standard stream, and how it was before. With it
// travels a handle of the file.
type undo struct {
	UID, GID, Mode uint32
	Chmod          bool    // the mode was changed; else the owner
	Theirs         []IDMap // the change is undone only while one of these owns it
}

// streamChange says what has to change about a stream so that the workload's
// root may open it by name (/dev/stdout, /proc/self/fd/1, $(tty)), as CMD's user
// could natively; false: nothing.
//
// An anonymous pipe becomes open to all: its mode protects from nobody, since it
// has no name but in the processes that hold it. A terminal, and a file that is
// open for writing, is owned by the workload's root for a while. A file that is
// open for reading is left alone: its owner could write to it. So are /dev/null
// and other devices, which are shared by all.
func streamChange(s sys.Stream, uids []IDMap) (undo, bool) {
	u := undo{UID: s.UID, GID: s.GID, Mode: s.Mode, Theirs: uids}
	if mapsTo(uids, s.UID) {
		return u, false
	}
	var need uint32
	if s.Read {
		need |= 0o4
	}
	if s.Write {
		need |= 0o2
	}
	if s.TTY {
		need = 0o6
	}
	if need == 0 || s.Mode&need == need {
		return u, false
	}
	switch {
	case s.Pipe:
		u.Chmod = true
		return u, true
	case s.TTY, s.Reg && s.Write:
		return u, true
	}
	return u, false
}

// openStreams makes the streams openable by name. Each change is told to the
// guardian before it is made. What can't be changed stays as it is: a file
// system may have no owners, and a stream is usable without its name.
func (w *Workload) openStreams(files []*os.File) error {
	type file struct{ dev, ino uint64 }
	seen := make(map[file]bool)
	for _, f := range files {
		s, err := sys.StatStream(int(f.Fd()))
		if err != nil || seen[file{s.Dev, s.Ino}] {
			continue // closed
		}
		seen[file{s.Dev, s.Ino}] = true
		u, needed := streamChange(s, w.uids)
		if !needed {
			continue
		}
		h, err := sys.Handle(int(f.Fd()))
		if err != nil {
			continue
		}
		if err := w.guardian.undoLater(u, h); err != nil {
			sys.Close(h)
			return err
		}
		w.streams = append(w.streams, stream{u, h})
		if u.Chmod {
			_ = sys.ChmodHandle(h, s.Mode|0o666)
		} else {
			_ = sys.ChownHandle(h, rootOf(w.uids), -1)
		}
	}
	return nil
}

// stream is a changed stream.
type stream struct {
	undo   undo
	handle int // O_PATH
}

// restore gives a stream its old owner and mode back, and closes the handle.
func (s stream) restore() error {
	defer sys.Close(s.handle)
	now, err := sys.StatStream(s.handle)
	if err != nil {
		return fmt.Errorf("restore the owner of a stream: %w", err)
	}
	if !s.undo.Chmod {
		if !mapsTo(s.undo.Theirs, now.UID) {
			return nil // someone else has taken it meanwhile
		}
		if err := sys.ChownHandle(s.handle, int(s.undo.UID), int(s.undo.GID)); err != nil {
			return fmt.Errorf("restore the owner of a stream: %w", err)
		}
	}
	// After the owner: as the owner the workload could have changed it, and chown
	// clears set-user-ID bits.
	if err := sys.ChmodHandle(s.handle, s.undo.Mode); err != nil {
		return fmt.Errorf("restore the mode of a stream: %w", err)
	}
	return nil
}
