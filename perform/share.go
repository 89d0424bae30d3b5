package perform

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// OpenPath opens the object that is pinned at a path of the host's: to read alone, if it
// is a map and shall be. Its id is 0 where it has none.
func OpenPath(path string, write bool) (fd int, kind abi.Object, id uint32, err error) {
	p := append([]byte(path), 0)
	fd, e := openPin(p)
	if e == 0 && write {
		sys.Close(fd)
		fd, e = openAs(p, 0)
	}
	if e != 0 {
		return -1, 0, 0, fmt.Errorf("open what is pinned at %q: %w", path, e)
	}
	kind = ObjectAt(fd)
	return fd, kind, ObjectID(kind, fd), nil
}

// openPin opens what is pinned at a path, as whoever may read it.
func openPin(path []byte) (int, sys.Errno) {
	fd, e := openAs(path, abi.FRdonly)
	if e == sys.EINVAL { // a link has no mode
		fd, e = openAs(path, 0)
	}
	return fd, e
}

func openAs(path []byte, flags uint64) (int, sys.Errno) {
	o := own(abi.ObjGet)
	o.point("pathname", path)
	o.put("file_flags", flags)
	return o.do()
}

// OpenID opens an object by its id.
func OpenID(kind abi.Object, id uint32) (int, error) {
	fd, e := openByID(kind, id)
	if e != 0 {
		return -1, fmt.Errorf("open the %v of id %d: %w", kind, id, e)
	}
	return fd, nil
}

// Pin pins the object at fd in the directory dir of a bpffs, as its owner, with this mode.
// One that is there under the name is fine, if it is the same.
func Pin(dir *os.File, name string, fd int, mode fs.FileMode) error {
	uid, gid, e := sys.OwnerOf(int(dir.Fd()))
	if e != 0 {
		return fmt.Errorf("look at the bpffs: %w", e)
	}
	path := ownFDs + strconv.Itoa(int(dir.Fd())) + "/" + name
	return sys.WithFileIDs(int(uid), int(gid), func() error {
		p := append([]byte(path), 0)
		o := own(abi.ObjPin)
		o.point("pathname", p)
		o.put("bpf_fd", uint64(fd))
		switch _, e := o.do(); {
		case e == sys.EEXIST && sameObject(p, fd):
		case e == sys.EEXIST:
			return errors.New("another object is pinned there")
		case e != 0:
			return e
		}
		return os.Chmod(path, mode)
	})
}
