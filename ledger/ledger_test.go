package ledger

import (
	"fmt"
	"hash/fnv"
	"reflect"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The layout that version has, as TestLayout describes it.
const described = 0xdeda56a4

// A ledger that a worker of another version has left isn't misread: what lies in it,
// and what its phases are, has a version.
func TestLayout(t *testing.T) {
	var b strings.Builder
	var describe func(reflect.Type)
	describe = func(typ reflect.Type) {
		fmt.Fprintf(&b, "%v %d", typ, typ.Size())
		switch typ.Kind() {
		case reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				fmt.Fprintf(&b, " %s@%d:", f.Name, f.Offset)
				describe(f.Type)
			}
		case reflect.Array:
			describe(typ.Elem())
		}
	}
	describe(reflect.TypeFor[book]())
	fmt.Fprint(&b, Reading, Replying, Calling, Performing, Performed, Handing, Handed)
	h := fnv.New32a()
	h.Write([]byte(b.String()))
	if got := h.Sum32(); got != described {
		t.Errorf("the ledger is another one: %#x. Count the constant Layout up, and set described to that", got)
	}
}

func TestSlot(t *testing.T) {
	l, open := made(t)
	s := l.Slot(5)
	if s.Taken() || s.Waiting() != 0 {
		t.Error("an empty slot is taken")
	}
	s.Notif.ID = 77 // as the kernel does
	s.Begin()
	if !s.Taken() || s.Phase() != Reading || s.Waiting() <= 0 {
		t.Errorf("a call that was begun: %v, waiting %v", s.Phase(), s.Waiting())
	}
	s.Performing(9)
	next := open().Slot(5)
	if next.Phase() != Performing || next.Before != 9 || next.Waiting() != 0 {
		t.Errorf("the next worker sees %v, before %d", next.Phase(), next.Before)
	}
	next.Again()
	if next.Phase() != Performing || next.Before != 9 {
		t.Error("what was performing isn't any more, being begun anew")
	}
	s.Performed(3, sys.EBUSY)
	if v, e := next.Outcome(); next.Phase() != Performed || v != 3 || e != sys.EBUSY {
		t.Errorf("the outcome is %d, %v", v, e)
	}
	s.Free()
	if next.Taken() || next.Phase() != Reading {
		t.Error("it isn't free")
	}
}
