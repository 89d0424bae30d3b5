package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	stageName   = "in-namespace"
	stageFailed = 125
)

// stage gives the process a mount namespace of its own with the two file
// systems that the tests look for, and becomes args.
//
// A fresh bpffs for each run: nothing pinned by one is seen by another.
func stage(args []string) error {
	if len(args) == 0 {
		return errors.New("nothing to run")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpffs", "/sys/fs/bpf", "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	if _, err := os.Stat("/sys/kernel/tracing/events"); err != nil {
		// gid 0 of the host: the brokered side gets no file that the host's
		// administrator wouldn't give it.
		if err := unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount tracefs: %w", err)
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	return fmt.Errorf("exec %q: %w", path, unix.Exec(path, args, os.Environ()))
}
