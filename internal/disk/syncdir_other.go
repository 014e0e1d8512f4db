//go:build !unix

package disk

// SyncDir does nothing here: NTFS journals its directories, and Windows has no
// call for it.
//
// Errors: none.
func SyncDir(dir string) error { return nil }
