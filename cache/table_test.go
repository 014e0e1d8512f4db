package cache

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// With one list only, everything is in everything's way.
func TestTableAgainstAMap(t *testing.T) {
	t.Parallel()
	query := func(n int) license.Query { return license.Query{Subject: fmt.Sprint(n % 5), Feature: fmt.Sprint(n)} }
	for _, size := range []int{1, 8, 100_000} {
		table, model := newTable(size), map[license.Query]*entry{}
		for i := range 2000 {
			q := query(i * i % 37)
			if i%3 == 0 {
				table.remove(&q)
				delete(model, q)
			} else {
				e := &entry{query: q}
				table.put(e)
				model[q] = e
			}
			kin := 0
			for n := range 37 {
				q := query(n)
				require.Same(t, model[q], table.find(&q))
				for e := table.kin[holderOf(&q)]; n < 5 && e != nil; e = e.younger {
					require.Same(t, model[e.query], e)
					require.Equal(t, q.Subject, e.query.Subject)
					kin++
				}
			}
			require.Equal(t, len(model), kin)
		}
		for n := range 37 {
			q := query(n)
			table.remove(&q)
		}
		require.Empty(t, table.kin)
	}
}

func TestTableSizes(t *testing.T) {
	t.Parallel()
	for size, heads := range map[int]int{1: 1, 2: 2, 3: 4, 1024: 1024, 100_000: 1 << 17, maxHeads: maxHeads, math.MaxInt: maxHeads} {
		require.Len(t, newTable(size).heads, heads, size)
	}
}

// Who stays is found, whatever comes and goes around them.
func TestLooksMissNobodyWhoStays(t *testing.T) {
	t.Parallel()
	table := newTable(4)
	stays := license.Query{Subject: "stays"}
	for i := range 10 {
		table.put(&entry{query: license.Query{Subject: fmt.Sprint("before", i)}})
	}
	table.put(&entry{query: stays})
	stop := make(chan struct{})
	var looks sync.WaitGroup
	for range 4 {
		looks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if table.find(&stays) == nil {
					t.Error("not found")
					return
				}
			}
		})
	}
	for i := range 20_000 {
		table.put(&entry{query: license.Query{Subject: fmt.Sprint("goes", i%20)}})
		table.remove(&license.Query{Subject: fmt.Sprint("goes", (i+7)%20)})
		if i%10 == 0 {
			table.put(&entry{query: stays}) // refreshed
		}
	}
	close(stop)
	looks.Wait()
}
