package meter

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

func TestRate(t *testing.T) {
	t.Parallel()
	m := open(t) // outside of the bubble: it has goroutines
	f := m.Feature("f", Rate(2, 3))
	synctest.Test(t, func(t *testing.T) {
		begin := func(subject string, opts ...Option) error {
			_, call, err := f.Begin(as(subject), opts...)
			call.Cancel()
			return err
		}
		for range 3 {
			require.NoError(t, begin("a"))
		}
		refused := asRefused(t, begin("a"))
		require.Equal(t, license.TooFast, refused.Reason)
		require.Equal(t, 429, refused.Status())
		require.Equal(t, "a", refused.Subject)
		require.Equal(t, 500*time.Millisecond, refused.RetryAfter)
		require.NoError(t, begin("b"), "each subject has its own")
		time.Sleep(499 * time.Millisecond)
		require.Error(t, begin("a"))
		time.Sleep(time.Millisecond)
		require.NoError(t, begin("a"))
		require.NoError(t, begin("a", Rate(rate.Inf, 0)), "a call site's own")
		require.Error(t, begin("a", Rate(2, 3)), "the same allowance wherever it stands")
		require.NoError(t, begin("c", Rate(0, 1)))
		require.Zero(t, asRefused(t, begin("c", Rate(0, 1))).RetryAfter, "never")
		slow := Rate(rate.Limit(1e-300), 1)
		require.NoError(t, begin("d", slow))
		require.Equal(t, maxRetryAfter, asRefused(t, begin("d", slow)).RetryAfter)
	})
}

// Strangers may come in any number: who calls now and then keeps what was taken.
func TestRateIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter("f", allowance{1, 1})
	busy := l.account("busy")
	for i := range 3 * limiterSubjects {
		l.account(string(binary(i)))
		if i%(limiterSubjects/2) == 0 {
			require.Same(t, busy, l.account("busy"), "after %d strangers", i)
		}
	}
	held := 0
	l.hits.Range(func(any, any) bool { held++; return true })
	require.Equal(t, limiterSubjects, held)
	require.Equal(t, limiterSubjects, l.all.Len())
}

// A subject is often a part of a request, which must not be kept for it.
func TestRateKeepsNoRequest(t *testing.T) {
	t.Parallel()
	request := strings.Repeat("request ", 1000)
	l := newLimiter("f", allowance{1, 1})
	l.account(request[:7])
	kept, _, _ := l.all.GetOldest()
	require.Equal(t, "request", kept)
	require.NotSame(t, unsafe.StringData(request), unsafe.StringData(kept))
	l.hits.Range(func(subject, _ any) bool {
		require.NotSame(t, unsafe.StringData(request), unsafe.StringData(subject.(string)))
		return true
	})
}

func binary(i int) []byte { return []byte{byte(i), byte(i >> 8), byte(i >> 16)} }

func TestRateUnderContention(t *testing.T) {
	t.Parallel()
	l := newLimiter("f", allowance{0.001, 100})
	now := time.Now()
	var let atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if l.account("s").tokens.AllowN(now, 1) {
					let.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 100, let.Load())
}
