package cache

import (
	"fmt"
	"runtime"
	"testing"

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

// BenchmarkCheck compares a hit with a bare golang-lru Get of the same query.
func BenchmarkCheck(b *testing.B) {
	queries := benchQueries()
	c := New(Config{Checker: answers(allow("cus_1"), nil), Rate: 1e9})
	bare, err := lru.New[license.Query, *license.Verdict](benchKeys)
	require.NoError(b, err)
	for _, q := range queries {
		_, err := c.Check(b.Context(), q)
		require.NoError(b, err)
		bare.Add(q, &license.Verdict{})
	}
	for _, goroutines := range []int{1, 64} {
		run := func(name string, hit func(q license.Query)) {
			b.Run(fmt.Sprintf("%s/goroutines=%d", name, goroutines), func(b *testing.B) {
				b.ReportAllocs()
				if goroutines == 1 {
					for i := range b.N {
						hit(queries[i%benchKeys])
					}
					return
				}
				b.SetParallelism(max(goroutines/runtime.GOMAXPROCS(0), 1))
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						hit(queries[i%benchKeys])
					}
				})
			})
		}
		ctx := b.Context()
		run("cache", func(q license.Query) { _, _ = c.Check(ctx, q) })
		run("lru", func(q license.Query) { bare.Get(q) })
	}
	require.NoError(b, c.Close())
}

func TestHitsDoNotAllocate(t *testing.T) {
	c := New(Config{Checker: answers(allow("cus_1"), nil)})
	q := ask("k")
	hit := func() {
		_, err := c.Check(t.Context(), q)
		require.NoError(t, err)
	}
	hit()
	require.Zero(t, testing.AllocsPerRun(1000, hit))
	require.NoError(t, c.Close())
}
