package tracing

import (
	"bytes"
	"errors"
	"os"
	"strings"
)

// openSymbols returns the directory of a copy of /proc/kallsyms with the addresses that
// the host's root sees; nil: it sees none, and so does the workload.
func (h *host) openSymbols(where store) (*os.File, error) {
	// Asked each time, as it may have been set since the copy was made.
	restrict, err := read(h.proc, "sys/kernel/kptr_restrict")
	if err != nil || strings.TrimSpace(string(restrict)) == "2" {
		return nil, err
	}
	build, err := h.build()
	if err != nil {
		return nil, err
	}
	f, err := where.open(digest(build), h.copySymbols)
	if errors.Is(err, errNoAddresses) {
		return nil, nil
	}
	return f, err
}

// errNoAddresses: such a copy isn't kept, as another caller may see more.
var errNoAddresses = errors.New("the kernel shows no addresses")

func (h *host) copySymbols(to *os.Root) error {
	all, err := read(h.proc, "kallsyms")
	if err != nil {
		return err
	}
	fixed, addresses := fixedSymbols(all)
	if !addresses {
		return errNoAddresses
	}
	w := writer{to: to}
	w.write(symbolsCopy, fixed)
	return w.err
}

// fixedSymbols are those of the kernel and its modules, without what comes and goes:
// BPF programs, trampolines. And whether one has an address.
func fixedSymbols(all []byte) (fixed []byte, addresses bool) {
	fixed = make([]byte, 0, len(all))
	for line := range bytes.Lines(all) {
		if _, module, ok := bytes.Cut(line, []byte("\t[")); ok &&
			(bytes.HasPrefix(module, []byte("bpf]")) || bytes.HasPrefix(module, []byte("__builtin__"))) {
			continue
		}
		addr, _, _ := bytes.Cut(line, []byte(" "))
		addresses = addresses || len(bytes.Trim(addr, "0")) > 0
		fixed = append(fixed, line...)
	}
	return fixed, addresses
}
