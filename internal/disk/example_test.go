//go:build linux || darwin

package disk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/inprocess/meter/internal/disk"
)

func tempDir() string {
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		panic(err)
	}
	return dir
}

// One owner per directory; an ended context asks without waiting.
func ExampleLock() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "lock")

	l, err := disk.Lock(context.Background(), path)
	fmt.Println(err)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = disk.Lock(ended, path)
	fmt.Println(errors.Is(err, disk.ErrLocked))
	fmt.Println(l.Close())
	// Output:
	// <nil>
	// true
	// <nil>
}

// From an empty directory to a durable counter.
func ExampleMap() {
	dir := filepath.Join(tempDir(), "counts")
	defer os.RemoveAll(filepath.Dir(dir))
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	check(disk.MakeDir(dir))
	f, err := disk.OpenFile(filepath.Join(dir, "segment"), os.O_RDWR|os.O_CREATE|os.O_EXCL)
	check(err)
	defer f.Close()
	check(disk.Reserve(f, 0, 1<<16))
	check(disk.SyncDir(dir))
	m, err := disk.Map(f, 0, 1<<16)
	check(err)
	defer m.Unmap()
	check(disk.Populate(m.Bytes()))

	check(disk.Guard(func() { m.Bytes()[0]++ }))
	check(m.Sync())
	check(disk.Sync(f))

	content, err := os.ReadFile(f.Name())
	check(err)
	fmt.Println(len(content), content[0])
	// Output: 65536 1
}

// A file cut short under a mapping is an error, not the end of the process.
func ExampleGuard() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	f, err := disk.OpenFile(filepath.Join(dir, "segment"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if err := disk.Reserve(f, 0, 1<<16); err != nil {
		panic(err)
	}
	m, err := disk.Map(f, 0, 1<<16)
	if err != nil {
		panic(err)
	}
	defer m.Unmap()
	if err := f.Truncate(0); err != nil {
		panic(err)
	}

	err = disk.Guard(func() { m.Bytes()[0]++ })
	fault, ok := errors.AsType[*disk.FaultError](err)
	fmt.Println(ok, fault.Addr != 0)
	// Output: true true
}
