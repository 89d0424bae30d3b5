package broker

import (
	"os"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/workload"
)

func TestMain(m *testing.M) {
	if err := sys.PlacePoller(); err != nil { // as a worker does, before anything else
		panic(err)
	}
	os.Exit(m.Run())
}

// TestGone: a broker that can't receive says so, and which error it was.
func TestGone(t *testing.T) {
	none, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	trusted, err := policy.Builtin("trusted")
	if err != nil {
		t.Fatal(err)
	}
	file, err := ledger.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	book, err := ledger.Open(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	b, err := New(Config{Ledger: book, Listener: int(none.Fd()), Channel: int(none.Fd()), Token: -1, Known: &workload.Known{}, Policy: trusted})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Prepare(); err != nil {
		t.Fatal(err)
	}
	b.Start()
	select {
	case <-b.Gone():
	case <-time.After(time.Minute):
		t.Fatal("it serves a listener that is none")
	}
	if faults := book.Summary().Faults; len(faults) != 1 {
		t.Errorf("faults: %q, wanted one", faults)
	}
}

// What a call reads and writes anew has room in the ledger.
func TestInputsFit(t *testing.T) {
	if abi.AttrSize > ledger.InputSize {
		t.Errorf("an attribute has %d bytes", abi.AttrSize)
	}
	for _, kind := range []abi.Object{abi.Prog, abi.Map, abi.BTF, abi.Link, abi.Token} {
		if l := abi.InfoLayout(kind); l.Size > ledger.InputSize {
			t.Errorf("an information structure has %d bytes", l.Size)
		}
	}
}
