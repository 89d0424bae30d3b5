package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Who may only read a map has it with a mode by which only that can be done; the broker
// sees to it that it is opened in no other way.
const (
	toRead  fs.FileMode = 0o444
	toWrite fs.FileMode = 0o666
)

var kindsByName = map[string]abi.Object{"map": abi.Map, "prog": abi.Prog, "link": abi.Link, "btf": abi.BTF}

// share shows the workload what its policy shares of the host's objects. They are held for
// as long as the daemon lives: an id that is given comes to mean nothing else.
func (s *supervisor) share() error {
	rules, is := s.policy.(*policy.Rules)
	if !is {
		return nil
	}
	var failed []error
	for _, sh := range rules.Spec().Share {
		if err := s.shareOne(sh); err != nil {
			failed = append(failed, fmt.Errorf("policy %q shares %s: %w", s.policy.Name(), sh, err))
		}
	}
	return errors.Join(failed...)
}

func (s *supervisor) shareOne(sh policy.Share) error {
	if sh.Path == "" {
		kind, id := kindsByName[sh.Kind], uint32(sh.ID)
		if _, err := perform.OpenID(kind, id); err != nil { // and it stays open
			return err
		}
		s.shared(kind, id, false)
		return nil
	}
	fd, kind, id, err := perform.OpenPath(sh.Path, sh.Write)
	if err != nil {
		return fmt.Errorf("%w; pin it first, or take it out of the policy", err)
	}
	if id == 0 {
		sys.Close(fd)
		return fmt.Errorf("it is a %v, which has no id", kind)
	}
	dir := s.files[fdBPFFS]
	if dir == nil {
		return fmt.Errorf("there is no fd %q", fdBPFFS)
	}
	mode := toRead
	if sh.Write || kind != abi.Map {
		mode = toWrite
	}
	if err := perform.Pin(dir, path.Base(sh.Path), fd, mode); err != nil {
		return fmt.Errorf("pin it in the workload's bpffs: %w", err)
	}
	s.shared(kind, id, sh.Write)
	return nil
}

// shared notes that an object is.
func (s *supervisor) shared(kind abi.Object, id uint32, write bool) {
	s.objects.Share(kind, id)
	if kind == abi.Map && !write && !slices.Contains(s.known.ReadOnly, id) {
		s.known.ReadOnly = append(s.known.ReadOnly, id)
	}
}
