package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDocs runs every example of docs/policy.md, in an empty directory, in their order.
// A block is
//   - a file: ```yaml NAME. A policy that isn't expected to have mistakes is checked, cases
//     are asked (policy test).
//   - a session: ```console. Lines that begin with "$ " are executed by a shell; what they
//     print is compared with the lines that follow. In these … is any text, and on a line
//     of its own any lines.
//
// Any other block is an error: nothing in the document shall be untested.
func TestDocs(t *testing.T) {
	needRoot(t)
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	d := docs{t: t, dir: t.TempDir()}
	lines := strings.Split(string(text), "\n")
	n := 0
	for i := 0; i < len(lines); i++ {
		info, begins := strings.CutPrefix(lines[i], "```")
		if !begins {
			continue
		}
		first := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		d.block(first+1, strings.Fields(info), lines[first:min(i, len(lines))])
		n++
	}
	if n < 20 {
		t.Errorf("only %d blocks", n)
	}
}

type docs struct {
	t   *testing.T
	dir string
}

func (d *docs) block(line int, info, body []string) {
	d.t.Helper()
	switch {
	case len(info) == 2 && info[0] == "yaml":
		d.file(line, info[1], strings.Join(body, "\n")+"\n")
	case len(info) == 1 && info[0] == "console":
		d.session(line, body)
	default:
		d.t.Errorf("policy.md:%d: a block %q, which nobody tests", line, info)
	}
}

// file writes a file, and looks whether it is right.
func (d *docs) file(line int, name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	policy, cases := strings.CutSuffix(name, ".tests.yaml")
	switch {
	case cases:
		if out, err := d.run("bpfbroker policy test " + policy + ".yaml"); err != nil {
			d.t.Errorf("policy.md:%d: %s: %v\n%s", line, name, err, out)
		}
	case name != "mistakes.yaml":
		if out, err := d.run("bpfbroker policy check " + name); err != nil {
			d.t.Errorf("policy.md:%d: %s: %v\n%s", line, name, err, out)
		}
	}
}

// session executes commands.
func (d *docs) session(line int, body []string) {
	d.t.Helper()
	for i := 0; i < len(body); {
		command, is := strings.CutPrefix(body[i], "$ ")
		if !is {
			d.t.Errorf("policy.md:%d: %q is the output of no command", line+i, body[i])
			return
		}
		at := line + i
		var want []string
		for i++; i < len(body) && !strings.HasPrefix(body[i], "$ "); i++ {
			want = append(want, body[i])
		}
		out, _ := d.run(command)
		if !matches(want, string(out)) {
			d.t.Errorf("policy.md:%d: %s printed\n%s\nnot\n%s", at, command, out, strings.Join(want, "\n"))
		}
	}
}

func (d *docs) run(command string) ([]byte, error) {
	c := exec.Command("sh", "-c", command)
	c.Dir = d.dir
	c.Env = append(os.Environ(), "PATH="+filepath.Dir(broker)+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.WaitDelay = time.Second
	err := c.Run()
	return out.Bytes(), err
}

// matches compares what was printed with what was to be.
func matches(want []string, got string) bool {
	var re strings.Builder
	re.WriteString(`\A`)
	for _, l := range want {
		if l == "…" {
			re.WriteString(`(?:.*\n)*`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(l), "…", ".*") + `\n`)
	}
	re.WriteString(`\z`)
	return regexp.MustCompile(re.String()).MatchString(got)
}
