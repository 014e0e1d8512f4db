package meter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// forms are the ways to run a function as a call.
var forms = map[string]func(context.Context, *Feature, func(context.Context) (int, error), ...Option) (int, error){
	"Wrap": func(ctx context.Context, f *Feature, fn func(context.Context) (int, error), opts ...Option) (int, error) {
		return Wrap(f, func(ctx context.Context, _ string) (int, error) { return fn(ctx) }, opts...)(ctx, "in")
	},
	"DoValue": DoValue[int],
	"Do": func(ctx context.Context, f *Feature, fn func(context.Context) (int, error), opts ...Option) (v int, err error) {
		err = Do(ctx, f, func(ctx context.Context) (err error) {
			v, err = fn(ctx)
			return err
		}, opts...)
		return v, err
	},
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	evenFailed := CountWhen(func(r Result) bool { return true })
	for form, run := range forms {
		for name, test := range map[string]struct {
			fn     func(context.Context) (int, error)
			opts   []Option
			value  int
			err    error
			panics any
			billed int64
		}{
			"value":        {fn: func(context.Context) (int, error) { return 7, nil }, value: 7, billed: 1},
			"set":          {fn: func(ctx context.Context) (int, error) { return 7, SetQuantity(ctx, 5) }, value: 7, billed: 5},
			"error":        {fn: func(context.Context) (int, error) { return 7, failed }, value: 7, err: failed},
			"error, held":  {fn: func(ctx context.Context) (int, error) { return 7, errors.Join(failed, SetQuantity(ctx, 5)) }, opts: []Option{Hold(9)}, value: 7, err: failed},
			"error counts": {fn: func(context.Context) (int, error) { return 7, failed }, opts: []Option{evenFailed}, value: 7, err: failed, billed: 1},
			"panic":        {fn: func(context.Context) (int, error) { panic("boom") }, panics: "boom"},
			"panic counts": {fn: func(context.Context) (int, error) { panic("boom") }, opts: []Option{evenFailed}, panics: "boom", billed: 1},
			"never counts": {fn: func(context.Context) (int, error) { return 7, nil }, opts: []Option{CountWhen(func(Result) bool { return false })}, value: 7},
			"quantity":     {fn: func(context.Context) (int, error) { return 7, nil }, opts: []Option{Quantity(3)}, value: 7, billed: 3},
			"canceled": {fn: func(ctx context.Context) (int, error) {
				call, _ := CallFrom(ctx)
				call.Cancel()
				return 7, nil
			}, value: 7},
			"nothing is set": {fn: func(context.Context) (int, error) { return 7, nil }, opts: []Option{Hold(3)}, value: 7},
		} {
			t.Run(form+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := open(t)
				f := m.Feature("f")
				func() {
					defer func() { require.Equal(t, test.panics, recover()) }()
					v, err := run(as("s"), f, test.fn, test.opts...)
					require.Equal(t, test.value, v)
					require.ErrorIs(t, err, test.err)
				}()
				require.Equal(t, test.billed, f.Total("s").Quantity, "there before the caller goes on")
				require.Equal(t, test.billed, m.billed(t, "f", "s"))
			})
		}
	}
}

func TestNilFunctionsPanicAtOnce(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	ctx := context.Background() // without a caller: nobody is asked
	for site, wire := range map[string]func(){
		"Wrap":    func() { Wrap[int, int](f, nil) },
		"Do":      func() { _ = Do(ctx, f, nil) },
		"DoValue": func() { _, _ = DoValue[int](ctx, f, nil) },
		"Seq":     func() { Seq[int](ctx, f, nil, nil) },
	} {
		require.Equal(t, "meter: "+site+` of feature "f" around a nil function`, panicOf(wire))
	}
}

func TestNilFeaturePanicsAtWiring(t *testing.T) {
	t.Parallel()
	for site, wire := range map[string]func(){
		"Middleware": func() { Middleware(nil) },
		"Wrap": func() {
			Wrap(nil, func(context.Context, int) (int, error) { return 0, nil })
		},
	} {
		require.Equal(t, "meter: "+site+" of a nil feature; it comes from Meter.Feature", panicOf(wire))
	}
}

func TestFunctionsCantCount(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	for form, run := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f := m.Feature("f")
			shut := func(err error) func(context.Context) (int, error) {
				return func(ctx context.Context) (int, error) { return 7, errors.Join(err, m.Shutdown(ctx)) }
			}
			v, err := run(as("s"), f, shut(nil))
			require.ErrorIs(t, err, ErrClosed)
			require.Equal(t, 7, v)

			_, err = run(as("s"), f, func(context.Context) (int, error) { t.Error("ran"); return 0, nil })
			require.ErrorIs(t, err, ErrClosed)
			require.Equal(t, license.Unavailable, asRefused(t, err).Reason)

			m = open(t)
			f = m.Feature("f", CountWhen(func(Result) bool { return true }))
			_, err = run(as("s"), f, shut(failed))
			require.ErrorIs(t, err, ErrClosed)
			require.ErrorIs(t, err, failed, "joined")

			m = open(t)
			f = m.Feature("f", CountWhen(func(Result) bool { return true }))
			require.Equal(t, "boom", panicOf(func() {
				_, _ = run(as("s"), f, func(ctx context.Context) (int, error) { _ = m.Shutdown(ctx); panic("boom") })
			}))
			require.Contains(t, fmt.Sprint(m.logs.all()), "not counted")
		})
	}
}

func TestWrapTakesMethodsAndGenerics(t *testing.T) {
	t.Parallel()
	m := open(t)
	render := Wrap(m.Feature("render"), printer{}.render)
	last := Wrap(m.Feature("last"), lastOf[string])
	for _, customer := range []string{"a", "b", "b"} {
		text, err := render(as(customer), 7)
		require.NoError(t, err)
		require.Equal(t, "<7>", text)
		text, err = last(as(customer), []string{"x", "y"})
		require.NoError(t, err)
		require.Equal(t, "y", text)
	}
	require.EqualValues(t, 1, m.billed(t, "render", "a"))
	require.EqualValues(t, 2, m.billed(t, "last", "b"))
}

type printer struct{}

func (printer) render(_ context.Context, n int) (string, error) { return fmt.Sprintf("<%d>", n), nil }
func lastOf[T any](_ context.Context, in []T) (T, error)        { return in[len(in)-1], nil }

func elements(values ...any) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, v := range values {
			err, _ := v.(error)
			s, _ := v.(string)
			if !yield(s, err) {
				return
			}
		}
	}
}

func TestSeq(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	length := func(s string) int64 { return int64(len(s)) }
	for name, test := range map[string]struct {
		seq    iter.Seq2[string, error]
		weigh  func(string) int64
		opts   []Option
		stop   int // after so many elements; 0: never
		want   []string
		errs   []error
		billed int64
	}{
		"one each":            {seq: elements("a", "bb", "ccc"), want: []string{"a", "bb", "ccc"}, billed: 3},
		"weighed":             {seq: elements("a", "bb", "ccc"), weigh: length, want: []string{"a", "bb", "ccc"}, billed: 6},
		"empty":               {seq: elements()},
		"stopped":             {seq: elements("a", "bb", "ccc"), weigh: length, stop: 2, want: []string{"a", "bb"}, billed: 3},
		"error in between":    {seq: elements("a", broken, "ccc"), weigh: length, want: []string{"a", "", "ccc"}, errs: []error{broken}, billed: 4},
		"weightless":          {seq: elements("", ""), weigh: length, want: []string{"", ""}},
		"negative weight":     {seq: elements("a", "b"), weigh: func(string) int64 { return -1 }, want: []string{""}, errs: []error{ErrQuantity}},
		"Quantity is ignored": {seq: elements("a"), opts: []Option{Quantity(9)}, want: []string{"a"}, billed: 1},
		"CountWhen":           {seq: elements("a", broken), opts: []Option{CountWhen(func(r Result) bool { return r.Err != nil })}, want: []string{"a", ""}, errs: []error{broken}, billed: 1},
		"bad option":          {seq: elements("a"), opts: []Option{Quantity(-1)}, want: []string{""}, errs: []error{ErrQuantity}},
		"refused":             {seq: elements("a"), opts: []Option{Rate(0, 1)}, want: []string{""}, errs: []error{&RefusedError{}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f := m.Feature("f")
			if name == "refused" { // the allowance is used up
				_, _, err := f.Begin(as("s"), test.opts...)
				require.NoError(t, err)
			}
			var got []string
			var errs []error
			for v, err := range Seq(as("s"), f, test.seq, test.weigh, test.opts...) {
				got = append(got, v)
				if err != nil {
					errs = append(errs, err)
				}
				if len(got) == test.stop {
					break
				}
			}
			require.Equal(t, test.want, got)
			require.Len(t, errs, len(test.errs))
			for i, err := range errs {
				if name == "refused" {
					require.Equal(t, license.TooFast, asRefused(t, err).Reason)
				} else {
					require.ErrorIs(t, err, test.errs[i])
				}
			}
			require.Equal(t, test.billed, m.billed(t, "f", "s"))
		})
	}
}

func TestSeqWritesThrough(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	seq := Seq(as("s"), f, elements("a", "b", "c"), nil)
	n := int64(0)
	for range seq {
		n++
		require.Equal(t, n, f.Total("s").Quantity, "counted before it is handed over")
	}
	for range seq {
		n++
	}
	require.Equal(t, n, f.Total("s").Quantity, "each iteration counts")

	for v, err := range seq {
		switch v {
		case "a":
			require.NoError(t, err)
			require.NoError(t, m.Shutdown(t.Context()))
		default:
			require.Empty(t, v, "what could not be counted is not handed over")
			require.ErrorIs(t, err, ErrClosed)
		}
	}
}

func TestSeqPanicsGoOn(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	require.Equal(t, "boom", panicOf(func() {
		for range Seq(as("s"), f, elements("a"), nil) {
			panic("boom")
		}
	}))
	require.Equal(t, "boom", panicOf(func() {
		for range Seq(as("s"), f, func(func(string, error) bool) { panic("boom") }, nil) {
			t.Fatal("no element")
		}
	}))
	require.EqualValues(t, 1, f.Total("s").Quantity)
	peak := m.Feature("peak", Kind(sink.Max))
	next, stop := iter.Pull2(Seq(as("s"), peak, elements("a"), nil))
	defer stop()
	_, err, _ := next()
	require.ErrorIs(t, err, ErrKind)
}
