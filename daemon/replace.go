package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// A policy is replaced as a daemon is that has died: another one is started, which
// begins with a worker of its own. So no decision is half of one and half of the other,
// the worker's token and its capabilities are of the new ceiling, and calls that are
// under way are taken over: those that the kernel hasn't performed yet are decided anew.

// change is a policy that is to come into force.
type change struct {
	policy, before policy.Policy
	stays          bool // whatever becomes of it
	done           chan error
	over           bool
}

// end says what became of it. Where the daemon that it was for didn't come to serve, the
// policy before is in force again, unless the new one is to stay.
func (c *change) end(k *Keeper, ready bool, err error) {
	if c == nil || c.over {
		return
	}
	c.over = true
	if ready {
		err = nil
	} else if !c.stays {
		if e := k.decideBy(c.before); e != nil {
			err = errors.Join(err, e) // and daemons go on with the new one
		}
	}
	c.done <- err
}

// succession is what another goroutine than the keeper's sees of it.
type succession struct {
	mu   sync.Mutex
	sock *os.File   // to the daemon that serves; nil: there is none now
	wait *change    // for the next one
	over bool       // there is no next one
	one  sync.Mutex // held while the workload is changed from outside
}

var errWorkloadEnded = errors.New("the workload has ended")

// Replace has the workload served by another policy. When it returns without an error,
// nothing is decided by the one before any more; with one, all goes on as it was. What the
// workload holds, it keeps.
func (k *Keeper) Replace(p policy.Policy) error { return k.replace(p, false) }

// Revoke denies the workload everything from now on. What it holds, it keeps. If there is an
// error, nobody may serve it for now, and nothing is allowed any more either.
func (k *Keeper) Revoke() error { return k.replace(policy.Revoked, true) }

func (k *Keeper) replace(p policy.Policy, stays bool) error {
	if p.Ceiling().Loaders() && !k.loaders {
		return fmt.Errorf("policy %q allows programs of type syscall, for which the filter of this workload isn't made: begin the workload anew with it", p.Name())
	}
	s := &k.succession
	s.one.Lock()
	defer s.one.Unlock()
	if r, is := p.(*policy.Rules); is && k.nested && slices.ContainsFunc(r.Spec().Share, policy.Share.ToRead) {
		return fmt.Errorf("policy %q shares objects to be read alone, and this workload may hold programs with maps of maps, which could write to them: begin the workload anew with it, or give access: read-write", p.Name())
	}
	c := &change{policy: p, stays: stays, done: make(chan error, 1)}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return errWorkloadEnded
	}
	s.wait = c
	if s.sock != nil {
		sys.HangUp(int(s.sock.Fd())) // the daemon writes its log, and ends
	}
	s.mu.Unlock()
	return <-c.done
}

// serves notes by which socket the daemon hangs that runs now.
func (k *Keeper) serves(sock *os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sock = sock; sock != nil && k.wait != nil { // it came while this one was started
		sys.HangUp(int(sock.Fd()))
	}
}

// changing says whether a change waits for the next daemon.
func (k *Keeper) changing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wait != nil
}

// next prepares what the next daemon is started for; nil: nothing.
func (k *Keeper) next() *change {
	k.mu.Lock()
	c := k.wait
	k.wait = nil
	k.mu.Unlock()
	if c == nil {
		return nil
	}
	c.before = k.policy
	k.fresh = true
	if err := k.decideBy(c.policy); err != nil {
		c.end(k, false, err)
		return nil
	}
	return c
}

// end refuses changes from now on.
func (k *Keeper) end() {
	k.mu.Lock()
	k.over = true
	c := k.wait
	k.mu.Unlock()
	if c != nil {
		c.done <- errWorkloadEnded
	}
}

// ending says whether the workload has ended.
func (k *Keeper) ending() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.over
}

// decideBy has the next daemon decide by p.
func (k *Keeper) decideBy(p policy.Policy) error {
	var f *os.File
	if rules, is := p.(*policy.Rules); is {
		data, err := rules.Encode()
		if err != nil {
			return err
		}
		if f, err = sys.MemoryFile("bpfbroker-policy", data); err != nil {
			return err
		}
	}
	k.drop(fdPolicy)
	if f != nil {
		k.names, k.files = append(k.names, fdPolicy), append(k.files, f)
	}
	k.policy, k.nested = p, k.nested || p.Ceiling().MapsOfMaps()
	return nil
}
