//go:build !attack

package worker

func unconfined() bool { return false }
