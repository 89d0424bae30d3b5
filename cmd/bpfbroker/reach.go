package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/bpfbroker/bpfbroker/control"
	"github.com/bpfbroker/bpfbroker/daemon"
	"github.com/bpfbroker/bpfbroker/launch"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/serve"
)

// running is a workload of run's, as it is reached from outside.
type running struct{ *serve.Running }

// reachable lets the workload be controlled, until stop. Where there can be no socket,
// as where /run isn't writable, that is said, and the workload runs.
func (o *runOptions) reachable(cfg launch.Config, w *launch.Workload, k *daemon.Keeper) (stop func(), err error) {
	r := &running{serve.NewRunning(control.Status{ID: cfg.ID, PID: os.Getpid(), Command: cfg.Args, Began: time.Now()}, k, o.decides, w.Kill)}
	stop = func() {}
	if s, err := control.Serve(control.Dir, cfg.ID, r); err != nil {
		fmt.Fprintf(os.Stderr, "bpfbroker: workload %s can't be controlled while it runs: %v\n", cfg.ID, err)
	} else {
		stop = func() { _ = s.Close() } // the process ends
	}
	if o.watch {
		if err := r.watch(o.policy); err != nil {
			stop()
			return nil, fmt.Errorf("run: --watch: %w", err)
		}
	}
	return stop, nil
}

// settle is how long a file must be left alone before it is read: editors write it in
// pieces.
const settle = 100 * time.Millisecond

// watch applies the policy in the file whenever it has changed.
func (r *running) watch(file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	last, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	// The directory, as most change a file by putting another in its place.
	if err := w.Add(filepath.Dir(file)); err != nil {
		return err
	}
	go func() {
		quiet := time.NewTimer(0)
		for {
			select {
			case _, ok := <-w.Events:
				if !ok {
					return
				}
				quiet.Reset(settle)
			case err := <-w.Errors:
				fmt.Fprintf(os.Stderr, "bpfbroker: watch %q: %v\n", file, err)
			case <-quiet.C:
				text, err := os.ReadFile(file)
				if err != nil || bytes.Equal(text, last) {
					continue // it is being replaced, or nothing has changed
				}
				last = text
				r.reload(file)
			}
		}
	}()
	return nil
}

// reload applies the policy in the file, and says what came of it.
func (r *running) reload(file string) {
	changed, err := r.Change(func(revoked bool) (policy.Policy, error) {
		if revoked {
			fmt.Fprintf(os.Stderr, "bpfbroker: %s has changed, and isn't applied: the workload's rights were withdrawn\n", file)
			return nil, nil
		}
		return findPolicy(file)
	})
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "bpfbroker: %s has changed, and isn't applied; the policy before stays in force:\n%v\n", file, err)
	case changed:
		fmt.Fprintf(os.Stderr, "bpfbroker: %s has changed, and is in force\n", file)
	}
}
