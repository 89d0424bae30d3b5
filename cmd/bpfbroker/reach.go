package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/bpfbroker/bpfbroker/control"
	"github.com/bpfbroker/bpfbroker/daemon"
	"github.com/bpfbroker/bpfbroker/launch"
	"github.com/bpfbroker/bpfbroker/policy"
)

// running is a workload of run's, as it is reached from outside.
type running struct {
	status control.Status
	w      *launch.Workload
	k      *daemon.Keeper
	mu     sync.Mutex // of the policy
	policy policy.Policy
}

// reachable lets the workload be controlled, until stop. Where there can be no socket,
// as where /run isn't writable, that is said, and the workload runs.
func (o *runOptions) reachable(cfg launch.Config, w *launch.Workload, k *daemon.Keeper) (stop func(), err error) {
	r := &running{w: w, k: k, policy: o.decides, status: control.Status{ID: cfg.ID, PID: os.Getpid(), Command: cfg.Args, Began: time.Now()}}
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

// Status implements control.Workload.
func (r *running) Status() control.Status {
	s := r.status
	r.mu.Lock()
	s.Policy = r.policy.Name()
	r.mu.Unlock()
	sum := r.k.Summary()
	s.Served = sum.Served
	for _, d := range sum.Denied {
		s.Denied += uint64(d.Count)
	}
	return s
}

// Apply implements control.Workload.
func (r *running) Apply(p policy.Policy) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.apply(p)
}

// apply is Apply for who has the lock.
func (r *running) apply(p policy.Policy) error {
	if err := r.k.Replace(p); err != nil {
		return err
	}
	r.policy = p
	return nil
}

// Revoke implements control.Workload.
func (r *running) Revoke(detach, kill bool) (done control.Revoked, err error) {
	r.mu.Lock()
	r.policy = policy.Revoked
	err = r.k.Revoke()
	r.mu.Unlock()
	if err != nil && !kill {
		return done, err
	}
	if kill { // what holds links ends first
		if err := r.w.Kill(); err != nil {
			return done, err
		}
		done.Killed = true
	}
	if detach {
		w, err := r.k.Withdraw()
		if err != nil && !kill { // which may have ended the workload
			return done, err
		}
		done.Links, done.Attached, done.Left = w.Links, w.Attached, w.Left
	}
	return done, nil
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policy == policy.Revoked {
		fmt.Fprintf(os.Stderr, "bpfbroker: %s has changed, and isn't applied: the workload's rights were withdrawn\n", file)
		return
	}
	p, err := findPolicy(file)
	if err == nil {
		err = r.apply(p)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bpfbroker: %s has changed, and isn't applied; the policy before stays in force:\n%v\n", file, err)
		return
	}
	fmt.Fprintf(os.Stderr, "bpfbroker: %s has changed, and is in force\n", file)
}
