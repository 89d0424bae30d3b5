//go:build !attack

package broker

import (
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
)

func (t *thread) attack(*notify.Notification) bool { return false }

func (t *thread) reached(int) {}

func (t *thread) log() perform.Log { return t.slot }
