package main

import (
	"runtime/debug"
	"sync/atomic"
)

// guardedSwap counts one use in a cell that may be sealed, and whose memory may go away.
//
//go:noinline
func guardedSwap(word *atomic.Uint64) (counted bool) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if !counted {
			_ = recover()
		}
	}()
	old := word.Load()
	return old>>63 == 0 && word.CompareAndSwap(old, old+1)
}
