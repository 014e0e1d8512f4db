package disk

import (
	"os"

	"golang.org/x/sys/windows"
)

// openNoFollow opens a link itself, not its target; OpenFile refuses it then.
func openNoFollow(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, flag|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0o600)
}
