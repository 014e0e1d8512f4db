package httpsink_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/inprocess/meter/sink/sinktest"
	"github.com/stretchr/testify/require"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, cfg := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, cfg)
		})
	}
}

// conform runs the kit against the real server half, which restarts where the kit
// restarts the sink.
func conform(t *testing.T, cfg httpsink.Config) {
	var b *backend // that of the last New
	drop := func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
		swallow(r, next)
		panic(http.ErrAbortHandler)
	}
	hang := func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
		swallow(r, next)
		<-r.Context().Done()
	}
	faulty := func(f fault) func(testing.TB) sink.Sink {
		return func(t testing.TB) sink.Sink { return newSink(t, cfg, newBackend(t, b.store, f).url()) }
	}
	sinktest.Run(t, sinktest.Harness{
		New: func(t testing.TB) sink.Sink {
			b = newBackend(t, memsink.New(), nil)
			return newSink(t, cfg, b.url())
		},
		Total: func(_ testing.TB, feature, subject string) int64 {
			return b.store.(*memsink.Sink).Total(feature, subject)
		},
		Series: func(_ testing.TB, feature, subject string, dimensions map[string]string) (total int64) {
			for _, r := range b.store.(*memsink.Sink).Records() {
				if r.Feature == feature && r.Subject == subject && maps.Equal(r.Dimensions, dimensions) {
					total += r.Quantity
				}
			}
			return total
		},
		Restart: func(t testing.TB, s sink.Sink) sink.Sink {
			require.NoError(t, s.(*httpsink.Sink).Close())
			b.restart(t)
			return newSink(t, cfg, b.url())
		},
		Unreachable: func(t testing.TB) sink.Sink {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, l.Close())
			return newSink(t, cfg, "http://"+l.Addr().String())
		},
		LostReply: faulty(drop),
		Stalled:   faulty(hang),
	})
}

// The kit must find the most expensive mistake of all: a store that forgets.
func TestConformanceFindsAStoreThatForgets(t *testing.T) {
	t.Parallel()
	store := memsink.New()
	n := atomic.Int64{}
	forgetful := httpsink.Idempotent(func(ctx context.Context, records []sink.Record) error {
		for _, r := range records {
			r.ID = fmt.Sprint("r-", n.Add(1))
			if err := store.Deliver(ctx, []sink.Record{r}); err != nil {
				return err
			}
		}
		return nil
	})
	b := newBackend(t, forgetful, nil)
	err := sinktest.Check(t, sinktest.Harness{
		New:   func(t testing.TB) sink.Sink { return newSink(t, modes["protocol"], b.url()) },
		Total: func(_ testing.TB, feature, subject string) int64 { return store.Total(feature, subject) },
	})
	require.ErrorContains(t, err, "same ID again")
}
