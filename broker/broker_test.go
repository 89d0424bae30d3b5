package broker

import (
	"os"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
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
	b := New(Config{Listener: int(none.Fd()), Policy: trusted})
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.Gone():
	case <-time.After(time.Minute):
		t.Fatal("it serves a listener that is none")
	}
	if err := <-b.Failed(); err == nil {
		t.Error("no error")
	}
}
