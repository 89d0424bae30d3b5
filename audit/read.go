package audit

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/policy"
)

// Filter says which records of a log to look at; the zero value: all.
type Filter struct {
	Denied   bool   // only what was denied, and records that are missing
	Workload string // only of this one
	Since    time.Time
	Program  string // only with the program whose digest, of either kind, begins so
	Seq      uint64 // only this one
}

func (f *Filter) takes(e *Entry) bool {
	switch {
	case f.Workload != "" && e.Workload != f.Workload, e.Time.Before(f.Since):
		return false
	case e.Lost > 0:
		return f.Program == "" && f.Seq == 0
	case f.Denied && e.Decision.Verdict != policy.Deny, f.Seq != 0 && e.Seq != f.Seq:
		return false
	}
	return f.Program == "" || strings.HasPrefix(e.Program.Digest, f.Program) || strings.HasPrefix(e.Facts.Prog.Digest, f.Program)
}

// Read calls do for the records of a log that the filter takes, with their lines, until
// that returns an error. It returns how many lines are no records.
func Read(r io.Reader, f Filter, do func(*Entry, []byte) error) (strange int, err error) {
	in := bufio.NewReaderSize(r, 2*maxLine)
	for {
		line, err := in.ReadSlice('\n')
		for whole := err; errors.Is(whole, bufio.ErrBufferFull); { // it is no record, so where it ends doesn't matter
			_, whole = in.ReadSlice('\n')
		}
		if len(line) > 0 {
			e, bad := ParseLine(line)
			switch {
			case bad != nil:
				strange++
			case f.takes(e):
				if err := do(e, line); err != nil {
					return strange, err
				}
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return strange, err
		}
	}
}
