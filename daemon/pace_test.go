package daemon

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	for i := range burst {
		if d := p.wait(now.Add(time.Duration(i) * time.Millisecond)); d != 0 {
			t.Errorf("the start number %d waits for %v", i+1, d)
		}
	}
	end := now.Add(burst * time.Millisecond)
	for range 10 * burst {
		end = end.Add(p.wait(end))
	}
	if took := end.Sub(now); took < 10*period || took > 11*period {
		t.Errorf("%d starts took %v", 11*burst, took)
	}
	if d := p.wait(end.Add(2 * period)); d != 0 {
		t.Errorf("after a rest it waits for %v", d)
	}
}
