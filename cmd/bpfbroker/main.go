// Bpfbroker lets unprivileged workloads use bpf() unmodified, while a policy
// decides each operation.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/launch"
)

// exitFailure is the exit code of bpfbroker's own errors. It is apart from what
// commands usually return, so that a script can tell the two (as env, nohup and
// podman run do).
const exitFailure = 125

// The process's first thread is main's own: /proc/self is that thread, whose fds,
// root and namespaces must stay the process's. Other threads go elsewhere
// (sys.Isolate).
func init() { runtime.LockOSThread() }

func main() {
	launch.Main()
	err := root().Execute()
	if err == nil {
		return
	}
	var coded *exitError
	if !errors.As(err, &coded) {
		coded = &exitError{err, exitFailure}
	}
	if coded.err != nil {
		fmt.Fprintln(os.Stderr, "bpfbroker:", coded.err)
	}
	os.Exit(coded.code)
}

// exitError is an error with the exit code that it asks for. A nil err has been told.
type exitError struct {
	err  error
	code int
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "bpfbroker",
		Short: "Use bpf() without privileges, each operation decided by a policy",
		Long: `Bpfbroker lets unprivileged workloads use the bpf() system call unmodified. It
intercepts their calls, decides on each by a policy, and performs what is allowed
in the workload's place.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.AddCommand(runCommand(), serveCommand(), profileCommand(), doctorCommand(), learnCommand(), psCommand(), revokeCommand(), policyCommand(), factsCommand(), auditCommand(), explainCommand(), digestCommand(), commandsCommand(), versionCommand(), workerCommand(), daemonCommand())
	return c
}
