package disk

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Populate does what Touch does, for memory of a Mapping, in one system call
// where the kernel can (Linux 5.14 and later): the wait for the disk then holds
// no processor of the Go scheduler and no garbage collection.
//
// Blocking: disk reads.
// Errors: *FaultError.
func Populate(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	// madvise wants a page's start; the part before b is in the same page.
	into := int(uintptr(unsafe.Pointer(&b[0])) & uintptr(os.Getpagesize()-1))
	start := unsafe.Add(unsafe.Pointer(&b[0]), -into)
	whole := unsafe.Slice((*byte)(start), into+len(b))
	err := retryEINTR(func() error { return unix.Madvise(whole, unix.MADV_POPULATE_WRITE) })
	if err != nil {
		// Too old a kernel, or a page that cannot be had: touching tells which page.
		return Touch(b)
	}
	return nil
}
