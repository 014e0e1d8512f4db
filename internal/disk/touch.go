package disk

import (
	"os"
	"sync/atomic"
	"unsafe"
)

// Touch faults in every page of b for writing and changes nothing: it ORs 0 into
// one word of each page, atomically, so others may count there meanwhile.
//
// Blocking: page faults, hence disk reads; they hold a processor of the Go
// scheduler, so prefer Populate.
// Errors: *FaultError.
func Touch(b []byte) error {
	page := os.Getpagesize()
	return Guard(func() {
		for at := 0; at < len(b); {
			touchWord(unsafe.Pointer(&b[at]))
			into := int(uintptr(unsafe.Pointer(&b[at])) & uintptr(page-1))
			at += page - into
		}
	})
}

// touchWord touches the aligned word that contains p. It lies in p's page, so it
// is as mapped as p is, even where the slice ends earlier.
func touchWord(p unsafe.Pointer) {
	atomic.OrUint32((*uint32)(unsafe.Add(p, -int(uintptr(p)&3))), 0)
}
