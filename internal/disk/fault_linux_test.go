package disk

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// faultUnguarded is the child that shows what Guard is for: recover alone cannot help.
func faultUnguarded(path string) {
	defer func() { _ = recover() }()
	f, err := OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		panic(err)
	}
	page := int64(os.Getpagesize())
	if err := Reserve(f, 0, page); err != nil {
		panic(err)
	}
	m, err := Map(f, 0, page)
	if err != nil {
		panic(err)
	}
	if err := f.Truncate(0); err != nil {
		panic(err)
	}
	m.Bytes()[0] = 1
}

func TestFaultWithoutGuardEndsTheProcess(t *testing.T) {
	t.Parallel()
	out, err := child(t, "fault", t.TempDir()+"/file").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "SIGBUS")
}

func TestGuardSurvivesTruncation(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	f, m := mapped(t, int64(4*page))
	b := m.Bytes()
	require.NoError(t, Guard(func() { b[3*page] = 1 }))
	require.NoError(t, f.Truncate(int64(2*page)))

	for name, access := range map[string]func(){
		"store":  func() { b[3*page+8] = 1 },
		"load":   func() { require.Zero(t, b[3*page+8]) },
		"atomic": func() { atomic.AddUint64((*uint64)(unsafe.Pointer(&b[3*page+8])), 1) },
		"copy":   func() { copy(make([]byte, page), b[3*page:]) },
	} {
		err := Guard(access)
		fault, ok := errors.AsType[*FaultError](err)
		require.True(t, ok, "%s: %v", name, err)
		first := uintptr(unsafe.Pointer(&b[3*page]))
		require.True(t, fault.Addr >= first && fault.Addr < first+uintptr(page), "%s: %#x", name, fault.Addr)
	}
	require.NoError(t, Guard(func() { b[page] = 1 }), "what is left still works")
	require.NoError(t, f.Truncate(int64(4*page)))
	require.NoError(t, Guard(func() { b[3*page] = 1 }), "and so does what came back")
}

// A hole reads as 0, and faults only when written while no block is left.
func TestGuardSurvivesHoleOnFullDisk(t *testing.T) {
	t.Parallel()
	dir, _ := mountExt4(t, 4<<20)
	f, rest := create(t, dir, "file"), create(t, dir, "rest")
	require.NoError(t, f.Truncate(64<<10))
	for n := int64(1 << 20); n >= 4096; n /= 2 {
		for Reserve(rest, sizeOf(t, rest), n) == nil {
		}
	}
	m, err := Map(f, 0, 64<<10)
	require.NoError(t, err)
	defer m.Unmap()
	require.NoError(t, Guard(func() { require.Zero(t, m.Bytes()[0]) }))
	_, ok := errors.AsType[*FaultError](Guard(func() { m.Bytes()[0] = 1 }))
	require.True(t, ok)
}

// The ledger's hot path inlines its guard; this is how.
func TestIsFaultInline(t *testing.T) {
	t.Parallel()
	f, m := mapped(t, int64(os.Getpagesize()))
	require.NoError(t, f.Truncate(0))
	var at uintptr
	func() {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			addr, ok := IsFault(recover())
			require.True(t, ok)
			at = addr
		}()
		m.Bytes()[16] = 1
	}()
	require.Equal(t, uintptr(unsafe.Pointer(&m.Bytes()[16])), at)
}

var faulters = map[string]func([]byte) error{"Touch": Touch, "Populate": Populate}

func TestTouchReportsTruncation(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	for name, touch := range faulters {
		f, m := mapped(t, int64(4*page))
		require.NoError(t, f.Truncate(int64(2*page)))
		require.NoError(t, touch(m.Bytes()[:2*page]), name)
		fault, ok := errors.AsType[*FaultError](touch(m.Bytes()))
		require.True(t, ok, name)
		require.Equal(t, uintptr(unsafe.Pointer(&m.Bytes()[2*page])), fault.Addr, "%s names the first page that faults", name)
		require.Error(t, touch(m.Bytes()[2*page-1:2*page+1]), "%s: two bytes in two pages", name)
	}
}

func TestTouchReportsHoleOnFullDisk(t *testing.T) {
	t.Parallel()
	for name, touch := range faulters {
		dir := mount(t, "tmpfs", "size=64k", 0)
		f := create(t, dir, "file")
		require.NoError(t, f.Truncate(256<<10)) // what Reserve is there to avoid
		m, err := Map(f, 0, 256<<10)
		require.NoError(t, err)
		_, ok := errors.AsType[*FaultError](touch(m.Bytes()))
		require.True(t, ok, name)
		require.NoError(t, m.Unmap())
	}
}

func TestTouchFaultsInForWriting(t *testing.T) {
	page := os.Getpagesize()
	const pages = 256
	for name, touch := range faulters {
		_, m := mapped(t, int64(pages*page))
		b := m.Bytes()
		runtime.LockOSThread() // faults are counted by thread
		require.Greater(t, faultsOf(t, func() { b[5*page]++ }), int64(0), "the measure works")
		require.NoError(t, touch(b[7:]), name)
		faults := faultsOf(t, func() {
			for p := range pages {
				b[p*page]++
			}
		})
		runtime.UnlockOSThread()
		require.Less(t, faults, int64(pages/8), "%s left pages to be faulted in", name)
	}
}

func faultsOf(t *testing.T, fn func()) int64 {
	t.Helper()
	var before, after unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_THREAD, &before))
	fn()
	require.NoError(t, unix.Getrusage(unix.RUSAGE_THREAD, &after))
	return int64(after.Minflt + after.Majflt - before.Minflt - before.Majflt)
}

func TestTouchChangesNothing(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	for name, touch := range faulters {
		_, m := mapped(t, int64(8*page))
		b := m.Bytes()
		for i := range b {
			b[i] = byte(i*31 + i>>8)
		}
		want := bytes.Clone(b)
		for _, part := range [][]byte{nil, {}, b, b[1:], b[page-1 : page], b[page-1 : page+1], b[3:5]} {
			require.NoError(t, touch(part), name)
		}
		require.True(t, bytes.Equal(want, b), name)
	}
}

// On the heap, so that the race detector watches.
func TestTouchLosesNoCount(t *testing.T) {
	t.Parallel()
	words := make([]uint64, 4*os.Getpagesize()/8)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	var done atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		defer done.Store(true)
		for range 20_000 {
			if err := Touch(b); err != nil {
				t.Error(err)
			}
		}
	})
	var counted uint64
	for ; !done.Load(); counted++ {
		atomic.AddUint64(&words[0], 1)
	}
	all.Wait()
	require.Equal(t, counted, words[0])
}
