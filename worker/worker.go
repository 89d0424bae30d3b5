// Package worker is the process around a broker: one per workload, in the
// workload's network namespace and in a cgroup beside its own, outside its pid
// namespace. It holds the listener and does the whole way of every operation.
//
// Start (in the parent) prepares what a process can't do for itself later, in
// this order: on a thread of its own, enter the workload's network namespace;
// take all capabilities but those of Capabilities out of the bounding set; set
// no_new_privs; fork into the workload's worker cgroup; execute this binary
// anew. Main (in the worker) serves until the last process of the workload has
// ended.
package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/bpfbroker/bpfbroker/broker"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Capabilities are those that a worker keeps, each with its reason.
var Capabilities = []sys.Capability{
	sys.CAP_BPF,        // most commands
	sys.CAP_PERFMON,    // tracing programs
	sys.CAP_NET_ADMIN,  // network programs, PROG_QUERY
	sys.CAP_SYS_ADMIN,  // object ids, entering a network namespace
	sys.CAP_SYS_PTRACE, // the target's memory and fds
	sys.CAP_SYS_CHROOT, // taking the target's root
	sys.CAP_SETUID,     // acting with the caller's uid
	sys.CAP_SETGID,     // and its gid and groups
	sys.CAP_SYSLOG,     // kernel addresses in a program's info, as root sees them
}

// Config is what a worker serves.
type Config struct {
	ID       string   // the workload's
	Policy   string   // name of a built-in policy
	Listener *os.File // the seccomp listener
	NetNS    *os.File // the workload's network namespace
	Cgroup   *os.File // directory of the worker's cgroup (v2)
}

// Process is a running worker.
type Process struct {
	cmd     *exec.Cmd
	control net.Conn
	report  chan Report
}

// Report is what a worker says at its end.
type Report struct {
	Served uint64   // calls received
	Denied []Denied // what the policy denied, most frequent first
	Errors []string // internal faults
}

// The fds that a worker finds open.
const (
	listenerFD = 3
	controlFD  = 4
)

// Arg is the sub-command that makes this binary a worker.
const Arg = "worker"

// Start starts a worker. It returns once the worker serves the listener.
func Start(cfg Config) (*Process, error) {
	type result struct {
		p   *Process
		err error
	}
	done := make(chan result)
	go func() { // its OS thread ends with it: namespaces and bounding set are changed for good
		p, err := start(cfg)
		done <- result{p, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("start worker of workload %q: %w", cfg.ID, r.err)
	}
	return r.p, nil
}

func start(cfg Config) (*Process, error) {
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	defer theirs.Close()
	if err := sys.BecomeWorkerParent(int(cfg.NetNS.Fd()), Capabilities); err != nil {
		ours.Close()
		return nil, err
	}
	control, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{"bpfbroker", Arg, "--id=" + cfg.ID, "--policy=" + cfg.Policy},
		Env: []string{"GODEBUG=madvdontneed=1", "GOTRACEBACK=single",
			// Serving threads sleep in the kernel, where the scheduler takes their
			// processor only after a while: with one alone, every call waits.
			fmt.Sprintf("GOMAXPROCS=%d", max(4, runtime.NumCPU()))},
		Dir:        "/",
		Stderr:     os.Stderr,
		ExtraFiles: []*os.File{cfg.Listener, theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:      true, // the terminal's signals are the workload's
			UseCgroupFD: cfg.Cgroup != nil,
		},
	}
	if cfg.Cgroup != nil {
		cmd.SysProcAttr.CgroupFD = int(cfg.Cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		control.Close()
		return nil, err
	}
	theirs.Close()
	p := &Process{cmd: cmd, control: control, report: make(chan Report, 1)}
	r := bufio.NewReader(control)
	line, err := r.ReadString('\n')
	if line != ready {
		control.Close()
		cmd.Wait()
		if line = strings.TrimSpace(line); line == "" {
			line = fmt.Sprintf("it ended before it was ready (%v)", err)
		}
		return nil, errors.New(line)
	}
	go p.wait(r)
	return p, nil
}

const ready = "ready\n"

func (p *Process) wait(r io.Reader) {
	var rep Report
	if err := json.NewDecoder(r).Decode(&rep); err != nil {
		rep.Errors = append(rep.Errors, fmt.Sprintf("worker ended without a report: %v", err))
	}
	if err := p.cmd.Wait(); err != nil {
		rep.Errors = append(rep.Errors, "worker: "+err.Error())
	}
	p.report <- rep
}

// PID returns the worker's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended receives the worker's report once it has ended.
func (p *Process) Ended() <-chan Report { return p.report }

// Close gives the control connection up. The worker ends by itself with the last
// process of its workload.
func (p *Process) Close() { p.control.Close() }

// Main is the worker process: it serves until the workload has ended. It returns
// the exit code; an error goes to whoever has started it.
func Main(id, policyName string) int {
	control := os.NewFile(controlFD, "control")
	err := serve(id, policyName, control)
	if err == nil {
		return 0
	}
	if _, lost := fmt.Fprintln(control, err); lost != nil {
		fmt.Fprintln(os.Stderr, "bpfbroker: worker:", err)
	}
	return 1
}

func serve(id, policyName string, control *os.File) error {
	if err := sys.PlacePoller(); err != nil {
		return err
	}
	pol, err := policy.Builtin(policyName)
	if err != nil {
		return err
	}
	if err := sys.CloseOnExec(listenerFD, controlFD); err != nil {
		return err
	}
	// Executed as /proc/self/exe, it would be called "exe" in ps.
	if err := os.WriteFile("/proc/self/comm", []byte("bpfbroker"), 0); err != nil {
		return fmt.Errorf("name the process: %w", err)
	}
	if err := sys.SetNotDumpable(); err != nil {
		return err
	}
	var summary summary
	b := broker.New(broker.Config{Listener: listenerFD, Workload: id, Policy: pol, Record: summary.record})
	if err := b.Start(); err != nil {
		return err
	}
	if _, err := io.WriteString(control, ready); err != nil {
		return err
	}
	go func() {
		for err := range b.Failed() {
			summary.fault(err)
		}
	}()
	hungUp := make(chan error, 1)
	go func() { hungUp <- sys.WaitHangUp(listenerFD) }()
	select {
	case err := <-hungUp:
		if err != nil {
			return fmt.Errorf("wait for the end of the workload: %w", err)
		}
	case <-b.Gone():
		// Our end closes the listener: calls fail instead of waiting for ever.
		summary.fault(errors.New("worker: no thread is left to serve; later calls fail"))
	}
	return json.NewEncoder(control).Encode(summary.report(b.Served()))
}
