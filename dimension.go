package meter

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
)

// dimensions hang on a context. They are immutable.
type dimensions struct {
	values map[string]string
	err    error // why they can't be used: the context has no other way to say so
}

type dimensionsKey struct{}

// dimensionsUsed spares programs without dimensions the walk up the context at
// every count. It only ever goes from false to true.
var dimensionsUsed atomic.Bool

func dimensionsOf(ctx context.Context) *dimensions {
	if !dimensionsUsed.Load() {
		return nil
	}
	d, _ := ctx.Value(dimensionsKey{}).(*dimensions)
	return d
}

// WithDimension returns a context under which counts have one dimension more: the
// series of a subject is billed per combination of dimensions. The same name
// again replaces the value. [Feature.Add], [Feature.Set] and [Feature.Begin] (when
// it begins, so not from inside the call) look at it; [Counter] does not.
//
// At most 16 dimensions; a name is 1 to 64 bytes that print, a value at most 256
// bytes of UTF-8 without control characters. Beyond that, counting under the
// context gives ErrName, which says what is wrong. Each combination is a series of
// its own, and costs one: don't use request IDs.
func WithDimension(ctx context.Context, name, value string) context.Context {
	dimensionsUsed.Store(true)
	next := &dimensions{values: map[string]string{}}
	if d := dimensionsOf(ctx); d != nil {
		maps.Copy(next.values, d.values)
		next.err = d.err
	}
	if err := checkDimension(name, value); err != nil {
		next.err = err
	} else {
		next.values[name] = value
	}
	if len(next.values) > maxDimensions && next.err == nil {
		next.err = fmt.Errorf("%w: %d dimensions with %s, at most %d", ErrName, len(next.values), shown(name), maxDimensions)
	}
	return context.WithValue(ctx, dimensionsKey{}, next)
}

func checkDimension(name, value string) error {
	if why := badLabel(name, maxDimensionName); why != "" {
		return fmt.Errorf("%w: dimension name: %s", ErrName, why)
	}
	if why := badValue(value, maxDimensionValue); why != "" {
		return fmt.Errorf("%w: value of dimension %q: %s", ErrName, name, why)
	}
	return nil
}
