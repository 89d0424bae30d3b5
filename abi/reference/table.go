package reference

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/bpfbroker/bpfbroker/abi"
)

func writeTable(w io.Writer, rows []*abi.Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NUMBER\tCOMMAND\tSINCE\tHANDLED\tRETURNS\tFIELDS\tWHY")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", number(r), r.Name, r.Since, handled(r), returns(r), len(r.Fields), r.Why)
	}
	return t.Flush()
}
