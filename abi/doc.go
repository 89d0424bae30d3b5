// Package abi describes the bpf() system call as data: one Row per command,
// one Field per member of that command's part of union bpf_attr, and for each
// field what it is (a plain value, an fd of what, a pointer to what, how long,
// under which condition). Decoding, the deep copy, the handing over of fds,
// the write-back, facts, documentation and the fuzzers' generators all read
// this table and nothing else.
//
// The table describes one kernel (Kernel, commands 0 to 37). A test compares it
// with the BTF of the running kernel and fails on drift;
// docs/howto-add-a-command.md says what to do then.
//
// The package imports nothing of ours and is pure data: it makes no system call.
package abi

// Kernel is the version of Linux that the table describes.
const Kernel = "6.18"
