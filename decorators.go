package meter

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Wrap returns fn, metered: each run is one call of f by the caller of its context
// (see [WithCaller]). A run that counts (see [CountWhen]; by default one without
// an error) is in the ledger before the caller gets control back. Panics go on
// unchanged and are not counted. Wrap panics at wiring when fn is nil, an option is
// bad or f is no Sum.
//
// Errors of the returned function: those of Begin, and fn has not run; those of
// fn, joined with those of Commit.
func Wrap[In, Out any](f *Feature, fn func(context.Context, In) (Out, error), opts ...Option) func(context.Context, In) (Out, error) {
	mustRun("Wrap", f, fn == nil)
	cfg := f.mustWith("Wrap", opts)
	return func(ctx context.Context, in In) (out Out, err error) {
		ctx, call, err := f.begin(ctx, cfg)
		if err != nil {
			return out, err
		}
		returned := false
		defer func() { err = call.end(cfg, returned, err) }()
		out, err = fn(ctx, in)
		returned = true
		return out, err
	}
}

// mustRun panics where there is nothing to run, before anything was checked or held.
func mustRun(site string, f *Feature, isNil bool) {
	if isNil {
		panic(fmt.Sprintf("meter: %s of feature %q around a nil function", site, f.name))
	}
}

// Do runs fn as one call of f; see [Wrap]. It panics when fn is nil.
//
// Errors: those of Begin, and fn has not run; those of fn, joined with those of
// Commit.
func Do(ctx context.Context, f *Feature, fn func(context.Context) error, opts ...Option) error {
	mustRun("Do", f, fn == nil)
	_, err := DoValue(ctx, f, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, opts...)
	return err
}

// DoValue runs fn as one call of f and returns its value; see [Wrap]. It panics when
// fn is nil.
//
// Errors: those of Begin, and fn has not run; those of fn, joined with those of
// Commit.
func DoValue[T any](ctx context.Context, f *Feature, fn func(context.Context) (T, error), opts ...Option) (v T, err error) {
	mustRun("DoValue", f, fn == nil)
	cfg, err := f.with(opts)
	if err != nil {
		return v, err
	}
	ctx, call, err := f.begin(ctx, cfg)
	if err != nil {
		return v, err
	}
	returned := false
	defer func() { err = call.end(cfg, returned, err) }()
	v, err = fn(ctx)
	returned = true
	return v, err
}

// end settles the call of a function. It doesn't recover: a panic is on its way.
func (c *Call) end(cfg *callConfig, returned bool, err error) error {
	defer c.Cancel() // also when a CountWhen panics
	if !cfg.counts(Result{Err: err, Panicked: !returned}) {
		return err
	}
	commit := c.settle()
	if commit == nil {
		return err
	}
	if !returned {
		c.feature.notCounted(context.Background(), c, commit) // nobody gets the error
	}
	if err == nil {
		return commit
	}
	return errors.Join(err, commit)
}

// Seq returns seq, metered: it counts weigh(v), or 1 if weigh is nil, for each
// element v without an error, right before it is yielded, so that a process that
// is killed mid-way loses nothing. Each iteration is one call of f: it is checked
// once, at its start, and ends when the consumer stops. Instead of Quantity and
// Hold, weigh decides what counts: they say only what is reserved of a quota at the
// start, and elements beyond it count, too. CountWhen is asked per element, with its error. Seq panics
// when seq is nil.
//
// Errors yielded, each with a zero element and as the last: those of Begin; those
// of Add, and the element that could not be counted is not yielded. ErrUnsynced is
// logged instead, for the element is counted.
func Seq[T any](ctx context.Context, f *Feature, seq iter.Seq2[T, error], weigh func(T) int64, opts ...Option) iter.Seq2[T, error] {
	mustRun("Seq", f, seq == nil)
	cfg, bad := f.with(opts)
	return func(yield func(T, error) bool) {
		var zero T
		if bad != nil {
			yield(zero, bad)
			return
		}
		ctx, call, err := f.begin(ctx, cfg)
		if err != nil {
			yield(zero, err)
			return
		}
		defer call.Cancel()
		for v, err := range seq {
			if cfg.counts(Result{Err: err}) {
				n := int64(1)
				if weigh != nil {
					n = weigh(v)
				}
				if err := call.count(n, false); errors.Is(err, ErrUnsynced) {
					f.notCounted(ctx, call, err)
				} else if err != nil {
					yield(zero, err)
					return
				}
			}
			if !yield(v, err) {
				return
			}
		}
	}
}
