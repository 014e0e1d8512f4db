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

func TestEvictionSparesTheUsed(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Size: 10, Rate: 1e6}, func(w world) {
		for i := range 10 {
			w.allowed(fmt.Sprint("old", i))
		}
		for i := range 100 {
			for j := range 5 {
				w.allowed(fmt.Sprint("old", j))
			}
			w.allowed(fmt.Sprint("new", i))
		}
		w.asked(110)
		require.Equal(t, 10, w.Cache.allowed.Len())
	})
}

func TestUseLongAgoDoesNotSpare(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Size: 10, Rate: 1e6}, func(w world) {
		w.allowed("old")
		w.allowed("old")
		for i := range 30 {
			w.allowed(fmt.Sprint("new", i))
		}
		w.asked(31)
		w.allowed("old")
		w.asked(32)
	})
}

func TestNewcomersReplaceEachOther(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Size: 2, NegativeMax: 2, Rate: 1e6}, func(w world) {
		for i := range 5 {
			w.allowed(fmt.Sprint(i))
		}
		w.server.set(deny(license.NotFound), nil)
		for i := range 5 {
			w.answer(fmt.Sprint("bad", i), license.Denied)
		}
		w.asked(10)
		w.answer("bad4", license.Denied)
		w.allowed("3")
		w.allowed("4")
		w.asked(10)
		require.Equal(t, 2, w.Cache.allowed.Len())
		require.Equal(t, 2, listed(w.Cache))
		require.Equal(t, 2, w.Cache.denied.Len())
	})
}

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

func TestInvalidate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		invalidate func(*Cache)
		asks       int // again, of the three below
	}{
		"key":             {func(c *Cache) { c.Invalidate(license.NewKey("good")) }, 1},
		"denied key":      {func(c *Cache) { c.Invalidate(license.NewKey("bad")) }, 1},
		"other key":       {func(c *Cache) { c.Invalidate(license.NewKey("other")) }, 0},
		"no key":          {func(c *Cache) { c.Invalidate(license.Key{}) }, 0},
		"subject":         {func(c *Cache) { c.InvalidateSubject("cus_1") }, 1},
		"denied subject":  {func(c *Cache) { c.InvalidateSubject("cus_2") }, 1},
		"queried subject": {func(c *Cache) { c.InvalidateSubject("cus_3") }, 1},
		"other subject":   {func(c *Cache) { c.InvalidateSubject("cus_9") }, 0},
		"no subject":      {func(c *Cache) { c.InvalidateSubject("") }, 0},
		"all":             {func(c *Cache) { c.InvalidateAll() }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			c := New(Config{Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
				calls++
				switch q.Key.Reveal() {
				case "good":
					return allow("cus_1"), nil
				case "bad":
					v := deny(license.Unpaid)
					v.Subject = "cus_2"
					return v, nil
				}
				return deny(license.NotEntitled), nil
			})})
			checkAll := func() {
				for _, q := range []license.Query{ask("good"), ask("bad"), {Subject: "cus_3", Feature: "api"}} {
					_, err := c.Check(t.Context(), q)
					require.NoError(t, err)
				}
			}
			checkAll()
			checkAll()
			require.Equal(t, 3, calls)
			test.invalidate(c)
			checkAll()
			require.Equal(t, 3+test.asks, calls)
			require.NoError(t, c.Close())
		})
	}
}

// An answer may be older than the reason to forget.
func TestAnswersUnderWayAreNotKept(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		invalidate func(*Cache)
		kept       bool
	}{
		"key":       {func(c *Cache) { c.Invalidate(license.NewKey("k")) }, false},
		"other key": {func(c *Cache) { c.Invalidate(license.NewKey("other")) }, true},
		"subject":   {func(c *Cache) { c.InvalidateSubject("cus_1") }, false},
		"all":       {func(c *Cache) { c.InvalidateAll() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &server{verdict: allow("cus_1"), delay: 2 * time.Second}
				c := New(Config{Checker: s})
				first := make(chan license.Verdict)
				go func() {
					v, _ := c.Check(context.Background(), ask("k"))
					first <- v
				}()
				time.Sleep(time.Second)
				test.invalidate(c)
				s.set(deny(license.Blocked), nil)
				s.slow(0)
				v, err := c.Check(t.Context(), ask("k"))
				require.NoError(t, err)
				require.Equal(t, license.Allowed, (<-first).Status, "who asked before is answered")
				if test.kept {
					require.Equal(t, license.Allowed, v.Status)
				} else {
					require.Equal(t, license.Denied, v.Status)
				}
				v, err = c.Check(t.Context(), ask("k"))
				require.NoError(t, err)
				require.Equal(t, test.kept, v.Status == license.Allowed)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestQueriesAreToldApart(t *testing.T) {
	t.Parallel()
	calls := 0
	for _, verdict := range []license.Verdict{allow("cus_1"), deny(license.Blocked)} {
		calls = 0
		c := New(Config{Checker: license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
			calls++
			return verdict, nil
		})})
		k := license.NewKey("k")
		queries := []license.Query{
			{Key: k}, {Subject: "k"}, {Feature: "k"}, {Machine: "k"}, {},
			{Key: k, Subject: "ab", Feature: "c"}, {Key: k, Subject: "a", Feature: "bc"}, {Key: k, Subject: "a", Machine: "bc"},
		}
		for range 2 {
			for _, q := range queries {
				q.Subject = q.Subject + "+"
				_, err := c.Check(t.Context(), q)
				require.NoError(t, err)
			}
		}
		require.Equal(t, len(queries), calls)
		require.NoError(t, c.Close())
	}
}

func TestDigestsAreOfOneProcess(t *testing.T) {
	t.Parallel()
	a, b := New(Config{}), New(Config{})
	require.Equal(t, a.identify(ask("k")), a.identify(ask("k")))
	require.NotEqual(t, a.identify(ask("k")), b.identify(ask("k")))
}

func TestNoKeyIsPrinted(t *testing.T) {
	t.Parallel()
	s := &server{verdict: allow("cus_1")}
	c := New(Config{Checker: s})
	_, err := c.Check(t.Context(), ask("canary"))
	require.NoError(t, err)
	s.set(deny(license.Blocked), nil)
	_, err = c.Check(t.Context(), ask("canary-2"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		require.NotContains(t, fmt.Sprintf(format, c), "canary", format)
	}
}

// listed counts what lookups see.
func listed(c *Cache) (n int) {
	for i := range c.known.heads {
		for e := c.known.heads[i].Load(); e != nil; e = e.next.Load() {
			n++
		}
	}
	return n
}
