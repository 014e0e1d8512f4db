package ledger

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// Per ID, as Config.EventWindow states it.
const (
	mostEventHeap    = 64
	mostEventRunning = 48 // more while its window runs
	mostEventSlot    = 80 // more where slots lie on the heap
	mostEventDisk    = 128
)

func heapNow() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and cleanups let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func diskOf(t testing.TB, dir string) (n int64) {
	require.NoError(t, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		n += info.Size()
		return err
	}))
	return n
}

// TestMillionEvents has a million IDs in the window, and says what they take.
func TestMillionEvents(t *testing.T) {
	n := 1_000_000
	if testing.Short() || racing {
		n = 50_000 // then the bytes of what is there anyway count, too
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			start := heapNow()
			cfg := testConfig(dir, func(c *Config) { c.Sync = 100 * time.Millisecond })
			if mode == "memory" {
				cfg.Dir = ""
			}
			l, err := openMode(cfg, mode)
			require.NoError(t, err)
			f := feature(t, l, "calls", sink.Sum)
			check := func(what string, most int64) {
				heap, onDisk := (heapNow()-start)/int64(n), diskOf(t, dir)/int64(n)
				if mode == "memory" {
					onDisk = 0
				}
				t.Logf("%s: %d bytes of heap and %d on disk an ID", what, heap, onDisk)
				if n == 1_000_000 {
					require.LessOrEqual(t, heap, most, what)
					require.LessOrEqual(t, onDisk, int64(mostEventDisk), what)
				}
			}
			deliverAll := func(what string) {
				began, duplicates := time.Now(), f.Duplicates()
				for i := range n {
					require.NoError(t, f.event("cus_"+strconv.Itoa(i%1000), "orders/7/"+strconv.Itoa(i), 1))
				}
				t.Logf("%s: %v an event", what, time.Since(began)/time.Duration(n))
				if what != "new" {
					require.EqualValues(t, n, f.Duplicates()-duplicates)
				}
			}
			deliverAll("new")
			running := int64(mostEventHeap + mostEventRunning)
			if mode != "mapped" {
				running += mostEventSlot
			}
			check("in the running window", running)
			deliverAll("again")
			began := time.Now()
			require.NoError(t, l.Rotate(context.Background()))
			t.Logf("rotated in %v", time.Since(began))
			require.EqualValues(t, n, sum1(deliver(t, l, 0, sink.Delivered)))
			l.tidy()
			settled := int64(mostEventHeap)
			if mode == "memory" {
				settled += 80 // the room that the next window has been given
			}
			check("delivered", settled)
			deliverAll("again, delivered")
			require.NoError(t, l.Close(context.Background()))
			l, f = nil, nil
			if mode == "memory" {
				return
			}
			began = time.Now()
			l = open(t, mode, dir)
			t.Logf("opened in %v", time.Since(began))
			f = feature(t, l, "calls", sink.Sum)
			check("reopened", mostEventHeap)
			deliverAll("again, reopened")
			require.EqualValues(t, n/1000, totalOf(f, "cus_7"))
		})
	}
}

func sum1(records []sink.Record) (n int64) {
	for _, r := range records {
		n += r.Quantity
	}
	return n
}

func BenchmarkAddEvent(b *testing.B) {
	for _, mode := range modes {
		b.Run("new/"+mode, func(b *testing.B) {
			l := open(b, mode, b.TempDir())
			f := feature(b, l, "calls", sink.Sum)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := f.event("acme", strconv.Itoa(i), 1); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
		b.Run("again/"+mode, func(b *testing.B) {
			l := open(b, mode, b.TempDir())
			f := feature(b, l, "calls", sink.Sum)
			ids := make([]string, 100_000)
			for i := range ids {
				ids[i] = fmt.Sprint("orders/", i)
				require.NoError(b, f.event("acme", ids[i], 1))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				_ = f.event("acme", ids[i*7919%len(ids)], 1)
				i++
			}
		})
	}
	for _, subjects := range []int{1, 1000} {
		b.Run(fmt.Sprintf("parallel/mapped/subjects=%d", subjects), func(b *testing.B) {
			l := open(b, "mapped", b.TempDir())
			f := feature(b, l, "calls", sink.Sum)
			names := make([]string, subjects)
			for i := range names {
				names[i] = fmt.Sprint("s", i)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				here := fmt.Sprintf("%p/", pb)
				for i := 0; pb.Next(); i++ {
					if err := f.event(names[i%subjects], here+strconv.Itoa(i), 1); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
