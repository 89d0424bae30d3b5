package audit

import (
	"testing"

	"github.com/bpfbroker/bpfbroker/internal/brokertest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }
