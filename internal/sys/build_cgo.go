//go:build cgo && !race

package sys

// Cgo says that the C library is in this binary, which makes threads in its own
// way. (Package net brings it along.)
const Cgo = true
