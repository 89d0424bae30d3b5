// Package sys is the only door to golang.org/x/sys and unsafe: thin, typed
// wrappers of the system calls that bpfbroker makes. It decides nothing.
//
// Errors are unix.Errno values (type Errno), so that the kernel's answer can be
// given to a workload unchanged.
package sys
