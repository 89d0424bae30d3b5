//go:build !cgo || race

package sys

// Cgo says that the C library is in this binary, which makes threads in its own
// way. A build with the race detector has it, but is for tests alone: see Race.
const Cgo = false
