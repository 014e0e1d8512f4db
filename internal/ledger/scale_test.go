package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// putSegment writes a sealed segment with pending records, without syncing.
func putSegment(t testing.TB, dir string, start int64, subjects ...string) {
	h := head{uuid: newUUID(), start: start, end: start + 1, routes: []owed{{"main", destinationOf("")}}}
	var blocks []byte
	for i, subject := range subjects {
		at, key := len(blocks), appendKey(nil, "calls", subject, nil)
		blocks = append(blocks, make([]byte, int(blocksFor(len(key)))*blockSize)...)
		putSlot(blocks[at:], h.uuid, uint32(at/blockSize), newShape(len(key), sink.Sum, 0), 0, key)
		sealSlot(blocks[at:], h.uuid, uint64(i+1)|wordSet)
		o := outcomes{states: [MaxRoutes]state{pending}}
		o.put(blocks[at:], h.uuid)
	}
	h.blocks, h.slots = uint32(len(blocks)/blockSize), uint32(len(subjects))
	f, err := os.OpenFile(filepath.Join(dir, segmentName(h.uuid, 0)), os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	h.identity, err = disk.IdentityOf(f)
	require.NoError(t, err)
	_, err = f.Write(append(h.encode(), blocks...))
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func manySegments(t testing.TB, n int) string {
	dir := t.TempDir()
	l, err := Open(testConfig(dir))
	require.NoError(t, err)
	require.NoError(t, l.Close(context.Background()))
	start := time.Now().Unix() - int64(n) - 10
	for i := range n {
		putSegment(t, dir, start+int64(i), "a", "b", fmt.Sprint("c", i))
	}
	return dir
}

func TestTenThousandSegments(t *testing.T) {
	t.Parallel()
	dir := manySegments(t, 10_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	l, err := Open(testConfig(dir))
	require.NoError(t, err)
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("opened in %v, %d KiB of heap", took, (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
	_, quantity := l.OpenRecords(0) // housekeeping merges already
	require.EqualValues(t, 60_000, quantity)
	began = time.Now()
	l.merge()
	t.Logf("merged in %v into %d segments", time.Since(began), len(l.sealedNow()))
	_, quantity = l.OpenRecords(0)
	require.EqualValues(t, 60_000, quantity, "merging changes no sum")
	require.NoError(t, l.foldSettled())
	require.Less(t, len(l.sealedNow()), 4000, "inputs are folded away, but for the running hour")
	require.NoError(t, l.Close(context.Background()))

	l, err = Open(testConfig(dir))
	require.NoError(t, err)
	delivered := deliver(t, l, 0, sink.Delivered)
	require.EqualValues(t, 10_000, sum(delivered, "calls", "a"))
	require.EqualValues(t, 20_000, sum(delivered, "calls", "b"))
	require.NoError(t, l.Close(context.Background()))
}

// BenchmarkPending says what pending segments, of three records each, cost: to open
// the directory, for each segment, and to count and ask meanwhile.
func BenchmarkPending(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("segments=%d", n), func(b *testing.B) {
			dir := manySegments(b, n)
			b.Run("Open", func(b *testing.B) {
				for b.Loop() {
					l, err := Open(testConfig(dir))
					require.NoError(b, err)
					b.StopTimer()
					require.NoError(b, l.Close(context.Background()))
					b.StartTimer()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/segment")
			})
			l, err := Open(testConfig(dir))
			require.NoError(b, err)
			defer func() { require.NoError(b, l.Close(context.Background())) }()
			f := feature(b, l, "calls", sink.Sum)
			b.Run("Add", func(b *testing.B) {
				for b.Loop() {
					_ = f.Add("a", 1)
				}
			})
			b.Run("OpenRecords", func(b *testing.B) {
				for b.Loop() {
					records, _ := l.OpenRecords(0)
					require.Positive(b, records)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/segment")
			})
		})
	}
}

// TestMillionSeries counts, rotates and delivers a million series in one window,
// and says what that takes.
func TestMillionSeries(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a gigabyte and half a minute; runs without -short")
	}
	n := 1_000_000
	if racing {
		n = 50_000 // the detector takes ten times the memory and the time
	}
	for _, mode := range modes[:2] {
		t.Run(mode, func(t *testing.T) {
			l := open(t, mode, t.TempDir(), func(c *Config) { c.Sync = 100 * time.Millisecond })
			f := feature(t, l, "calls", sink.Sum)
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("cus_%07d", i)
			}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for _, name := range names {
				require.NoError(t, f.Add(name, 1))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			heap := int64(after.HeapAlloc-before.HeapAlloc) / int64(n)
			mapped := int64(0)
			if mode == "mapped" {
				mapped = int64(l.active.Load().next.Load()) * blockSize / int64(n)
			}
			t.Logf("%d bytes a series on the heap, %d mapped (with keys of %d bytes)", heap, mapped, len("calls")+len(names[0])+2)

			var worst atomic.Int64
			stop, stopped := make(chan struct{}), make(chan struct{})
			var extra int64
			go func() {
				defer close(stopped)
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					began := time.Now()
					if f.Add(names[i*7919%n], 1) != nil {
						return
					}
					extra++
					worst.Store(max(worst.Load(), int64(time.Since(began))))
				}
			}()
			began := time.Now()
			require.NoError(t, l.Rotate(context.Background()))
			took := time.Since(began)
			close(stop)
			<-stopped
			t.Logf("rotated in %v; the slowest of %d counts meanwhile took %v", took, extra, time.Duration(worst.Load()))
			require.NoError(t, l.Rotate(context.Background()))
			records, quantity := l.OpenRecords(0)
			require.GreaterOrEqual(t, records, n)
			require.EqualValues(t, int64(n)+extra, quantity)
			began = time.Now()
			var got int64
			for {
				b, err := l.Take(0, 1000, nil)
				require.NoError(t, err)
				if b == nil {
					break
				}
				for _, r := range b.Records {
					got += r.Quantity
				}
				results := make([]Result, len(b.Records))
				for i := range results {
					results[i].Outcome = sink.Delivered
				}
				require.NoError(t, b.Resolve(results))
			}
			require.EqualValues(t, int64(n)+extra, got)
			t.Logf("took and resolved %d records in %v", records, time.Since(began))
		})
	}
}
