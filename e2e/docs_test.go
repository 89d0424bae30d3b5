package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	running "github.com/bpfbroker/bpfbroker/control"
)

// TestDocs runs every example of docs/policy.md as a reader would: one after the other, in
// one shell, as root, in an empty directory.
// A block is
//   - a file: ```LANGUAGE NAME. Of yaml, a policy is checked, and cases are asked (policy
//     test). Each policy but the one with mistakes has cases: something that it allows, and
//     something that it denies.
//   - a session: ```console. Lines that begin with "$ " are commands; what they print is
//     compared with the lines that follow. In these … is any text, and on a line of its own
//     any lines. A command must succeed, unless the next one is "echo $?", which shows with
//     what it ended. After a command that runs a workload in the background, the next waits
//     until ps lists it.
//
// Any other block is an error: nothing in the document shall be untested.
func TestDocs(t *testing.T) {
	needRoot(t)
	for _, tool := range []string{"bpftool", "bpftrace", "clang", "gcc", "ip"} {
		installed(t, tool)
	}
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	d := docs{t: t, dir: readable(t), policies: map[string]int{}, cases: map[string]bool{}}
	d.begin()
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		info, begins := strings.CutPrefix(lines[i], "```")
		if !begins {
			continue
		}
		first := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		d.block(first+1, strings.Fields(info), lines[first:min(i, len(lines))])
	}
	for name, line := range d.policies {
		if !d.cases[name] {
			t.Errorf("policy.md:%d: %s has no cases", line, name)
		}
	}
	if len(d.policies) < 10 {
		t.Errorf("only %d policies", len(d.policies))
	}
	if n := d.workloads(); n > 0 {
		t.Errorf("%d workloads run at the document's end", n)
	}
	d.end()
}

type docs struct {
	t   *testing.T
	dir string

	shell *exec.Cmd
	in    io.WriteCloser
	pipe  *os.File // what it prints
	out   *bufio.Reader

	policies map[string]int  // their lines
	cases    map[string]bool // those that have them
}

// reader is a shell's program: it executes lines of fd 3, and says after each, in a line
// that begins with $mark, how it ended. What ps lists, and what the host has pinned, is the
// document's own.
const reader = `
mkdir -p -m 700 "$workloads"
mount -t tmpfs -o mode=0700 docs "$workloads" && mount -t bpf docs /sys/fs/bpf || exit
status=0
while IFS= read -r line <&3; do
	(exit $status)
	eval "$line" 3<&- </dev/null
	status=$?
	printf '\n%s %d\n' "$mark" $status
done`

const mark = "=== ended:"

func (d *docs) begin() {
	commands, in, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, printed, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", reader)
	c.Dir = d.dir
	c.Env = append(os.Environ(), "PATH="+filepath.Dir(broker)+":"+os.Getenv("PATH"), "mark="+mark, "workloads="+running.Dir)
	c.ExtraFiles = []*os.File{commands}
	c.Stdout, c.Stderr = printed, printed
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	commands.Close()
	printed.Close()
	d.shell, d.in, d.pipe, d.out = c, in, out, bufio.NewReader(out)
	d.t.Cleanup(func() {
		in.Close()
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // with what it runs in the background
		c.Wait()
		out.Close()
	})
}

// end ends the shell.
func (d *docs) end() {
	d.in.Close()
	if err := d.shell.Wait(); err != nil {
		d.t.Errorf("the shell: %v", err)
	}
}

// run has the shell execute a command, and returns what was printed and its exit status.
func (d *docs) run(command string) (out string, status int) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, command+"\n"); err != nil {
		d.t.Fatal(err)
	}
	if err := d.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	var printed strings.Builder
	for {
		line, err := d.out.ReadString('\n')
		if err != nil {
			d.t.Fatalf("%s doesn't end (%v): %s%s", command, err, printed.String(), line)
		}
		code, ends := strings.CutPrefix(line, mark+" ")
		if !ends {
			printed.WriteString(line)
			continue
		}
		if status, err = strconv.Atoi(strings.TrimSpace(code)); err != nil {
			d.t.Fatal(err)
		}
		out = strings.TrimSuffix(printed.String(), "\n") // the mark's own
		if out != "" && !strings.HasSuffix(out, "\n") {
			out += "\n"
		}
		return out, status
	}
}

// workloads is how many ps lists.
func (d *docs) workloads() int {
	d.t.Helper()
	out, status := d.run("bpfbroker ps")
	if status != 0 {
		d.t.Fatalf("ps: exit status %d: %s", status, out)
	}
	return strings.Count(out, "\n") - 1
}

func (d *docs) block(line int, info, body []string) {
	d.t.Helper()
	switch {
	case len(info) == 2:
		d.file(line, info[0], info[1], strings.Join(body, "\n")+"\n")
	case len(info) == 1 && info[0] == "console":
		d.session(line, body)
	default:
		d.t.Errorf("policy.md:%d: a block %q, which nobody tests", line, info)
	}
}

// file writes a file, and looks whether it is right.
func (d *docs) file(line int, language, name, text string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if language != "yaml" || name == "mistakes.yaml" {
		return
	}
	command := "bpfbroker policy check " + name
	if policy, is := strings.CutSuffix(name, ".tests.yaml"); is {
		command = "bpfbroker policy test " + policy + ".yaml"
		d.cases[policy+".yaml"] = true
		for _, verdict := range []string{"allow", "deny"} {
			if !strings.Contains(text, "want: {verdict: "+verdict) {
				d.t.Errorf("policy.md:%d: no case of %s wants %s", line, policy, verdict)
			}
		}
	} else {
		d.policies[name] = line
	}
	if out, status := d.run(command); status != 0 {
		d.t.Errorf("policy.md:%d: %s: exit status %d\n%s", line, command, status, out)
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
		background := strings.HasPrefix(command, "bpfbroker run ") && strings.HasSuffix(command, " &")
		before := 0
		if background {
			before = d.workloads()
		}
		out, status := d.run(command)
		if !matches(want, out) {
			d.t.Errorf("policy.md:%d: %s printed\n%s\nnot\n%s", at, command, out, strings.Join(want, "\n"))
		}
		if shown := i < len(body) && body[i] == "$ echo $?"; status != 0 && !shown {
			d.t.Errorf("policy.md:%d: %s: exit status %d, which isn't shown\n%s", at, command, status, out)
		}
		if background {
			eventually(d.t, fmt.Sprintf("ps lists %s", command), func() bool { return d.workloads() > before })
		}
	}
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
