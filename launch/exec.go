package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ExecError says why CMD could not be executed.
type ExecError struct {
	Errno syscall.Errno // ENOENT, EACCES, …
	Text  string        // for the user, with the remedy
}

func (e *ExecError) Error() string { return e.Text }

// Unwrap makes errors.Is work with the errno and with fs.ErrNotExist.
func (e *ExecError) Unwrap() error { return e.Errno }

// ExitCode is what a shell would exit with: 127 where there is no CMD, 126 where
// there is one that can't be executed.
func (e *ExecError) ExitCode() int {
	if e.Errno == syscall.ENOENT {
		return 127
	}
	return 126
}

// execute does what execvp(3) does with the command: looks it up in PATH unless
// it has a slash, and gives a file of no known format to the shell. try executes
// a path, and returns if it can't.
func (s *setup) execute(try func(path string, args []string) error) error {
	name := s.Args[0]
	paths := []string{name}
	if !strings.Contains(name, "/") {
		paths = candidates(name, s.Env)
	}
	var denied error
	err := error(syscall.ENOENT)
	for _, path := range paths {
		err = try(path, s.Args)
		if err == syscall.ENOEXEC {
			err = try("/bin/sh", append([]string{"/bin/sh", path}, s.Args[1:]...))
		}
		if err == nil {
			return nil
		}
		if err == syscall.EACCES {
			if denied == nil && exists(path) {
				denied = explainDenied(path)
			}
			continue
		}
		if err != syscall.ENOENT && err != syscall.ENOTDIR {
			break
		}
	}
	switch {
	case denied != nil:
		return denied
	case err == syscall.EACCES: // directories of PATH that we may not search, no more is known
		if strings.Contains(name, "/") {
			return explainDenied(name)
		}
		return fmt.Errorf("execute %q: not found in the directories of PATH that the workload may search: %w", name, syscall.ENOENT)
	case err == syscall.ENOENT && !strings.Contains(name, "/"):
		return fmt.Errorf("execute %q: not found in PATH: %w", name, err)
	}
	return fmt.Errorf("execute %q: %w", name, err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// candidates are the paths that execvp(3) tries for a name without a slash.
func candidates(name string, env []string) []string {
	path := "/bin:/usr/bin"
	for _, kv := range env {
		if p, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = p
			break
		}
	}
	if name == "" {
		return nil
	}
	var out []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, dir+"/"+name)
	}
	return out
}

// explainDenied says which part of a path keeps the workload's root from
// executing it.
func explainDenied(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	if dir := blockedPrefix(filepath.Dir(abs)); dir != "" {
		return fmt.Errorf("execute %q: the workload's root has no right to search %q, as its owner isn't in the user map; "+
			"allow all to (chmod o+x %s), copy the command elsewhere, or run in its directory: %w", path, dir, dir, syscall.EACCES)
	}
	if st, err := os.Stat(abs); err == nil && st.IsDir() {
		return fmt.Errorf("execute %q: it is a directory: %w", path, syscall.EACCES)
	}
	return fmt.Errorf("execute %q: the workload's root may not execute it; allow all to (chmod o+rx %s): %w", path, path, syscall.EACCES)
}
