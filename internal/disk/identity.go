package disk

// Identity tells a file from its copies: a copy, or a file restored from a
// backup, has another inode or was born at another time. A rename changes
// neither. Snapshots and clones of a whole volume keep both and go unnoticed.
// Compare with ==.
type Identity struct {
	Inode uint64 // number within the filesystem; 0: unknown
	Birth int64  // Unix time in nanoseconds; 0: unknown
}
