package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// With the real ledger: what the callers counted is what a biller that dedupes
// by ID has in the end, by subject, and the books say so.
func TestWithTheLedger(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"in memory": "", "on disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				wild, calm := newBiller(t, nil), newBiller(t, nil)
				wild.answer = chaos(wild)
				wild.limits = sink.Limits{MaxBatch: 7, Concurrency: 3, DedupeWindow: sink.Forever}
				billed := map[*biller]map[string]int64{wild: {}, calm: {}}
				var mu sync.Mutex
				bodies := map[string]sink.Record{} // by ID: fixed before the first attempt
				watch := func(s *biller) sink.Sink {
					return sink.Func(func(ctx context.Context, records []sink.Record) error {
						mu.Lock()
						for _, record := range records {
							record.Attempt, record.Doubt, record.Dimensions = 0, false, nil
							if known, ok := bodies[record.ID]; ok && !reflect.DeepEqual(known, record) {
								t.Errorf("%v became %v", known, record)
							}
							bodies[record.ID] = record
						}
						mu.Unlock()
						return s.Deliver(ctx, records)
					})
				}

				cfg := ledger.Config{
					Dir: dir, Window: time.Minute, Sync: time.Second, MaxDisk: 1 << 30,
					Logger: slog.New(slog.DiscardHandler),
				}
				var routes []Route
				for i, s := range []*biller{wild, calm} {
					limits := LimitsOf(s)
					r := Route{Name: fmt.Sprint("route", i), Sink: watch(s), Limits: limits}
					routes = append(routes, r)
					cfg.Routes = append(cfg.Routes, ledger.Route{
						Name: r.Name, DedupeWindow: limits.DedupeWindow, Timeout: limits.Timeout,
					})
				}
				l, err := ledger.Open(cfg)
				require.NoError(t, err)
				d := Start(Config{Ledger: FromLedger(l), Routes: routes})

				counted := map[string]int64{}
				pages, err := l.Feature("pages", sink.Sum)
				require.NoError(t, err)
				for range 300 {
					subject, n := fmt.Sprint("s", rand.N(20)), 1+rand.N(int64(100))
					require.NoError(t, pages.Add(subject, n))
					counted[subject] += n
					time.Sleep(time.Duration(rand.N(20)) * time.Second)
					if rand.N(30) == 0 {
						require.NoError(t, l.Rotate(t.Context()))
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						_ = d.Flush(ctx)
						cancel()
					}
				}
				require.NoError(t, l.Rotate(t.Context()))
				time.Sleep(24 * time.Hour)
				require.NoError(t, d.Flush(t.Context()))
				require.NoError(t, d.Health())
				require.NoError(t, d.Stop(t.Context()))
				for s, sums := range billed {
					for id := range s.applied {
						sums[bodies[id].Subject] += bodies[id].Quantity
					}
					require.Equal(t, counted, sums)
				}
				total := sum(counted)
				for _, line := range l.Books() {
					require.Equal(t, total, line.Accepted)
					require.Equal(t, total, line.Delivered, line.Route)
				}
				require.NoError(t, l.Close(t.Context()))
			})
		})
	}
}

func sum(counted map[string]int64) (total int64) {
	for _, n := range counted {
		total += n
	}
	return total
}
