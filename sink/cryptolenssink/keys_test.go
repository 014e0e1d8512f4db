package cryptolenssink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

// badError panics when it is looked at.
type badError struct{}

func (badError) Error() string { panic(errors.New("scan KEYCANARY: column missing")) }

// Whatever a KeyFunc does, nothing was sent by then: there is no doubt that could be
// assumed to be recorded, or sent again, and no other record waits for it.
func TestKeyFuncThatMisbehaves(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		find func(ctx context.Context)
		want string
	}{
		"panics":         {func(context.Context) { panic(fmt.Errorf("scan %s: column missing", "KEYCANARY")) }, "the KeyFunc panicked with a *errors.errorString at keys_test.go:"},
		"fails":          {func(ctx context.Context) { var none *http.Client; none.CloseIdleConnections() }, "the KeyFunc panicked (runtime error: invalid memory address"},
		"ends":           {func(context.Context) { runtime.Goexit() }, "the KeyFunc ended its goroutine"},
		"hangs":          {func(ctx context.Context) { time.Sleep(time.Hour) }, "has not answered within 10s"},
		"waits":          {func(ctx context.Context) { <-ctx.Done() }, ""},
		"returns a trap": {nil, "the KeyFunc panicked with a *errors.errorString"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := newVendor()
				key := func(ctx context.Context, of string) (license.Key, error) {
					if of != subject {
						return v.key(ctx, of)
					}
					if test.find == nil {
						return license.Key{}, badError{}
					}
					test.find(ctx)
					return license.Key{}, ctx.Err()
				}
				var sinks []sink.Sink
				for _, doubt := range []cryptolenssink.Doubt{cryptolenssink.Quarantine, cryptolenssink.Resend, cryptolenssink.Assume} {
					sinks = append(sinks, v.sink(func(c *cryptolenssink.Config) { c.Key, c.Doubt = key, doubt }))
				}
				sinks = append(sinks, v.counters(func(c *cryptolenssink.CountersConfig) { c.Key = key }))
				for _, s := range sinks {
					other := record(1, 2)
					other.Subject = "other"
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					errs := outcomes(t, s.Deliver(ctx, []sink.Record{record(0, 1), other}), 2)
					require.ErrorIs(t, errs[0], sink.ErrPostponed)
					require.ErrorContains(t, errs[0], test.want)
					require.NotContains(t, errs[0].Error(), "KEYCANARY")
					require.NoError(t, errs[1])

					ctx, cancel = context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					errs = outcomes(t, s.Deliver(ctx, []sink.Record{record(0, 1)}), 1)
					require.ErrorIs(t, errs[0], sink.ErrNotApplied, "also if the batch ends first")
				}
				require.EqualValues(t, 6, v.total("other"))
				require.Zero(t, v.total(subject))
				time.Sleep(time.Hour) // until what hangs has ended
			})
		})
	}
}

// A KeyFunc that never returns is left behind no more often than so.
func TestKeyFuncsLeftBehindAreFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var asked atomic.Int64
		s := newVendor().sink(func(c *cryptolenssink.Config) {
			c.Key = func(context.Context, string) (license.Key, error) {
				asked.Add(1)
				<-release
				return license.Key{}, nil
			}
		})
		for n := range 30 {
			err := s.Deliver(t.Context(), []sink.Record{record(n, 1)})
			require.ErrorIs(t, err, sink.ErrPostponed)
			if n >= 16 {
				require.ErrorContains(t, err, "16 calls of the KeyFunc have not returned")
			}
		}
		require.EqualValues(t, 16, asked.Load())
		close(release)
		synctest.Wait()
		require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{record(30, 1)}), sink.ErrPostponed)
		require.EqualValues(t, 17, asked.Load())
	})
}

// A panic on the way leaves a doubt about the one record.
func TestTransportThatPanics(t *testing.T) {
	t.Parallel()
	v := newVendor()
	calls := 0
	broken := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if calls++; calls == 2 {
			panic("KEYCANARY")
		}
		return v.Client().Transport.RoundTrip(r)
	})}
	s := v.sink(func(c *cryptolenssink.Config) { c.HTTPClient = broken })
	errs := outcomes(t, s.Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 2), record(2, 4)}), 3)
	require.NoError(t, errs[0])
	requireDoubt(t, errs[1])
	require.ErrorContains(t, errs[1], "panicked with a string at keys_test.go:")
	require.NotContains(t, errs[1].Error(), "KEYCANARY")
	require.ErrorIs(t, errs[2], sink.ErrNotApplied)
	require.EqualValues(t, 1, v.total(subject))
	deliver(t, s, record(2, 4)) // and the key's turn was given back
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
