package daemon

import "time"

// pace spaces what is started again and again. A few times in a row it waits for
// nothing: nobody should notice that a worker was killed. But who kills its own all
// the time shouldn't keep the host busy.
type pace struct {
	last [burst]time.Time // when the last ones were, in turn
	next int
}

const (
	burst  = 20
	period = time.Second
)

// wait is how long to wait at now.
func (p *pace) wait(now time.Time) time.Duration {
	at := now
	if first := p.last[p.next].Add(period); first.After(now) {
		at = first
	}
	p.last[p.next] = at
	p.next = (p.next + 1) % burst
	return at.Sub(now)
}
