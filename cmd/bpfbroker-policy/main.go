// Bpfbroker-policy reads policies for bpfbroker, which starts it: it checks them, asks
// them cases, and makes of YAML and CEL what bpfbroker decides with.
//
// It is a program of its own because importing YAML and CEL takes a process 3 ms and 1 MiB
// before it does anything, and `bpfbroker run` is five processes, of which none needs
// them. Nor is a parser of theirs in a process that a workload could reach.
package main

import (
	"fmt"
	"os"

	"github.com/bpfbroker/bpfbroker/policy/load"
)

// Exit codes, as bpfbroker's own.
const (
	exitProblems = 1
	exitUsage    = 2
)

func main() {
	if len(os.Args) > 2 {
		files := os.Args[2:]
		switch os.Args[1] {
		case "check":
			os.Exit(check(files))
		case "test":
			os.Exit(test(files))
		case "compile":
			os.Exit(compile(files[0]))
		}
	}
	fmt.Fprintln(os.Stderr, "bpfbroker-policy: started by bpfbroker itself; see bpfbroker policy --help")
	os.Exit(exitUsage)
}

// check lists the mistakes of policies.
func check(files []string) int {
	bad := 0
	for _, path := range files {
		p, err := load.File(path)
		if err != nil {
			bad++
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		fmt.Printf("%s: policy %s, %d rules\n", path, p.Name(), len(p.Spec().Rules))
	}
	return problems(bad, len(files), "policies have mistakes")
}

// test asks policies the cases beside them.
func test(files []string) int {
	bad := 0
	for _, path := range files {
		n, failed, err := testOne(path)
		if err != nil {
			bad++
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		for _, f := range failed {
			fmt.Print(f.String())
		}
		if len(failed) > 0 {
			bad++
		}
		fmt.Printf("%s: %d cases, %d failed\n", path, n, len(failed))
	}
	return problems(bad, len(files), "policies failed")
}

func testOne(path string) (n int, failed []load.Failure, err error) {
	p, err := load.File(path)
	if err != nil {
		return 0, nil, err
	}
	cases, err := load.CasesFile(load.CasesPath(path))
	if err != nil {
		return 0, nil, err
	}
	return len(cases.List), cases.Run(p), nil
}

// compile writes what policy.Decode reads.
func compile(path string) int {
	p, err := load.File(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitProblems
	}
	data, err := p.Encode()
	if err == nil {
		_, err = os.Stdout.Write(data)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitProblems
	}
	return 0
}

func problems(bad, all int, what string) int {
	if bad == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "bpfbroker: %d of %d %s\n", bad, all, what)
	return exitProblems
}
