package delivery

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

func TestLimitsOf(t *testing.T) {
	t.Parallel()
	defaults := sink.Limits{MaxBatch: 100, Concurrency: 1, Timeout: 30 * time.Second}
	require.Equal(t, defaults, LimitsOf(sink.Func(nil)))
	require.Equal(t, defaults, LimitsOf(&biller{limits: sink.Limits{
		MaxBatch: -1, Concurrency: -1, MaxAge: -1, MaxQuantity: -1, DedupeWindow: -1, Rate: math.NaN(), Timeout: -1,
	}}))
	own := sink.Limits{
		MaxBatch: 1, Concurrency: 2, MaxAge: 3, MaxQuantity: 4, DedupeWindow: sink.Forever, Rate: 5, Timeout: 6,
	}
	require.Equal(t, own, LimitsOf(&biller{limits: own}))
}

func ExampleLimitsOf() {
	limits := LimitsOf(sink.Func(nil))
	fmt.Println(limits.MaxBatch, limits.Concurrency, limits.Timeout)
	// Output: 100 1 30s
}

func TestBatchIsAtMostASecondsWorth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate  float64
		most  int
		batch int
	}{{0, 100, 100}, {20, 100, 20}, {20.9, 100, 20}, {800, 100, 100}, {0.01, 100, 1}, {1e300, 7, 7}} {
		_, batch := newPace(sink.Limits{Rate: c.rate, MaxBatch: c.most})
		require.Equal(t, c.batch, batch, c.rate)
	}
}

// Over an hour exactly the rate, plus at most what the bucket held at first.
func TestPacingIsExact(t *testing.T) {
	t.Parallel()
	for _, limits := range []sink.Limits{
		{Rate: 2, MaxBatch: 100, Concurrency: 1},
		{Rate: 3.3, MaxBatch: 2, Concurrency: 4},
		{Rate: 0.25, MaxBatch: 100, Concurrency: 2},
	} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLedger(t, 1)
				s := newBiller(t, nil)
				s.limits = limits
				hourly := limits.Rate * 3600
				l.addMany(int(hourly) + 100)
				start := time.Now()
				begin(t, l, nil, s)
				time.Sleep(time.Hour - 1)
				_, burst := newPace(LimitsOf(s))
				sent := 0
				for _, c := range s.log() {
					sent += len(c.ids)
					worth := float64(burst) + limits.Rate*c.at.Sub(start).Seconds()
					require.LessOrEqual(t, float64(sent), worth+1e-3, "never ahead of the rate")
				}
				require.GreaterOrEqual(t, sent, int(hourly))
				require.LessOrEqual(t, sent, int(hourly)+burst)
			})
		})
	}
}

// What Take does not return is not spent: a route whose records mostly wait
// still reaches its rate.
func TestPaceSpendsOnlyWhatWasTaken(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p, _ := newPace(sink.Limits{Rate: 10, MaxBatch: 10})
	for range 100 {
		require.Zero(t, p.delay(now, 10))
	}
	p.spend(now, 1)
	require.Zero(t, p.delay(now, 9))
	require.Equal(t, 100*time.Millisecond, p.delay(now, 10))
	require.Equal(t, 100*time.Millisecond, p.delay(now, 10))
	require.Zero(t, p.delay(now.Add(100*time.Millisecond), 10))
}
