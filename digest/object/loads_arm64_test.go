package object

import (
	"testing"

	"golang.org/x/sys/unix"
)

// arguments are those of the system call that a thread is about to make.
func arguments(t *testing.T, tid int) (nr uint64, args [3]uint64) {
	t.Helper()
	var r unix.PtraceRegsArm64
	if err := unix.PtraceGetRegSetArm64(tid, 1, &r); err != nil { // NT_PRSTATUS
		return 0, args // it is gone
	}
	return r.Regs[8], [3]uint64{r.Regs[0], r.Regs[1], r.Regs[2]}
}
