package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfbroker/bpfbroker/policy"
)

// fake is a workload that notes what it is asked.
type fake struct {
	policy policy.Policy
	err    error
	asked  []string
}

func (f *fake) Status() Status {
	return Status{Policy: f.policy.Name(), Command: []string{"a\x00b\xff"}}
}

func (f *fake) Apply(p policy.Policy) error {
	f.asked = append(f.asked, "apply "+p.Name())
	if f.err == nil {
		f.policy = p
	}
	return f.err
}

func (f *fake) Revoke(detach, kill bool) (Revoked, error) {
	f.asked = append(f.asked, fmt.Sprint("revoke ", detach, kill))
	return Revoked{Links: 2, Left: []string{"xdp link 7"}, Killed: kill}, f.err
}

func builtin(t *testing.T, name string) policy.Policy {
	t.Helper()
	p, err := policy.Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func serve(t *testing.T, dir, id string) *fake {
	t.Helper()
	f := &fake{policy: builtin(t, "deny")}
	s, err := Serve(dir, id, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestRequests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "workloads")
	f := serve(t, dir, "run-1")
	c, err := Find(dir, "run-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"observe", "trusted"} { // with rules and without
		if err := c.Apply(builtin(t, name)); err != nil {
			t.Error(err)
		}
		if s, err := c.Status(); err != nil || s.Policy != name {
			t.Errorf("after %s: %+v, %v", name, s, err)
		}
	}
	if _, is := f.policy.(*policy.Rules); is {
		t.Error("trusted has rules")
	}
	if done, err := c.Revoke(true, false); err != nil || done.Links != 2 || len(done.Left) != 1 || done.Killed {
		t.Errorf("revoke: %+v, %v", done, err)
	}
	f.err = errors.New("not today")
	if err := c.Apply(builtin(t, "deny")); err == nil || err.Error() != `workload "run-1": not today` {
		t.Errorf("apply: %v", err)
	}
	if done, err := c.Revoke(false, true); err == nil || !done.Killed {
		t.Errorf("revoke: %+v, %v", done, err)
	}
	if got, want := fmt.Sprint(f.asked), "[apply observe apply trusted revoke true false apply deny revoke false true]"; got != want {
		t.Errorf("asked %s, not %s", got, want)
	}
}

// TestMalformed sends what no client of ours does.
func TestMalformed(t *testing.T) {
	dir := t.TempDir()
	f := serve(t, dir, "w")
	for _, c := range []struct{ send, want string }{
		{"", "EOF"},
		{"{", "unexpected EOF"},
		{`{"do": "nonsense"}`, "another version"},
		{`{"do": "apply", "policy": "none"}`, "no policy"},
		{`{"do": "apply", "rules": {"rules": 7}}`, "decode policy"},
		{`{"do": 7}`, "cannot unmarshal"},
		{`{"do": "` + strings.Repeat("x", maxMessage), "unexpected EOF"},
	} {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "w"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(c.send)) // it may have hung up
		_ = conn.CloseWrite()
		var r reply
		err = receive(conn, patience, &r)
		conn.Close()
		if len(c.send) > maxMessage && err != nil {
			continue // with what we sent unread, the connection is reset
		}
		if err != nil || !strings.Contains(r.Error, c.want) {
			t.Errorf("after %.50q: %v, %q", c.send, err, r.Error)
		}
	}
	if f.asked != nil {
		t.Errorf("asked %v", f.asked)
	}
}

// TestFind has several workloads, and what is left of one that was killed.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	if all, err := All(filepath.Join(dir, "none")); err != nil || all != nil {
		t.Errorf("without a directory: %v, %v", all, err)
	}
	if _, err := Find(dir, "x"); !errors.Is(err, ErrNone) {
		t.Errorf("of none: %v", err)
	}
	for _, id := range []string{"run-1a", "run-1b", "run-1"} {
		serve(t, dir, id)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "run-2"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	for id, want := range map[string]string{
		"run-1": "", "run-1a": "", "run-1b": "", "run-": "3 begin like that", "": "no such workload", "run-2": "there are run-1, run-1a, run-1b", "other": "no such",
	} {
		c, err := Find(dir, id)
		if want == "" && (err != nil || c.ID != id) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("find %q: %v, %v", id, c, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "run-2")); err == nil {
		t.Error("what is left of a workload isn't removed")
	}
}

// TestOthers has somebody else than root connect.
func TestOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "workloads")
	f := serve(t, dir, "w")
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", st.Mode(), err)
	}
	path := filepath.Join(dir, "w")
	if st, err = os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	// Even if both were wrong.
	for p := path; p != "/"; p = filepath.Dir(p) {
		if p != "/tmp" {
			if err := os.Chmod(p, 0o777); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := make(chan string)
	go func() { got <- askAs(65534, path, `{"do": "revoke"}`) }()
	if out := <-got; !strings.Contains(out, "only root may") || f.asked != nil {
		t.Errorf("another user: asked %v: %s", f.asked, out)
	}
}

// askAs connects as another user; the calling goroutine's thread remains it.
func askAs(uid uintptr, path, request string) string {
	runtime.LockOSThread() // and ends with the goroutine
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Sprint("become another user: ", e)
	}
	sock, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Sprint("make socket: ", err)
	}
	defer syscall.Close(sock)
	if err := syscall.Connect(sock, &syscall.SockaddrUnix{Name: path}); err != nil {
		return fmt.Sprint("connect: ", err)
	}
	if _, err := syscall.Write(sock, []byte(request)); err != nil && err != syscall.EPIPE { // it has answered already
		return fmt.Sprint("ask: ", err)
	}
	b := make([]byte, 4096)
	n, err := syscall.Read(sock, b)
	return fmt.Sprint(string(b[:max(n, 0)]), err)
}
