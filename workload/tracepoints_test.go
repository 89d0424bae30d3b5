package workload

import "testing"

func TestTracepoints(t *testing.T) {
	list := Tracepoints("16 a:b\n316 sched:sched_switch\n31 c:d\n")
	for id, want := range map[uint64]string{16: "a:b", 316: "sched:sched_switch", 31: "c:d", 6: "", 3: "", 1 << 63: ""} {
		if got, err := list.Name(id); got != want || (err == nil) != (want != "") {
			t.Errorf("%d: got %q (%v), wanted %q", id, got, err, want)
		}
	}
	if _, err := Tracepoints(nil).Name(0); err == nil {
		t.Error("there is one in an empty list")
	}
}
