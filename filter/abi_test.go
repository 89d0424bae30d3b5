package filter

import (
	"slices"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

// What the table leaves to the kernel is reviewed here as well: a row can't
// become native without a change of the list in these tests.
func TestNativeIsTheTables(t *testing.T) {
	if got := abi.NativeCommands("6.18", false); !slices.Equal(got, native) {
		t.Errorf("got %v from the table of the ABI, wanted %v", got, native)
	}
}
