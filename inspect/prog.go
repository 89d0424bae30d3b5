package inspect

import (
	"fmt"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/digest"
	"github.com/bpfbroker/bpfbroker/request"
)

// Instructions that call something: code u8, dst_reg:4 src_reg:4, off s16, imm s32.
const (
	insnSize = 8
	call     = 0x85 // BPF_JMP | BPF_CALL
	ofHelper = 0    // the source register's number: imm is a helper's

	// maxHelpers bounds how many names of numbers that no kernel has are kept.
	maxHelpers = 1024
)

// helpers are the names of the helpers that instructions call anywhere, each once,
// sorted. An instruction in the second half of another counts, too: nobody gains by it.
func helpers(insns []byte, to []string) []string {
	var known [512]bool
	var unknown []uint64
	for i := 0; i+insnSize <= len(insns); i += insnSize {
		if insns[i] != call || insns[i+1]>>4 != ofHelper {
			continue
		}
		n := abi.Uint(insns, uint32(i)+4, 4)
		switch {
		case n < uint64(len(known)):
			known[n] = true
		case len(unknown) < maxHelpers && !slices.Contains(unknown, n):
			unknown = append(unknown, n)
		}
	}
	for n, is := range known {
		if is {
			to = append(to, abi.Helpers.Name(uint64(n)))
		}
	}
	for _, n := range unknown {
		to = append(to, abi.Helpers.Name(n))
	}
	slices.Sort(to)
	return to
}

// unnamed is how a number is shown that has no name.
func unnamed(n uint64) string { return fmt.Sprintf("%d", n) }

// digestOf is the digest of the program that the request loads.
func digestOf(q *request.Request) string {
	return digest.Of(&digest.Program{Insns: data(q, "insns"), FDArray: data(q, "fd_array")}).String()
}
