package e2e

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAuditSinks: a log goes to syslog and to the journal, as those who listen there get it.
func TestAuditSinks(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ sink, socket, prefix string }{
		{"syslog", "/dev/log", "<86>"}, // LOG_AUTHPRIV, LOG_INFO
		{"journald", "/run/systemd/journal/socket", ""},
	} {
		l, wrap, alone := listenThere(t, c.socket)
		b := wrap(brokered(probe("pins-opened"), "--audit="+c.sink))
		out, err := b.CombinedOutput()
		if err != nil || string(out) != "ok\n" {
			t.Errorf("%s: %v: %s", c.sink, err, out)
		}
		if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for buf := make([]byte, 64<<10); !strings.Contains(all.String(), `"command":"obj_get"`); {
			n, err := l.Read(buf)
			if err != nil {
				t.Fatalf("%s: %v; so far there came\n%s", c.sink, err, all.String())
			}
			m := string(buf[:n])
			if !strings.HasPrefix(m, c.prefix) || !strings.Contains(m, "bpfbroker") {
				t.Errorf("%s: %q", c.sink, m)
			}
			all.WriteString(m + "\n")
		}
		for _, want := range map[string][]string{
			"syslog":   {`"command":"map_create"`, `"command":"obj_pin"`},
			"journald": {`"command":"map_create"`, `"command":"obj_pin"`, "SYSLOG_IDENTIFIER", "PRIORITY"},
		}[c.sink] {
			if !strings.Contains(all.String(), want) {
				t.Errorf("%s: no %s in\n%s", c.sink, want, all.String())
			}
		}
		l.Close()
		if !alone {
			continue
		}
		// Where nobody listens that is said, and nothing is begun.
		if err := os.Remove(c.socket); err != nil {
			t.Error(err)
		}
		b = brokered(probe("pins-opened"), "--audit="+c.sink)
		if out, err := b.CombinedOutput(); err == nil || !strings.Contains(string(out), c.socket) || !strings.Contains(string(out), "Give a file instead") {
			t.Errorf("%s, of nobody: %v: %s", c.sink, err, out)
		}
	}
}

// listenThere listens where a daemon of the host's would. Where there is one, commands that
// are wrapped find us in its place; alone: there is none.
func listenThere(t *testing.T, path string) (l *net.UnixConn, wrap func(*exec.Cmd) *exec.Cmd, alone bool) {
	t.Helper()
	wrap = func(c *exec.Cmd) *exec.Cmd { return c }
	_, err := os.Lstat(path)
	if alone = errors.Is(err, fs.ErrNotExist); alone {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	} else {
		there := path
		path = filepath.Join(t.TempDir(), "socket")
		wrap = func(c *exec.Cmd) *exec.Cmd {
			const script = `mount --bind "$0" "$(readlink -f "$1")" && shift && exec "$@"`
			w := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, path, there}, c.Args...)...)
			w.Env, w.Dir = c.Env, c.Dir
			return w
		}
	}
	if l, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		_ = os.Remove(path)
	})
	return l, wrap, alone
}
