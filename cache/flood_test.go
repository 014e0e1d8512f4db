package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// registry allows the keys that begin with "real".
func registry(calls *int) license.CheckerFunc {
	return func(_ context.Context, q license.Query) (license.Verdict, error) {
		*calls++
		if key := q.Key.Reveal(); strings.HasPrefix(key, "real") {
			return allow(key), nil
		}
		return deny(license.NotFound), nil
	}
}

// Twenty checks with random keys for each of a customer's. Without limits on calls,
// so that the denials really come in.
func TestAFloodOfRandomKeysEvictsNoCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := New(Config{Checker: registry(&calls), Size: 1000, NegativeMax: 1000, Rate: 1e9})
		random := rand.New(rand.NewPCG(1, 2))
		const real = 1000
		hits := 0
		for range real {
			for range 20 {
				v, err := c.Check(t.Context(), ask(fmt.Sprint("random", random.Uint64())))
				require.NoError(t, err)
				require.Equal(t, license.Denied, v.Status)
			}
			before := calls
			v, err := c.Check(t.Context(), ask(fmt.Sprint("real", random.IntN(50))))
			require.NoError(t, err)
			require.Equal(t, license.Allowed, v.Status)
			if calls == before {
				hits++
			}
		}
		require.GreaterOrEqual(t, hits, real*9/10)
		require.LessOrEqual(t, c.allowed.Len(), 1000)
		require.Equal(t, c.allowed.Len(), listed(c))
		require.LessOrEqual(t, c.denied.Len(), 1000)
		require.NoError(t, c.Close())
	})
}

// A million random keys under the limit, over a quarter of an hour: customers known
// before stay served and are refreshed, the license server gets no more than it was
// promised, and memory stays what it was.
func TestAMillionRandomKeys(t *testing.T) { // not parallel: it measures memory
	keys, pause := 1_000_000, 20*time.Millisecond
	if racing { // which takes ten times as long
		keys, pause = keys/10, 10*pause
	}
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := New(Config{Checker: registry(&calls)})
		const customers = 500
		for i := range customers {
			_, err := c.Check(t.Context(), ask(fmt.Sprint("real", i)))
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		calls = 0
		before := heap()
		random := rand.New(rand.NewPCG(1, 2))
		start, real, hits := time.Now(), 0, 0
		for checks := 0; checks < keys; checks += 20 {
			for range 20 {
				v, _ := c.Check(t.Context(), ask(fmt.Sprint("random", random.Uint64())))
				require.NotEqual(t, license.Allowed, v.Status)
			}
			real++
			began := time.Now()
			v, err := c.Check(t.Context(), ask(fmt.Sprint("real", random.IntN(customers))))
			if err == nil && v.Status == license.Allowed && time.Since(began) == 0 {
				hits++
			}
			time.Sleep(pause)
		}
		synctest.Wait()
		t.Logf("%v: %d calls, %d of %d customers' checks answered from memory", time.Since(start), calls, hits, real)
		require.GreaterOrEqual(t, hits, real*9/10)
		require.LessOrEqual(t, calls, int(time.Since(start).Seconds()*20)+20)
		require.Equal(t, 10_000, c.denied.Len())
		require.Less(t, heap()-before, int64(32<<20))
		now, old := c.clock.now(), 0
		for _, e := range c.allowed.Values() {
			if now.since(e.at) > 10*time.Minute {
				old++
			}
		}
		require.Less(t, old, customers/20, "customers whose refresh the flood held up")
		require.NoError(t, c.Close())
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
