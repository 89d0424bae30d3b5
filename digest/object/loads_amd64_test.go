package object

import (
	"testing"

	"golang.org/x/sys/unix"
)

// arguments are those of the system call that a thread is about to make.
func arguments(t *testing.T, tid int) (nr uint64, args [3]uint64) {
	t.Helper()
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return 0, args // it is gone
	}
	return r.Orig_rax, [3]uint64{r.Rdi, r.Rsi, r.Rdx}
}
