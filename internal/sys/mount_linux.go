package sys

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ForkMountNS gives the calling thread, which must be locked, a mount namespace
// of its own in which nothing that is mounted comes from or goes to another.
func ForkMountNS() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// ForkCgroupNS gives the calling thread, which must be locked, a cgroup
// namespace whose roots are its cgroups.
func ForkCgroupNS() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	return nil
}

// InMountNS runs f on a thread that has entered the mount namespace, with the
// working directory at its root, and ends with f. f must not start goroutines.
func InMountNS(ns int, f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare working directory: %w", err)
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
		return f()
	})
}

// InNetNS runs f on a thread that has entered the network namespace, and ends with f. f
// must not start goroutines.
func InNetNS(ns int, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// WithFileIDs runs f on a thread whose files are made by uid and gid, and ends with f. f
// must not start goroutines.
func WithFileIDs(uid, gid int, f func() error) error {
	return onThread(func() error {
		// Both say the id before, whatever happens (setfsuid(2)): so they are asked twice.
		_, _ = unix.SetfsgidRetGid(gid)
		_, _ = unix.SetfsuidRetUid(uid)
		if now, _ := unix.SetfsgidRetGid(-1); now != gid {
			return fmt.Errorf("make files as group %d: not possible", gid)
		}
		if now, _ := unix.SetfsuidRetUid(-1); now != uid {
			return fmt.Errorf("make files as user %d: not possible", uid)
		}
		return f()
	})
}

// InOwnMountNS runs f on a thread whose mount namespace belongs to the process's user
// namespace, and ends with f. f must not start goroutines.
func InOwnMountNS(f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare mount namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on an OS thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread doesn't end, and is what others see of the process.
			err := onThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Detach unmounts what is mounted at path, with all below it. EINVAL: nothing
// is, or it is locked (mount_namespaces(7)).
func Detach(path string) error { return unix.Unmount(path, unix.MNT_DETACH) }

// Mount mounts a new file system that honours neither set-user-ID bits nor
// devices; options are those of its type.
func Mount(fsType, path, options string) error {
	if err := unix.Mount(fsType, path, fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount %s at %q: %w", fsType, path, err)
	}
	return nil
}

// MountReadOnly makes the mount at path read-only.
func MountReadOnly(path string) error {
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		return fmt.Errorf("make %q read-only: %w", path, err)
	}
	return nil
}

// OpenFS begins a file system of a type, which will belong to the calling
// thread's user namespace (fsopen(2)); the mode option is that of its root.
func OpenFS(fsType, mode string) (int, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fsType, err)
	}
	if mode != "" {
		if err := unix.FsconfigSetString(fd, "mode", mode); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set mode of %s: %w", fsType, err)
		}
	}
	return fd, nil
}

// CreateFS creates the file system that OpenFS began (FSCONFIG_CMD_CREATE).
func CreateFS(fd int) error {
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("create file system: %w", err)
	}
	return nil
}

// MountOfFS makes a detached mount of a file system that CreateFS created.
func MountOfFS(fd int) (int, error) {
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return m, nil
}

// AttachMount attaches a detached mount at path.
func AttachMount(mount int, path string) error {
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach mount at %q: %w", path, err)
	}
	return nil
}

// CloneTreeMapped makes a detached copy of the mount tree at path in which the
// owners on disk are those of the user namespace: uid 0 on disk is the
// namespace's root (mount_setattr(2), MOUNT_ATTR_IDMAP). It shares no mount
// events with the original. Where a mount below path can't be mapped, the copy
// is that of path's own mount alone. EINVAL: its file system can't be mapped.
func CloneTreeMapped(path string, userNS int) (int, error) {
	var err error
	for _, recursive := range []uint{unix.AT_RECURSIVE, 0} {
		var fd int
		fd, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
		if err != nil {
			continue
		}
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, &unix.MountAttr{
			Attr_set:    unix.MOUNT_ATTR_IDMAP,
			Propagation: unix.MS_PRIVATE,
			Userns_fd:   uint64(userNS),
		})
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, err
}

// CloneTree makes a detached copy of the mount at path, without those below. It
// shares no mount events with the original.
func CloneTree(path string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// CloneTreeReadOnly makes a detached, read-only mount of what is at path, without what
// is mounted below. It honours no set-user-ID bits, devices or programs.
func CloneTreeReadOnly(path string) (int, error) {
	fd, err := CloneTree(path)
	if err != nil {
		return -1, fmt.Errorf("clone mount of %q: %w", path, err)
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attrs}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make mount of %q read-only: %w", path, err)
	}
	return fd, nil
}

// IsTracefs says whether path is in a tracefs.
func IsTracefs(path string) (bool, error) { return inFS(path, unix.TRACEFS_MAGIC) }

// IsDebugfs says whether path is in a debugfs.
func IsDebugfs(path string) (bool, error) { return inFS(path, unix.DEBUGFS_MAGIC) }

func inFS(path string, magic int64) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, fmt.Errorf("statfs %q: %w", path, err)
	}
	return int64(st.Type) == magic, nil
}

// InHiddenFS says whether path is in a file system of the kinds that show the
// host's cgroups or pinned BPF objects.
func InHiddenFS(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, err
	}
	switch st.Type {
	case unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC:
		return true, nil
	}
	return false, nil
}

// CheckWritable says why the directory that is open at fd can't be written to; EROFS: its
// mount is read-only.
func CheckWritable(fd int) error {
	return unix.Faccessat(fd, ".", unix.W_OK, unix.AT_EACCESS)
}

// CurrentDir is the physical path of the working directory (getcwd(2)). ENOENT:
// it has been deleted, or lies outside the root.
func CurrentDir() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return "", err
	}
	if n < 2 || buf[0] != '/' { // "(unreachable)/…"
		return "", unix.ENOENT
	}
	return string(buf[:n-1]), nil
}

// CloneMount makes another mount, attached nowhere, of what is mounted at mount.
func CloneMount(mount int) (*os.File, error) {
	fd, err := unix.OpenTree(mount, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone mount: %w", err)
	}
	return os.NewFile(uintptr(fd), "mount"), nil
}
