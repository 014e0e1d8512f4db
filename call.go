package meter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/inprocess/meter/internal/ledger"
)

// What Call.state holds: the quantity that the callee has set, or one of these.
const (
	unset     = -1 // nobody set a quantity: the preset counts
	canceled  = -2
	committed = -3 // and below: committed minus the quantity counted
)

// Call is one metered invocation: begun, then committed or canceled. It is what
// [Middleware], [Wrap], [Do] and the adapters of other frameworks are made of.
//
// Concurrency: every method is safe for concurrent use; a quantity set before
// Commit begins is counted, one set after gets an error.
type Call struct {
	feature *Feature
	caller  Caller // as identified
	subject string // who is billed; "": nobody, under Config.Shadow
	dims    *dimensions
	preset  int64
	account *account      // nil: not limited
	left    float64       // of the account's tokens, if callConfig.tellsRate
	tally   *ledger.Tally // of the subject; nil: no quota
	held    atomic.Int64  // of the quota
	repeat  string        // IdempotencyKey of the request; "": none

	state atomic.Int64
	once  sync.Once
	err   error // of Commit; written within once
}

// callContext makes a call and its context one object.
type callContext struct {
	context.Context
	call Call
}

type callKey struct{}

func (c *callContext) Value(key any) any {
	switch key.(type) {
	case callKey:
		return &c.call
	case callerKey:
		return &c.call.caller
	}
	return c.Context.Value(key)
}

// String keeps fmt from reading the call's insides.
func (c *callContext) String() string {
	return fmt.Sprintf("%v.WithCall(%s)", c.Context, c.call.feature.name)
}

// Begin begins a call by the caller of ctx (see [WithCaller]): it asks the
// Checker, reserves what the call may use of the subject's quota (see [Limit] and
// [Hold]), holds the caller to Rate, and returns a context that carries the call. It
// always ends with Commit or Cancel; one that never does keeps what it has reserved
// until the process ends:
//
//	ctx, call, err := report.Begin(ctx)
//	defer call.Cancel()
//	if err != nil {
//		return err
//	}
//	…
//	return call.Commit()
//
// Guarantee: nothing is counted before Commit. However many calls begin at once, this
// process lets none through that would take the subject past its limit. A nested call
// inherits the caller and is checked for its own feature.
// Blocking: as the Checker and Limit do.
// Errors: *RefusedError: the caller may not, or may not now; its cause is
// ErrNoCaller when there is nobody to bill. ErrKind: the feature is no Sum.
// ErrName: a bad dimension. ErrQuantity: a bad option. With an error, the context
// is ctx and the call nil.
func (f *Feature) Begin(ctx context.Context, opts ...Option) (context.Context, *Call, error) {
	cfg, err := f.with(opts)
	if err != nil {
		return ctx, nil, err
	}
	return f.begin(ctx, cfg)
}

func (f *Feature) begin(ctx context.Context, cfg *callConfig) (context.Context, *Call, error) {
	c := &callContext{Context: ctx}
	if err := f.admit(&c.call, ctx, cfg, callerOf(ctx), nil); err != nil {
		return ctx, nil, err
	}
	return c, &c.call, nil
}

// CallFrom returns the innermost call that ctx is part of.
func CallFrom(ctx context.Context) (*Call, bool) {
	c, ok := ctx.Value(callKey{}).(*Call)
	return c, ok
}

// SetQuantity sets the quantity of the innermost call that ctx is part of; see
// [Call.SetQuantity]. A second feature used inside is counted with its own
// [Feature.Add].
//
// Errors: ErrNotMetered when there is no call or it has ended; ErrQuantity.
func SetQuantity(ctx context.Context, n int64) error {
	c, ok := CallFrom(ctx)
	if !ok {
		return ErrNotMetered
	}
	return c.SetQuantity(n)
}

// Caller is who is asking, with the subject that is billed.
func (c *Call) Caller() Caller {
	who := c.caller
	who.Subject = c.subject
	return who
}

// Quantity is what Commit would count, in units; after Commit, what it counted;
// after Cancel, 0.
func (c *Call) Quantity() int64 {
	switch n := c.state.Load(); {
	case n >= 0:
		return n
	case n == unset:
		return c.preset
	case n == canceled:
		return 0
	default:
		return committed - n
	}
}

// SetQuantity replaces the quantity that Commit counts.
//
// Errors: ErrQuantity when n is negative or above 2^53-1; ErrNotMetered when the
// call has ended. With an error nothing has changed.
func (c *Call) SetQuantity(n int64) error {
	return c.change(func(int64) int64 { return n })
}

// AddQuantity adds n to the quantity that the callee has set so far; the first
// replaces the preset. The sum reaches the ledger at Commit: a process that is
// killed loses it, so long streams should use [Seq] or [Feature.Add].
//
// Errors: ErrQuantity when n is negative or the sum above 2^53-1; ErrNotMetered
// when the call has ended. With an error nothing has changed.
func (c *Call) AddQuantity(n int64) error {
	return c.change(func(old int64) int64 {
		if n < 0 || n > ledger.MaxQuantity {
			return -1
		}
		return old + n
	})
}

// change sets the quantity to what next makes of the one before, 0 if unset.
func (c *Call) change(next func(int64) int64) error {
	var n int64
	fits := func() bool { return n >= 0 && n <= ledger.MaxQuantity }
	ok := c.move(func(old int64) int64 {
		if n = next(max(old, 0)); !fits() {
			return old
		}
		return n
	})
	switch {
	case !ok:
		return fmt.Errorf("%w: the call has ended", ErrNotMetered)
	case !fits():
		return fmt.Errorf("%w: a call's must be 0 to %d", ErrQuantity, int64(ledger.MaxQuantity))
	}
	return nil
}

// move replaces the state by what next makes of it; false when the call has ended.
func (c *Call) move(next func(int64) int64) bool {
	for {
		old := c.state.Load()
		if old < unset {
			return false
		}
		if c.state.CompareAndSwap(old, next(old)) {
			return true
		}
	}
}

// Commit counts the call, once: later calls, also concurrent ones, wait for the
// first and return what it returned. No context cancels it.
//
// Guarantee, Blocking: as for [Feature.Add].
// Errors: as for Feature.Add; ErrNotMetered after Cancel.
func (c *Call) Commit() error {
	c.once.Do(func() { c.err = c.commit() })
	return c.err
}

func (c *Call) commit() error {
	var n int64
	ok := c.move(func(old int64) int64 {
		if n = old; n == unset {
			n = c.preset
		}
		return committed - n
	})
	if !ok {
		return fmt.Errorf("%w: the call was canceled", ErrNotMetered)
	}
	return c.count(n, true)
}

// settle is Commit for the wrappers: that the callee has canceled its call is no
// error.
func (c *Call) settle() error {
	if err := c.Commit(); !errors.Is(err, ErrNotMetered) {
		return err
	}
	return nil
}

// count brings n to the ledger. It is the last of the call if ends.
func (c *Call) count(n int64, ends bool) error {
	switch {
	case c.subject == "":
		c.feature.giveAway(n) // Config.Shadow: nobody to bill, as OnDecision was told
		return nil
	case c.repeat != "":
		return c.countOnce(n)
	case c.tally != nil:
		return c.countHeld(n, ends)
	case c.dims != nil:
		s, err := c.feature.series(c.subject, c.dims)
		if err != nil {
			return err
		}
		return s.Add(n)
	case c.account != nil:
		return c.account.add(c.feature.ledger, c.subject, n)
	}
	return c.feature.ledger.Add(c.subject, n)
}

// Cancel ends the call without counting it. After Commit, and on a nil Call, it
// does nothing, so that it can be deferred at once. What runs inside [Middleware],
// [Wrap], [Do] or [DoValue] may cancel its call, to give this one away.
func (c *Call) Cancel() {
	if c != nil && c.move(func(int64) int64 { return canceled }) {
		c.release()
	}
}
