package delivery

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

type contrary struct{}

func (contrary) Error() string   { return "contrary" }
func (contrary) Is(error) bool   { panic("looked at") }
func (contrary) Unwrap() []error { panic("looked at") }

type silent struct{}

func (silent) Error() string { panic("spoken to") }

// conjurer finds a BatchError where none is in its chain.
type conjurer struct{ batch *sink.BatchError }

func (conjurer) Error() string { return "conjurer" }
func (c conjurer) As(target any) bool {
	if to, ok := target.(**sink.BatchError); ok {
		*to = c.batch
		return true
	}
	return false
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const (
		ok       = sink.Delivered
		rejected = sink.Rejected
		pending  = sink.Pending
		doubt    = sink.InDoubt
	)
	rejection := fmt.Errorf("no such customer: %w", sink.ErrRejected)
	refused := fmt.Errorf("dial: %w", sink.ErrNotApplied)
	batch := func(errs ...error) error { return &sink.BatchError{Errs: errs} }
	var none *sink.BatchError
	for name, c := range map[string]struct {
		err  error
		want [3]sink.Outcome
	}{
		"nil":                              {nil, [3]sink.Outcome{ok, ok, ok}},
		"rejected":                         {rejection, [3]sink.Outcome{rejected, rejected, rejected}},
		"not applied":                      {refused, [3]sink.Outcome{pending, pending, pending}},
		"not applied, with its cause":      {errors.Join(sink.ErrNotApplied, errDown), [3]sink.Outcome{pending, pending, pending}},
		"anything else":                    {errDown, [3]sink.Outcome{doubt, doubt, doubt}},
		"deadline":                         {context.DeadlineExceeded, [3]sink.Outcome{doubt, doubt, doubt}},
		"rejected and not applied":         {errors.Join(rejection, refused), [3]sink.Outcome{doubt, doubt, doubt}},
		"retry after keeps the outcome":    {sink.RetryAfter(refused, time.Second), [3]sink.Outcome{pending, pending, pending}},
		"batch":                            {batch(nil, rejection, refused), [3]sink.Outcome{ok, rejected, pending}},
		"batch, all fine":                  {batch(nil, nil, nil), [3]sink.Outcome{ok, ok, ok}},
		"batch, wrapped":                   {fmt.Errorf("post: %w", batch(nil, errDown, refused)), [3]sink.Outcome{ok, doubt, pending}},
		"batch, retry after":               {sink.RetryAfter(batch(nil, errDown, refused), time.Second), [3]sink.Outcome{ok, doubt, pending}},
		"batch, joined alone":              {errors.Join(nil, batch(nil, nil, refused)), [3]sink.Outcome{ok, ok, pending}},
		"batch, joined with another":       {errors.Join(batch(nil, nil, refused), sink.ErrNotApplied), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, wrapped with a verdict":    {fmt.Errorf("%w: %w", sink.ErrRejected, batch(nil, nil, nil)), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, two of them":               {errors.Join(batch(nil, nil, nil), batch(refused, refused, refused)), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, too short":                 {batch(refused, refused), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, too long":                  {batch(nil, nil, nil, refused), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, empty":                     {batch(), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, nil":                       {none, [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, nil and wrapped":           {fmt.Errorf("post: %w", none), [3]sink.Outcome{doubt, doubt, doubt}},
		"batch, conjured":                  {conjurer{&sink.BatchError{Errs: make([]error, 3)}}, [3]sink.Outcome{doubt, doubt, doubt}},
		"batch within a batch":             {batch(nil, batch(refused), refused), [3]sink.Outcome{ok, doubt, pending}},
		"batch, entry says both":           {batch(nil, errors.Join(rejection, refused), nil), [3]sink.Outcome{ok, doubt, ok}},
		"error that panics when looked at": {contrary{}, [3]sink.Outcome{doubt, doubt, doubt}},
		"entry that panics when looked at": {batch(nil, contrary{}, nil), [3]sink.Outcome{doubt, doubt, doubt}},
		"error that panics when printed":   {silent{}, [3]sink.Outcome{doubt, doubt, doubt}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := judge(make([]sink.Record, 3), c.err, time.Now())
			var got [3]sink.Outcome
			for i, result := range v.results {
				got[i] = result.Outcome
				require.Equal(t, result.Outcome == ok, result.Reason == "", "a reason exactly if it failed")
			}
			require.Equal(t, c.want, got)
			require.NotPanics(t, func() { _ = (&route{name: "a"}).wrong("fails", v.err).Error() })
		})
	}
}

func TestJudgeDelays(t *testing.T) {
	t.Parallel()
	now := time.Now()
	slow := func(d time.Duration) error { return sink.RetryAfter(sink.ErrNotApplied, d) }
	batch := func(errs ...error) error { return &sink.BatchError{Errs: errs} }
	for name, c := range map[string]struct {
		err     error
		attempt int
		route   time.Duration
		records [3]time.Duration // least; 0: none
	}{
		"whole":                         {slow(time.Hour), 1, time.Hour, [3]time.Duration{}},
		"whole, without":                {errDown, 1, 0, [3]time.Duration{}},
		"whole, often tried":            {errDown, stepAside, 0, [3]time.Duration{4 * time.Second, 4 * time.Second, 4 * time.Second}},
		"one record":                    {batch(nil, nil, slow(time.Hour)), 1, 0, [3]time.Duration{2: time.Hour}},
		"one record, without":           {batch(nil, nil, errDown), 1, 0, [3]time.Duration{2: firstDefer / 2}},
		"around a batch":                {sink.RetryAfter(batch(nil, nil, slow(time.Second)), time.Hour), 1, time.Hour, [3]time.Duration{2: time.Second}},
		"most records":                  {batch(nil, slow(time.Minute), slow(time.Hour)), 1, time.Minute, [3]time.Duration{1: time.Minute, 2: time.Hour}},
		"most records, but not all say": {batch(nil, errDown, slow(time.Hour)), 1, 0, [3]time.Duration{1: firstDefer / 2, 2: time.Hour}},
		"wrong length":                  {batch(slow(time.Hour)), 1, time.Hour, [3]time.Duration{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := make([]sink.Record, 3)
			for i := range records {
				records[i].Attempt = c.attempt
			}
			v := judge(records, c.err, now)
			require.Equal(t, c.route, v.delay)
			for i, result := range v.results {
				require.Equal(t, c.records[i] == 0, result.NotBefore.IsZero(), i)
				if c.records[i] > 0 {
					require.GreaterOrEqual(t, result.NotBefore.Sub(now), c.records[i])
					require.LessOrEqual(t, result.NotBefore.Sub(now), 2*c.records[i]+time.Second)
				}
			}
		})
	}
}

func TestReasonIsBounded(t *testing.T) {
	t.Parallel()
	long := make([]byte, 1<<20)
	require.Less(t, len(text(errors.New(string(long)))), 2000)
	require.Equal(t, "a�b", text(errors.New("a\xffb")))
}
