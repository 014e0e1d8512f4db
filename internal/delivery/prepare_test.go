package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// picky is a biller that wants to be asked first.
type picky struct {
	*biller
	prepare func(ctx context.Context, call int, features []sink.Feature) error
	asked   [][]sink.Feature
	good    map[string]bool
	inside  bool
}

func newPicky(t testing.TB, prepare func(ctx context.Context, call int, features []sink.Feature) error) *picky {
	p := &picky{prepare: prepare, good: map[string]bool{}}
	p.biller = newBiller(t, func(_ context.Context, _ int, records []sink.Record) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, record := range records {
			if !p.good[record.Feature] {
				t.Errorf("%s was sent unprepared", record.Feature)
			}
		}
		return nil
	})
	return p
}

func (p *picky) Prepare(ctx context.Context, features []sink.Feature) error {
	p.mu.Lock()
	if p.inside {
		p.t.Error("Prepare called twice at once")
	}
	p.inside = true
	p.asked = append(p.asked, slices.Clone(features))
	number := len(p.asked)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.inside = false
		p.mu.Unlock()
	}()
	err := p.prepare(ctx, number, features)
	batch, apart := errors.AsType[*sink.BatchError](err)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, feature := range features {
		p.good[feature.Name] = err == nil || apart && i < len(batch.Errs) && batch.Errs[i] == nil
	}
	return err
}

func (p *picky) first() []sink.Feature {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[0]
}

func (p *picky) questions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// declare starts a delivery in whose process the named features are declared.
func declare(t testing.TB, l *fakeLedger, s sink.Sink, names ...string) *Delivery {
	var features []sink.Feature
	for _, name := range names {
		features = append(features, sink.Feature{Name: name, Unit: "pages"})
	}
	d := Start(Config{Ledger: l, Routes: to(s), Features: func() []sink.Feature { return features }})
	t.Cleanup(func() { require.NoError(t, d.Stop(context.Background())) })
	return d
}

func TestPreparesBeforeTheFirstRecordOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newPicky(t, func(context.Context, int, []sink.Feature) error {
			time.Sleep(time.Second)
			return nil
		})
		d := declare(t, l, s, "f", "g", "unused")
		synctest.Wait()
		require.Zero(t, s.questions(), "nothing to send, nothing to ask")
		l.add("f", "s")
		l.add("g", "s")
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, 2, l.ended(0, sink.Delivered))
		for range 10 {
			l.add("f", "s")
		}
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, [][]sink.Feature{{{Name: "f", Unit: "pages"}, {Name: "g", Unit: "pages"}}}, s.asked)
		require.NoError(t, d.Health())
	})
}

func TestRefusedFeatureIsHeldAlone(t *testing.T) {
	t.Parallel()
	var none *sink.BatchError
	refusal := errors.New("no such meter")
	batch := func(features []sink.Feature, bad error) error {
		errs := make([]error, len(features))
		for i, feature := range features {
			if feature.Name == "bad" {
				errs[i] = bad
			}
		}
		if slices.ContainsFunc(features, func(f sink.Feature) bool { return f.Name == "bad" }) {
			return &sink.BatchError{Errs: errs}
		}
		return nil
	}
	for name, prepare := range map[string]func(ctx context.Context, call int, features []sink.Feature) error{
		"named": func(_ context.Context, _ int, features []sink.Feature) error { return batch(features, refusal) },
		"named, wrapped": func(_ context.Context, _ int, features []sink.Feature) error {
			if err := batch(features, refusal); err != nil {
				return fmt.Errorf("prepare: %w", err)
			}
			return nil
		},
		"unnamed": func(_ context.Context, _ int, features []sink.Feature) error {
			if batch(features, refusal) != nil {
				return refusal
			}
			return nil
		},
		"panic": func(_ context.Context, _ int, features []sink.Feature) error {
			if batch(features, refusal) != nil {
				panic("no such meter")
			}
			return nil
		},
		"Goexit": func(_ context.Context, _ int, features []sink.Feature) error {
			if batch(features, refusal) != nil {
				runtime.Goexit()
			}
			return nil
		},
		"nonsense": func(_ context.Context, _ int, features []sink.Feature) error {
			if batch(features, refusal) != nil {
				return none
			}
			return nil
		},
		"error that panics": func(_ context.Context, _ int, features []sink.Feature) error {
			if batch(features, refusal) != nil {
				return contrary{}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLedger(t, 1)
				fixed := false
				s := newPicky(t, nil)
				s.prepare = func(ctx context.Context, call int, features []sink.Feature) error {
					if fixed {
						return nil
					}
					return prepare(ctx, call, features)
				}
				l.add("bad", "s")
				l.add("good", "s")
				log, out := logger()
				d := Start(Config{Ledger: l, Routes: to(s), Logger: log, Features: func() []sink.Feature {
					return []sink.Feature{{Name: "bad"}, {Name: "good"}}
				}})
				defer func() { require.NoError(t, d.Stop(context.Background())) }()
				start := time.Now()
				err := d.Flush(t.Context())
				require.ErrorContains(t, err, "1 record still open: ")
				require.Zero(t, time.Since(start))
				require.Equal(t, 1, l.ended(0, sink.Delivered))
				require.ErrorContains(t, d.Health(), `route "a": sink not ready for feature "bad" since`)
				require.NotContains(t, d.Health().Error(), `"good"`)

				time.Sleep(24 * time.Hour)
				require.Less(t, s.questions(), 700, "it backs off")
				require.Greater(t, s.questions(), 250, "and tries again")
				require.Equal(t, 1, strings.Count(out.String(), "sink is not ready for the feature"), "not per try")
				synctest.Wait()
				fixed = true
				require.NoError(t, d.Flush(t.Context()), "flush asks at once")
				require.Equal(t, 2, l.ended(0, sink.Delivered))
				require.NoError(t, d.Health())
				require.Equal(t, 1, strings.Count(out.String(), "sink is ready for the feature now"))
			})
		})
	}
}

// Nothing is sent unprepared only because nobody has declared it in this run.
func TestFeatureOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newPicky(t, func(_ context.Context, _ int, features []sink.Feature) error {
			errs := make([]error, len(features))
			for i, feature := range features {
				if feature.Kind == sink.Max {
					errs[i] = errors.New("would add up maxima")
				}
			}
			return &sink.BatchError{Errs: errs}
		})
		l.addKind("old", "s", sink.Sum)
		l.addKind("seats", "s", sink.Max)
		start := time.Now()
		d := declare(t, l, s)
		time.Sleep(declareGrace - 1)
		synctest.Wait()
		require.Zero(t, s.questions(), "it may still be declared")
		time.Sleep(1)
		synctest.Wait()
		require.Equal(t, 1, l.ended(0, sink.Delivered))
		require.Equal(t, declareGrace, s.log()[0].at.Sub(start))
		require.Equal(t, 1, s.questions())
		require.Equal(t, []sink.Feature{{Name: "old"}, {Name: "seats", Kind: sink.Max}}, s.first())
		require.ErrorContains(t, d.Health(), `sink not ready for feature "seats"`)
		require.ErrorContains(t, d.Health(), `would add up maxima`)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Len(t, s.log(), 1)
		require.Zero(t, l.routes[0].records[0].Attempt, "held, not taken")
	})
}

func TestFlushLearnsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newPicky(t, func(context.Context, int, []sink.Feature) error { return nil })
		l.add("old", "s")
		d := declare(t, l, s)
		synctest.Wait()
		start := time.Now()
		require.NoError(t, d.Flush(t.Context()))
		require.Zero(t, time.Since(start))
		require.Equal(t, 1, l.ended(0, sink.Delivered))
	})
}

func TestHungPrepare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		release := make(chan struct{})
		s := newPicky(t, func(_ context.Context, call int, _ []sink.Feature) error {
			if call == 2 {
				<-release // deaf
			}
			return nil
		})
		d := declare(t, l, s, "f", "g")
		require.NoError(t, d.Prepare(t.Context(), []sink.Feature{{Name: "f"}}))
		l.add("g", "s")
		time.Sleep(time.Hour)
		l.add("f", "s")
		synctest.Wait()
		require.Equal(t, 1, l.ended(0, sink.Delivered), "prepared features go on")
		require.ErrorContains(t, d.Health(), `route "a": asking the sink about features runs for 1h0m0s, past its timeout of 30s`)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, d.Prepare(ctx, []sink.Feature{{Name: "h"}}), context.DeadlineExceeded)
		require.ErrorContains(t, d.Flush(ctx), "1 record still open")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorContains(t, d.Stop(ctx), `route "a": the sink is still being asked about features`)
		close(release)
		require.NoError(t, d.Stop(t.Context()))
		require.ErrorIs(t, d.Prepare(t.Context(), []sink.Feature{{Name: "h"}}), errStopped)
	})
}

func TestPrepareAnswersTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 2)
		refusal := errors.New("no such meter")
		broken := true
		s := newPicky(t, nil)
		s.prepare = func(_ context.Context, _ int, features []sink.Feature) error {
			time.Sleep(time.Second)
			if !broken {
				return nil
			}
			errs := make([]error, len(features))
			errs[1] = sink.RetryAfter(refusal, time.Hour)
			return &sink.BatchError{Errs: errs}
		}
		features := []sink.Feature{{Name: "f"}, {Name: "g"}}
		d := Start(Config{Ledger: l, Routes: to(newBiller(t, nil), s), Features: func() []sink.Feature { return features }})
		defer func() { require.NoError(t, d.Stop(context.Background())) }()
		require.NoError(t, d.Prepare(t.Context(), nil))
		err := d.Prepare(t.Context(), features)
		require.ErrorIs(t, err, refusal)
		require.ErrorContains(t, err, `meter: route "b": feature "g": no such meter`)
		require.NotContains(t, err.Error(), `"f"`)

		l.add("f", "s")
		l.add("g", "s")
		time.Sleep(time.Hour - 2*time.Second)
		require.Equal(t, 1, s.questions(), "asked already, and the sink wants an hour")
		require.Equal(t, 1, l.ended(1, sink.Delivered))
		broken = false
		var asking sync.WaitGroup
		for range 3 {
			asking.Go(func() {
				if err := d.Prepare(t.Context(), features); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		synctest.Wait()
		require.Equal(t, 2, l.ended(1, sink.Delivered))
		require.NoError(t, d.Health())

		broken = true
		require.Error(t, d.Prepare(t.Context(), features))
		l.add("g", "s")
		synctest.Wait()
		require.Equal(t, 2, l.ended(1, sink.Delivered), "a feature that fails now is held, whatever it did before")
	})
}

func TestStopEndsARunningPrepare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newPicky(t, func(ctx context.Context, _ int, _ []sink.Feature) error {
			<-ctx.Done()
			return ctx.Err()
		})
		d := declare(t, l, s)
		asked := make(chan error, 1)
		go func() { asked <- d.Prepare(t.Context(), []sink.Feature{{Name: "f"}, {Name: "g"}}) }()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, d.Stop(t.Context()))
		require.ErrorIs(t, <-asked, context.Canceled)
		require.Zero(t, time.Since(start))
		require.Equal(t, 1, s.questions())
	})
}
