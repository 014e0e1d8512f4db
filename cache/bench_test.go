package cache

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

const benchKeys = 1024

func benchQueries() []license.Query {
	queries := make([]license.Query, benchKeys)
	for i := range queries {
		queries[i] = ask(fmt.Sprintf("key-%08d", i))
	}
	return queries
}

// BenchmarkHit compares a hit with a bare golang-lru Get of the same query, and of the
// key's text alone: in turns, so that both see the same machine. It reports medians.
//
//	go test ./cache -run - -bench Hit -benchtime 101x
func BenchmarkHit(b *testing.B) {
	queries := benchQueries()
	texts := make([]string, benchKeys)
	ctx := b.Context()
	plain := New(Config{Checker: answers(allow("cus_1"), nil), Rate: 1e9})
	counted := New(Config{Checker: answers(allow("cus_1"), nil), Rate: 1e9, MeterProvider: &reader{}})
	byQuery, err := lru.New[license.Query, *license.Verdict](benchKeys)
	require.NoError(b, err)
	byText, err := lru.New[string, *license.Verdict](benchKeys)
	require.NoError(b, err)
	for i, q := range queries {
		for _, c := range []*Cache{plain, counted} {
			_, err := c.Check(ctx, q)
			require.NoError(b, err)
		}
		texts[i] = q.Key.Reveal()
		byQuery.Add(q, &license.Verdict{})
		byText.Add(texts[i], &license.Verdict{})
	}
	contenders := []struct {
		name string
		get  func(i int)
	}{
		{"lru", func(i int) { byQuery.Get(queries[i%benchKeys]) }},
		{"lru-by-text", func(i int) { byText.Get(texts[i%benchKeys]) }},
		{"cache", func(i int) { _, _ = plain.Check(ctx, queries[i%benchKeys]) }},
		{"with-metrics", func(i int) { _, _ = counted.Check(ctx, queries[i%benchKeys]) }},
	}
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			times := make([][]float64, len(contenders))
			for range b.N {
				for i, c := range contenders {
					times[i] = append(times[i], nanoseconds(goroutines, 200_000*min(goroutines, 10), c.get))
				}
			}
			base := median(times[0])
			for i, c := range contenders {
				b.ReportMetric(median(times[i]), c.name+"-ns")
				if i >= 2 {
					b.ReportMetric(median(times[i])/base, c.name+"/lru")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	require.NoError(b, plain.Close())
	require.NoError(b, counted.Close())
}

// nanoseconds is the time that one of n gets took, by that many goroutines.
func nanoseconds(goroutines, n int, get func(int)) float64 {
	runtime.GC() // not in the middle
	done := make(chan struct{})
	began := time.Now()
	for g := range goroutines {
		go func() {
			for i := g; i < n; i += goroutines {
				get(i)
			}
			done <- struct{}{}
		}()
	}
	for range goroutines {
		<-done
	}
	return float64(time.Since(began).Nanoseconds()) / float64(n)
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func TestHitsDoNotAllocate(t *testing.T) {
	for name, cfg := range map[string]Config{
		"plain":        {},
		"with metrics": {MeterProvider: &reader{}},
		"by the clock": {Fresh: time.Millisecond},
	} {
		cfg.Checker = answers(allow("cus_1"), nil)
		c := New(cfg)
		q := ask("k")
		hit := func() {
			_, err := c.Check(t.Context(), q)
			require.NoError(t, err)
		}
		hit()
		require.Zero(t, testing.AllocsPerRun(1000, hit), name)
		require.NoError(t, c.Close())
	}
}

// BenchmarkFile writes and reads the snapshot of a full cache.
func BenchmarkFile(b *testing.B) {
	const customers = 100_000
	cfg := Config{
		Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
			return allow(fmt.Sprint("cus_", q.Key.Reveal())), nil
		}),
		File: filepath.Join(b.TempDir(), "verdicts"), Rate: 1e9, Logger: slog.New(slog.DiscardHandler),
	}
	c := New(cfg)
	for i := range customers {
		_, err := c.Check(b.Context(), ask(fmt.Sprintf("ABCDE-FGHIJ-KLMNO-%05d", i)))
		require.NoError(b, err)
	}
	var wrote, read time.Duration
	for b.Loop() {
		began := time.Now()
		c.file.writing.Lock()
		require.NoError(b, c.file.write())
		c.file.writing.Unlock()
		wrote += time.Since(began)
		began = time.Now()
		again := New(cfg)
		read += time.Since(began)
		require.Equal(b, customers, again.allowed.Len())
		require.NoError(b, again.Close())
	}
	require.NoError(b, c.Close())
	info, err := os.Stat(cfg.File)
	require.NoError(b, err)
	b.ReportMetric(float64(wrote.Milliseconds())/float64(b.N), "write-ms")
	b.ReportMetric(float64(read.Milliseconds())/float64(b.N), "read-ms")
	b.ReportMetric(float64(info.Size())/(1<<20), "MiB")
}
