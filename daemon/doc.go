// Package daemon keeps workloads served. It starts a worker for each, does for it
// what a worker has no right to do (package helper), and starts another one when
// it dies: the next worker goes on with the calls of the last one, by the ledger.
//
// The daemon itself may die at any moment, too. Whoever has started it keeps its
// fds (a store): the listener, the namespaces, the ledger, the channel to the
// worker. The next daemon gets them, and finds the worker at work. The messages
// are those of systemd's fd store (sd_notify(3), FDSTORE=1; sd_listen_fds(3)), so
// that the store may be systemd; for `run` it is `run` itself (Keeper).
package daemon
