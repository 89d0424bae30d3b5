//go:build !race

package sys

// Race says that this is a build with the race detector, for tests.
const Race = false
