package policy

import "slices"

// Within says whether an allowed operation is within the ceiling.
func (c Ceiling) Within(command, mapType, progType, attachType string, helpers []string) bool {
	switch command {
	case "map_create":
		return c.Commands.Has(command) && c.Maps.Has(mapType)
	case "prog_load":
		reads := slices.Contains(tracing, progType) || slices.ContainsFunc(helpers, func(h string) bool { return slices.Contains(readers["prog.helpers"], h) })
		return c.Commands.Has(command) && c.Progs.Has(progType) && c.Attachs.Has(attachBit(attachType)) && (c.KernelMemory || !reads)
	case "btf_load":
		return c.Commands.Has(command)
	}
	return true
}
