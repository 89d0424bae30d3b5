package inspect

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
)

// HelperName is the name of a helper: "bpf_map_lookup_elem", or "helper 999" of one that
// isn't known.
func HelperName(id int32) string {
	if id > 0 && abi.Helpers.KernelName(uint64(id)) != "" {
		return abi.Helpers.Name(uint64(id))
	}
	return fmt.Sprintf("helper %d", id)
}
