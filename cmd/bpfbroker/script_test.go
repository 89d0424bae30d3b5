package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bpfbroker/bpfbroker/launch"
)

func TestMain(m *testing.M) {
	launch.Main() // in a process that this binary started as a stage or guardian
	testscript.Main(m, map[string]func(){"bpfbroker": main})
}

// TestScripts runs the command lines in testdata/*.txtar. Those whose name begins
// with "run" start workloads.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Geteuid() == 0 && !testing.Short(), nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE COMMAND… runs a command that must exit with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var e *exec.ExitError
	if errors.As(err, &e) {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if (got == want) == neg {
		ts.Fatalf("exit code %d, wanted %d", got, want)
	}
}
