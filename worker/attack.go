//go:build attack

package worker

// withoutFilter is set by the linker (-X), for tests of what holds a worker that was
// taken over, beside its seccomp filter.
var withoutFilter string

func unconfined() bool { return withoutFilter != "" }
