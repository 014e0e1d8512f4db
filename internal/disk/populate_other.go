//go:build !linux

package disk

// Populate is Touch on this system.
//
// Errors: *FaultError.
func Populate(b []byte) error { return Touch(b) }
