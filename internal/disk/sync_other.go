//go:build !linux && !darwin

package disk

import "os"

// Sync makes f's data and size durable (FlushFileBuffers on Windows). A failed
// sync may have dropped the data: never take the success of a second one on the
// same file for an answer.
//
// Blocking: until the disk answers.
// Errors: the system's.
func Sync(f *os.File) error { return f.Sync() }
