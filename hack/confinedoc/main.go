// Confinedoc writes docs/confine.md: the list of the worker's seccomp filter.
package main

import (
	"fmt"
	"os"

	"github.com/bpfbroker/bpfbroker/confine"
)

func main() {
	if err := confine.WriteDocument(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
