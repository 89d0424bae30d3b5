package tracing

import (
	"os"
	"strings"
	"testing"
)

// What tools have defined isn't listed.
func TestTracepointsOf(t *testing.T) {
	f := newFake(t)
	f.put(t, "tracefs/events/sched/sched_switch/id", "316\n")
	f.put(t, "tracefs/events/printk/console/id", "3\n")
	got, err := f.tracepoints()
	if want := "3 printk:console\n316 sched:sched_switch\n"; string(got) != want || err != nil {
		t.Errorf("got %q (%v), wanted %q", got, err, want)
	}
	f.put(t, "tracefs/available_events", "")
	if _, err := f.tracepoints(); err == nil {
		t.Error("a list of nothing")
	}
}

func TestTracepoints(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
	list, err := Tracepoints()
	if err != nil || !strings.Contains(string(list), " sched:sched_switch\n") {
		t.Errorf("%d bytes without sched:sched_switch (%v)", len(list), err)
	}
	if b, err := Build(); err != nil || len(b) != 32 {
		t.Errorf("the build is %q (%v)", b, err)
	}
}
