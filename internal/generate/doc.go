// Package generate makes requests for differential tests: calls of bpf(),
// perf_event_open() and the ioctls of perf events, valid, nearly valid and wild. A
// request is a value that follows from its seed alone. It names no address, fd or id
// of a certain process: memory is an arena at a fixed address (memory.go), fds are
// those of a world at fixed numbers (world.go), and what is different in each process
// is named by a Ref. So the same request can be made natively and brokered, and all
// that it did compared.
//
// Requests begin as a recipe that succeeds (recipes.go) and are then changed by the
// class that the table of the ABI gives each field (mutate.go). What may differ
// between two processes nevertheless is in mask.go, with the reason.
//
// The package is pure: whoever makes the calls is in e2e.
package generate
