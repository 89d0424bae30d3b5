// Package helper is the channel between a worker and the daemon: for the few
// operations that a BPF token doesn't cover (object ids, PROG_QUERY,
// perf_event_open, …; the rows of package abi that have a Host).
//
// The worker doesn't ask for a performance of its choice. It shows the call as the
// target made it, with its memory and files, and the daemon goes the way of an
// operation anew: it reads the request by the same table, derives the facts, asks
// the same policy, performs. A worker that its workload has taken over gets
// nothing that the policy wouldn't have allowed the workload anyway.
//
// The daemon also keeps what is the workload's: which maps, programs and BTFs were
// made for it. The worker shows each by an fd, which nobody can make up. It needn't
// wait for that.
//
// One thread of the daemon serves one worker, one packet after the other. A call
// that stalls there, as on a file of the workload's own FUSE, stalls the calls of
// its own workload alone.
package helper
