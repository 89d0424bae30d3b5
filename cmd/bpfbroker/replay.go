package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/audit"
)

// replay asks policies what they would decide on the operations in a log.
func replay(c *cobra.Command, log, workload string, files []string) error {
	var all []*audit.Replay
	for _, path := range files {
		p, err := findPolicy(path)
		if err != nil {
			return &exitError{err, exitProblems}
		}
		all = append(all, audit.NewReplay(p))
	}
	err := readLogs(c, []string{log}, audit.Filter{Workload: workload}, func(e *audit.Entry, _ []byte) error {
		for _, r := range all {
			r.Add(e)
		}
		return nil
	})
	if err != nil {
		return &exitError{err, exitProblems}
	}
	bad := 0
	for i, r := range all {
		if i > 0 {
			fmt.Fprintln(c.OutOrStdout())
		}
		r.Print(c.OutOrStdout())
		if r.Changes() > 0 {
			bad++
		}
	}
	if bad > 0 {
		return &exitError{fmt.Errorf("%d of %d policies would decide otherwise than %s says", bad, len(all), log), exitProblems}
	}
	return nil
}
