package audit

import (
	"slices"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Schema is the version of the records in a log. It is counted up when a reader of
// the version before would misread one; a new fact is no new version.
const Schema = 1

// Record is one decision and what came of it.
type Record struct {
	Time     time.Time // of the decision
	Workload string
	Seq      uint64 // of the workload's decisions, from 1 on: one that is missing was lost

	// Facts are those of the operation. Has says which are there: others are zero, or
	// Facts.Unknown says why they aren't known.
	Facts facts.Facts
	Has   facts.Set
	Cut   facts.Set // too long for a record: only the beginning is there

	Policy   string
	Decision policy.Decision

	Outcome Outcome
	Took    time.Duration // from when the call was received to right before its answer

	// Attempt is 1, or more if the worker before was killed over the call: what that one
	// noted of the same call may be in the log, too.
	Attempt int
	// Program is the program's instructions, or where they are: see Programs.
	Program Program
}

// How an operation ended.
const (
	Answered  = iota
	Continued // the kernel decides, with the workload's own rights
	Gone      // the thread had ended, or was interrupted, before it could be told
)

// Outcome is what came of an operation.
type Outcome struct {
	How      uint8
	Errno    sys.Errno // 0: it succeeded
	Kind     string    // of the object that an fd was made of, "" for none
	ID       uint64    // the object's id, 0: it has none
	Tag      uint64    // as in Ended
	ByDaemon bool      // the daemon performed it, or denied it
}

// Program says where a program's instructions are. The zero value: they weren't to be
// kept.
type Program struct {
	Insns  []byte // before they are stored
	Digest string // SHA-256 of the instructions, in hexadecimal, after it
	Why    string // they weren't kept
}

// String is the outcome in one word: "ok", the errno's name, "continued", "gone".
func (o Outcome) String() string {
	switch o.How {
	case Continued:
		return "continued"
	case Gone:
		return "gone"
	}
	if o.Errno == 0 {
		return "ok"
	}
	return sys.ErrnoName(o.Errno)
}

// inHead are facts that a record has elsewhere.
var inHead = []string{"command", "workload.id", "workload.thread"}

// table lists, for each command, the numbers in facts.Table of the facts that a record
// of it may have; "" stands for commands that the table doesn't know.
var table = sync.OnceValue(func() map[string][]uint8 {
	m := map[string][]uint8{"": nil}
	for _, f := range facts.Table {
		for _, c := range f.On {
			m[c] = nil
		}
	}
	for c := range m {
		for i := range facts.Table {
			if f := &facts.Table[i]; f.Has(c) && !slices.Contains(inHead, f.Name) {
				m[c] = append(m[c], uint8(i))
			}
		}
	}
	return m
})

// Has says which facts a record of f has.
func Has(f *facts.Facts) (s facts.Set) {
	for _, i := range factsOf(f.Command) {
		if !empty(facts.Table[i].At(f)) {
			s.AddNumber(int(i))
		}
	}
	return s
}

func factsOf(command string) []uint8 {
	if list, ok := table()[command]; ok {
		return list
	}
	return table()[""]
}

// empty says whether the fact at p is as it is where nothing was found: 0, false, "",
// nothing in it. Such facts aren't in a record.
func empty(p any) bool {
	switch p := p.(type) {
	case *string:
		return *p == ""
	case *int64:
		return *p == 0
	case *bool:
		return !*p
	case *[]string:
		return len(*p) == 0
	case *[]int64:
		return len(*p) == 0
	case *map[string]string:
		return len(*p) == 0
	}
	return false
}
