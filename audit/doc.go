// Package audit keeps a record of each decision: who asked for what, what the
// policy said and why, and what came of it. docs/audit.md describes the records.
//
// The worker notes a decision in shared memory (Book), which costs it neither a
// system call nor a wait. A reader in the daemon (Log) takes the records from there,
// checks them, and writes them as lines to a Sink. Where the reader is slower than
// the worker, records are lost, and the log says how many.
//
// A worker may be in the hands of its workload. So what lies in the book is bytes to
// be checked and bounded; whose they are is said by who keeps the book.
package audit
