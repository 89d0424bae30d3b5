package launch

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// terminal is a pty with a job-controlling shell on it.
type terminal struct {
	t    *testing.T
	ptmx *os.File
	name string
	sh   *exec.Cmd

	mu   sync.Mutex
	out  bytes.Buffer
	from int // what was expected so far
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		// devpts may be mounted with ptmxmode=000 beside a device node.
		t.Fatal(err)
	}
	var unlock, n int32
	unix.Syscall(unix.SYS_IOCTL, ptmx.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock)))
	unix.Syscall(unix.SYS_IOCTL, ptmx.Fd(), unix.TIOCGPTN, uintptr(unsafe.Pointer(&n)))
	tt := &terminal{t: t, ptmx: ptmx, name: fmt.Sprintf("/dev/pts/%d", n)}
	tt.resize(24, 80)
	pts, err := os.OpenFile(tt.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	tt.sh = exec.Command("bash", "--norc", "--noediting", "-i")
	tt.sh.Dir = "/"
	tt.sh.Env = append(os.Environ(), "PS1=PROMPT> ", "TERM=dumb", "RUN="+runner, "HISTFILE=")
	tt.sh.Stdin, tt.sh.Stdout, tt.sh.Stderr = pts, pts, pts
	tt.sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := tt.sh.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := ptmx.Read(b)
			tt.mu.Lock()
			tt.out.Write(b[:n])
			tt.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		tt.sh.Process.Kill()
		tt.sh.Wait()
		ptmx.Close()
	})
	tt.expect("PROMPT> ")
	tt.line("stty -echo")
	tt.expect("PROMPT> ")
	return tt
}

func (tt *terminal) resize(rows, cols uint16) {
	unix.IoctlSetWinsize(int(tt.ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}

func (tt *terminal) line(s string) { io.WriteString(tt.ptmx, s+"\n") }
func (tt *terminal) key(c byte)    { tt.ptmx.Write([]byte{c}) }

// expect waits for text after what was expected before, and returns what came in
// between.
func (tt *terminal) expect(text string) (before string) {
	tt.t.Helper()
	defer func() {
		if tt.t.Failed() {
			tt.mu.Lock()
			tt.t.Logf("the terminal shows:\n%s", tt.out.String())
			tt.mu.Unlock()
		}
	}()
	eventually(tt.t, fmt.Sprintf("the terminal shows %q; it shows %q", text, tt.rest()), func() bool {
		rest := tt.rest()
		i := strings.Index(rest, text)
		if i < 0 {
			return false
		}
		before = rest[:i]
		tt.from += i + len(text)
		return true
	})
	return before
}

func (tt *terminal) rest() string {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return tt.out.String()[tt.from:]
}

// run is the start of a command line.
func (tt *terminal) run(flags string) string { return "$RUN -id " + newID() + " " + flags + " " }

func TestTerminal(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		t.Run(pid, func(t *testing.T) {
			tt := newTerminal(t)
			var st syscall.Stat_t
			if err := syscall.Stat(tt.name, &st); err != nil {
				t.Fatal(err)
			}

			tt.line(tt.run(pid) + `sh -c 'tty; echo one >$(tty); echo two >/dev/tty; echo three >/dev/stdout; stty size; echo done'`)
			got := tt.expect("done")
			equal(t, "by name", strings.ReplaceAll(got, "\r", ""), tt.name+"\none\ntwo\nthree\n24 80")
			tt.expect("PROMPT> ")
			checkOwner(t, tt.name, st.Uid, st.Gid, st.Mode&0o7777)

			tt.line(tt.run(pid) + probe + fmt.Sprint(" count ", int(syscall.SIGWINCH)))
			tt.expect("ready")
			tt.resize(30, 90)
			tt.expect("got")
			tt.key(3) // Ctrl-C
			if before := tt.expect("PROMPT> "); strings.Contains(before, "got") {
				t.Errorf("SIGWINCH came twice")
			}
			tt.line("echo rc=$?.")
			tt.expect("rc=130.")
			tt.expect("PROMPT> ")
			tt.line(tt.run(pid) + "stty size")
			tt.expect("30 90")
			tt.expect("PROMPT> ")

			tt.line(tt.run(pid) + `bash -c 'trap "echo int" INT; trap "echo quit; exit 5" QUIT; echo ready; while :; do read -t 0.2 x; done'`)
			tt.expect("ready")
			tt.key(3)
			tt.expect("int")
			tt.key(28) // Ctrl-\
			if before := tt.expect("quit"); strings.Contains(before, "int") {
				t.Errorf("SIGINT came twice")
			}
			tt.expect("PROMPT> ")
			tt.line("echo rc=$?.")
			tt.expect("rc=5.")
			tt.expect("PROMPT> ")

			// Stop, continue in the foreground, and read again.
			tt.line(tt.run(pid) + `bash -c 'trap "echo continued" CONT; echo ready; while read x; do echo "got $x"; done'`)
			tt.expect("ready")
			tt.line("a")
			tt.expect("got a")
			tt.key(26) // Ctrl-Z
			tt.expect("Stopped")
			tt.expect("PROMPT> ")
			tt.line("fg")
			tt.expect("continued")
			tt.line("b")
			tt.expect("got b")
			tt.key(4) // Ctrl-D
			tt.expect("PROMPT> ")

			// A job in the background that reads is stopped.
			tt.line(tt.run(pid) + "cat &")
			tt.expect("PROMPT> ")
			tt.line("until jobs | grep -q Stopped; do sleep 0.01; done; jobs; echo listed")
			if before := tt.expect("listed"); !strings.Contains(before, "tty input") && !strings.Contains(before, "Stopped") {
				t.Errorf("jobs: %q", before)
			}
			tt.expect("PROMPT> ")
			tt.line("fg")
			tt.line("hello")
			tt.expect("hello")
			tt.key(4)
			tt.expect("PROMPT> ")

			// In a pipeline the whole job gets Ctrl-C.
			tt.line(tt.run(pid) + `sh -c 'echo ready >&2; sleep 1000' | cat`)
			tt.expect("ready")
			tt.key(3)
			tt.expect("PROMPT> ")

			tt.line("exit")
			eventually(t, "all is gone", func() bool { return len(leftovers("")) == 0 })
		})
	}
}

// TestInteractiveShell has a shell with job control as CMD, which makes process
// groups of its own.
func TestInteractiveShell(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		tt := newTerminal(t)
		tt.line("PS1=INNER'> ' " + tt.run(pid) + "bash --norc --noediting -i") // not the prompt's text: fg shows it
		tt.expect("INNER> ")
		tt.line("cat")
		tt.line("hello")
		tt.expect("hello")
		tt.key(26) // Ctrl-Z
		tt.expect("Stopped")
		tt.expect("INNER> ")
		tt.line("fg")
		tt.expect("cat")
		tt.line("again")
		tt.expect("again")
		tt.key(3) // Ctrl-C
		tt.expect("INNER> ")
		tt.line("echo rc=$?.")
		tt.expect("rc=130.")
		tt.expect("INNER> ")
		tt.line("suspend -f")
		tt.expect("PROMPT> ")
		tt.line("fg")
		tt.expect("INNER> ")
		tt.line("exit 9")
		tt.expect("PROMPT> ")
		tt.line("echo rc=$?.")
		tt.expect("rc=9.")
	}
}

// TestCtrlCAtAnyMoment interrupts runs from their start on. The shell always
// learns that it was SIGINT.
func TestCtrlCAtAnyMoment(t *testing.T) {
	needRoot(t)
	tt := newTerminal(t)
	for i := range 40 {
		tt.line(tt.run(bothPID[i%2]) + "sleep 1000")
		eventually(t, "the shell has executed the runner", func() bool {
			group, _ := unix.IoctlGetInt(int(tt.ptmx.Fd()), unix.TIOCGPGRP)
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", group))
			return string(comm) == "runner\n"
		})
		time.Sleep(time.Duration(rand.IntN(25_000)) * time.Microsecond)
		tt.key(3)
		before := tt.expect("PROMPT> ")
		tt.line("echo rc=$?.")
		if rc := tt.expect("PROMPT> "); !strings.Contains(rc, "rc=130.") {
			t.Errorf("%s%s", before, rc)
		}
	}
	eventually(t, "all is gone", func() bool { return len(leftovers("")) == 0 })
}
