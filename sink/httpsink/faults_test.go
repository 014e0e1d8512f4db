package httpsink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/filesink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// broken are the ways in which an exchange goes wrong. Each may come before the records
// are stored or afterwards.
var broken = map[string]func(http.ResponseWriter){
	"dropped":   func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	"page":      func(w http.ResponseWriter) { answer(502, "text/html", "<html>bad gateway")(w, nil) },
	"sign-in":   func(w http.ResponseWriter) { answer(200, "text/html", "<html>sign in")(w, nil) },
	"500":       func(w http.ResponseWriter) { answer(500, "text/plain", "oops")(w, nil) },
	"503":       func(w http.ResponseWriter) { retryAfter("1", answer(503, jsonBody, "{}"))(w, nil) },
	"redirect":  func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(307) },
	"cut off":   func(w http.ResponseWriter) { truncated(`{"results":[`)(w, nil) },
	"no answer": func(w http.ResponseWriter) { answer(200, jsonBody, `{"results":[]}`)(w, nil) },
}

// Before or after the records were stored: the sender can't know, and must not claim to.
func TestFaultsBeforeAndAfterStoring(t *testing.T) {
	t.Parallel()
	for name, breaks := range broken {
		for mode, cfg := range modes {
			if name == "no answer" && mode != "protocol" {
				continue // to a sender of CloudEvents any 200 is success
			}
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/%v", name, mode, applied), func(t *testing.T) {
					t.Parallel()
					store, fired := memsink.New(), 0
					b := newBackend(t, store, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						if fired++; fired > 1 {
							next.ServeHTTP(w, r)
							return
						}
						if applied {
							swallow(r, next)
						} else {
							_, _ = io.Copy(io.Discard, r.Body)
						}
						breaks(w)
					})
					s := newSink(t, cfg, b.url())
					r := record(1, 3)
					require.Equal(t, "doubt", outcome(t, s.Deliver(t.Context(), []sink.Record{r})))
					if applied {
						require.EqualValues(t, 3, total(store))
					} else {
						require.Zero(t, total(store))
					}
					r.Attempt, r.Doubt = 2, true
					require.NoError(t, s.Deliver(t.Context(), []sink.Record{r}))
					require.EqualValues(t, 3, total(store))
					require.Equal(t, 2, fired)
				})
			}
		}
	}
}

// Several senders, a network that breaks in every way, a store that fails before and
// after its commit, and a server that restarts: in the end each record was stored once.
func TestNothingIsLostOrBilledTwice(t *testing.T) {
	t.Parallel()
	for mode, cfg := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			const senders, records = 4, 40
			db := memsink.New()
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(1, 2))
			pick := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			store := httpsink.Idempotent(func(ctx context.Context, records []sink.Record) error {
				switch pick(6) {
				case 0:
					return fmt.Errorf("%w: rolled back", sink.ErrNotApplied)
				case 1:
					return errors.New("connection to the database lost") // before its commit
				case 2:
					return errors.Join(db.Deliver(ctx, records), errors.New("connection to the database lost")) // after it
				}
				errs := make([]error, len(records))
				for i, r := range records {
					if pick(5) == 0 {
						errs[i] = sink.ErrPostponed
					} else {
						errs[i] = db.Deliver(ctx, []sink.Record{r})
					}
				}
				return &sink.BatchError{Errs: errs}
			})
			names := []string{"dropped", "page", "sign-in", "500", "503", "redirect", "cut off"}
			faults := 0
			b := newBackend(t, store, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				switch n := pick(3); n {
				case 0, 1:
					mu.Lock()
					faults++
					mu.Unlock()
					if n == 0 {
						swallow(r, next)
					} else {
						_, _ = io.Copy(io.Discard, r.Body)
					}
					broken[names[pick(len(names))]](w)
				default:
					next.ServeHTTP(w, r)
				}
			})
			var wg sync.WaitGroup
			for n := range senders {
				wg.Go(func() {
					s := newSink(t, cfg, b.url())
					var open []sink.Record
					for i := range records {
						r := record(n*records+i, int64(i+1))
						r.Subject = fmt.Sprint("cus_", n)
						open = append(open, r)
					}
					settle(t, s, open)
				})
			}
			wg.Wait()
			b.restart(t)
			for n := range senders {
				require.EqualValues(t, records*(records+1)/2, db.Total("tax-report", fmt.Sprint("cus_", n)))
			}
			require.Greater(t, faults, 20)
		})
	}
}

// settle sends records again until each is delivered, as meter does.
func settle(t *testing.T, s *httpsink.Sink, open []sink.Record) {
	for tries := 0; len(open) > 0; tries++ {
		if tries > 10_000 {
			t.Error("records are never delivered")
			return
		}
		batch := open[:min(len(open), 7, s.Limits().MaxBatch)]
		rest := open[len(batch):]
		err := s.Deliver(t.Context(), batch)
		apart, isBatch := errors.AsType[*sink.BatchError](err)
		var again []sink.Record
		for i, r := range batch {
			failed := err
			if isBatch {
				failed = apart.Errs[i]
			}
			if failed == nil {
				continue
			}
			if errors.Is(failed, sink.ErrRejected) {
				t.Errorf("%s: %v", r.ID, failed)
				return
			}
			r.Attempt++
			r.Doubt = r.Doubt || !errors.Is(failed, sink.ErrNotApplied)
			again = append(again, r)
		}
		open = append(append([]sink.Record{}, rest...), again...)
	}
}

// With a store on disk, the server half can die between the store's commit and its
// answer, and a new one with a new store over the same files goes on.
func TestServerRestartsOverAStoreOnDisk(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/usage.jsonl"
	file := filesink.New(filesink.Config{Path: path})
	b := newBackend(t, file, func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
		swallow(r, next)
		panic(http.ErrAbortHandler)
	})
	s := newSink(t, modes["protocol"], b.url())
	require.NoError(t, b.store.(sink.Validator).Validate())
	require.Equal(t, "doubt", outcome(t, s.Deliver(t.Context(), []sink.Record{record(1, 3), record(2, 4)})))
	require.NoError(t, file.Close())

	again := filesink.New(filesink.Config{Path: path})
	t.Cleanup(func() { _ = again.Close() })
	b.store, b.fault = again, nil
	b.restart(t)
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(2, 4), record(1, 3), record(3, 5)}))
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(written), "\n"), "%s", written)
}
