package serve

import (
	"sync"

	"github.com/bpfbroker/bpfbroker/control"
	"github.com/bpfbroker/bpfbroker/daemon"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Running is a workload that is served, as it is reached from outside. It implements
// control.Workload.
type Running struct {
	status control.Status
	keeper *daemon.Keeper
	kill   func() error
	mu     sync.Mutex // of the policy
	policy policy.Policy
}

// NewRunning returns one; status is what doesn't change of it, kill ends its processes.
func NewRunning(status control.Status, k *daemon.Keeper, p policy.Policy, kill func() error) *Running {
	return &Running{status: status, keeper: k, policy: p, kill: kill}
}

// Status implements control.Workload.
func (r *Running) Status() control.Status {
	s := r.status
	r.mu.Lock()
	s.Policy = r.policy.Name()
	r.mu.Unlock()
	sum := r.keeper.Summary()
	s.Served = sum.Served
	for _, d := range sum.Denied {
		s.Denied += uint64(d.Count)
	}
	return s
}

// Apply implements control.Workload.
func (r *Running) Apply(p policy.Policy) error {
	_, err := r.Change(func(bool) (policy.Policy, error) { return p, nil })
	return err
}

// Change applies the policy that choose returns, who is told whether the workload's rights
// were withdrawn; no other comes between. nil: it stays as it is.
func (r *Running) Change(choose func(revoked bool) (policy.Policy, error)) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := choose(r.policy == policy.Revoked)
	if err != nil || p == nil {
		return false, err
	}
	if err := r.keeper.Replace(p); err != nil {
		return false, err
	}
	r.policy = p
	return true, nil
}

// Revoke implements control.Workload.
func (r *Running) Revoke(detach, kill bool) (done control.Revoked, err error) {
	r.mu.Lock()
	r.policy = policy.Revoked
	err = r.keeper.Revoke()
	r.mu.Unlock()
	if err != nil && !kill {
		return done, err
	}
	if kill { // what holds links ends first
		if err := r.kill(); err != nil {
			return done, err
		}
		done.Killed = true
	}
	if detach {
		w, err := r.keeper.Withdraw()
		if err != nil && !kill { // which may have ended the workload
			return done, err
		}
		done.Links, done.Attached, done.Left = w.Links, w.Attached, w.Left
	}
	return done, nil
}
