package disk

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// FaultError says that mapped memory could not be reached: its file was
// truncated, its filesystem had no room for a copied block, or the disk failed.
//
// Concurrency: immutable.
type FaultError struct {
	Addr uintptr // of the access; on some faults the system does not tell, then 0
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("memory fault at address %#x: the file behind a mapping was truncated or its disk is full or failing", e.Addr)
}

// Guard runs fn, which may touch mapped memory, and turns a memory fault in it
// into an error. Without it such a fault ends the process, and no recover helps.
//
// Guarantee: faults of fn's own goroutine are caught; all other panics, a nil
// dereference among them, go on. Not promised: faults of goroutines that fn
// starts; and under the race detector, an atomic operation on a page that can be
// read but not written still ends the process.
// fn ends where it faulted. So it must not hold a lock without a deferred unlock,
// and must copy keys out of the mapping before they go into a map, which a fault
// while hashing would break. System calls do not fault: they answer EFAULT.
// Errors: *FaultError.
func Guard(fn func()) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			addr, ok := IsFault(r)
			if !ok {
				panic(r)
			}
			err = &FaultError{Addr: addr}
		}
	}()
	fn()
	return nil
}

// IsFault reports whether a recovered value is a memory fault, and where. Only
// code that runs under debug.SetPanicOnFault(true) can recover one.
func IsFault(recovered any) (addr uintptr, ok bool) {
	fault, ok := recovered.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		return 0, false
	}
	return fault.Addr(), true
}
