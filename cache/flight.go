package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/inprocess/meter/license"
)

// callTimeout bounds a call to the Checker, which nobody may be waiting for.
const callTimeout = 10 * time.Second

// toldPause is the least time between two failures that are logged.
const toldPause = time.Minute

// flight is a call to the Checker that is under way.
type flight struct {
	customer bool
	probe    bool // of its circuit
	// overtaken by a denial of its holder: if it brings an allowance, that is older.
	overtaken bool // guarded by Cache.mu

	done    chan struct{} // closed when the fields below are final
	verdict license.Verdict
	err     error
	failed  error // the Checker's own: it has not answered
}

// ask waits for the Checker's answer. If there is none, a denial stands.
func (c *Cache) ask(ctx context.Context, q license.Query, id digest) (license.Verdict, error) {
	v, err := c.wait(ctx, q, id)
	if err != nil {
		if d, ok := c.denied.Peek(id); ok && d.stands(c.clock.now(), &c.cfg) {
			c.stats.denials.Add(1)
			return d.verdict, nil
		}
	}
	return v, err
}

func (c *Cache) wait(ctx context.Context, q license.Query, id digest) (license.Verdict, error) {
	if err := ctx.Err(); err != nil {
		return license.Verdict{}, fmt.Errorf("cache: Checker not asked: %w", err)
	}
	f, v, err := c.board(ctx, q, id)
	if f == nil {
		return v, err
	}
	select {
	case <-f.done:
		return f.verdict, f.err
	case <-ctx.Done():
		return license.Verdict{}, fmt.Errorf("cache: waiting for the Checker: %w", ctx.Err())
	}
}

// board finds or starts the flight for q, unless one has landed just now.
func (c *Cache) board(ctx context.Context, q license.Query, id digest) (*flight, license.Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.now()
	e, age := c.lookup(&q, now)
	if age != spent {
		return nil, e.verdict, nil
	}
	if d := c.denial(id, now); d != nil {
		return nil, d.verdict, nil
	}
	c.stats.misses.Add(1)
	f, err := c.depart(ctx, q, id, e != nil)
	return f, license.Verdict{}, err
}

// refresh starts a flight for q behind the caller's back. If it may not start, q
// stays stale until the next attempt is due.
func (c *Cache) refresh(ctx context.Context, q license.Query) {
	id := c.identify(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.depart(ctx, q, id, true); err == nil {
		c.stats.refreshes.Add(1)
	}
}

// depart finds the flight for q, or starts one. c.mu is held.
func (c *Cache) depart(ctx context.Context, q license.Query, id digest, customer bool) (*flight, error) {
	if f := c.flights.find(q); f != nil && !f.overtaken {
		return f, nil
	}
	if c.closed {
		return nil, errClosed
	}
	circuit := c.circuits.of(customer)
	if err := circuit.refusal(c.clock.now().mono); err != nil {
		return nil, err
	}
	if !c.budget.take(time.Now(), customer) {
		return nil, c.overRate
	}
	f := &flight{
		customer: customer, probe: circuit.depart(),
		done: make(chan struct{}), err: errors.New("cache: Checker ended its goroutine"),
	}
	c.flights.add(q, f)
	c.stats.calls.Add(1)
	ctx = context.WithoutCancel(ctx)
	c.calls.Go(func() {
		defer c.land(f, q, id) // whatever the Checker does
		f.verdict, f.failed, f.err = c.call(ctx, q)
	})
	return f, nil
}

// land stores the answer and hands it to those who wait.
func (c *Cache) land(f *flight, q license.Query, id digest) {
	c.mu.Lock()
	if !c.closed { // Close cancels questions
		c.circuits.land(c.clock.now().mono, f)
		c.unanswered.land(f)
	}
	tell := f.err != nil && !c.closed && c.clock.now().since(c.told) >= toldPause
	if tell {
		c.told = c.clock.now()
	}
	if f.err != nil {
		c.stats.errors.Add(1)
	}
	listed, allowed := c.flights.remove(q, f), f.verdict.Status == license.Allowed
	switch {
	case f.err != nil:
	case listed && !(allowed && f.overtaken):
		c.store(q, id, f.verdict)
	case allowed:
		c.keepFirst(cmp.Or(f.verdict.Subject, q.Subject), q.Key)
	}
	c.mu.Unlock()
	close(f.done)
	if tell {
		c.tell(f.err)
	}
}

// tell logs a failure: while grace lasts, no caller sees one.
func (c *Cache) tell(err error) {
	attrs := []slog.Attr{slog.Any("error", err)}
	if p, ok := errors.AsType[*panicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	}
	c.cfg.Logger.LogAttrs(context.Background(), slog.LevelWarn, "cache: the license server gave no answer (told once a minute)", attrs...)
}

// call asks the Checker once. Without an error, the verdict is sound. failed is the
// Checker's own error; a panic or nonsense is no sign that the server is down.
func (c *Cache) call(ctx context.Context, q license.Query) (v license.Verdict, failed, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	defer func() {
		if p := recover(); p != nil {
			v, failed, err = license.Verdict{}, nil, &panicError{p, debug.Stack()}
		}
	}()
	v, failed = c.cfg.Checker.Check(ctx, q)
	failed = veil(failed, q.Key)
	if err = failed; err == nil {
		err = unsound(v, q)
	}
	if err != nil {
		_, _, _ = err.Error(), retryAfter(err), aboutQuery(err) // an error that panics shall do it here
		return license.Verdict{}, failed, fmt.Errorf("cache: Checker: %w", err)
	}
	return v, nil, nil
}

// unsound says why v is no answer to q. Nonsense must not replace a good verdict.
func unsound(v license.Verdict, q license.Query) error {
	switch {
	case v.Status == license.Denied:
		return nil
	case v.Status != license.Allowed:
		return errors.New("answered neither allowed nor denied")
	case v.Subject == "" && q.Subject == "":
		return errors.New("allowed without a Subject to bill")
	case !v.Until.IsZero() && !time.Now().Before(v.Until):
		return errors.New("allowed until a time that has passed")
	}
	return nil
}

// panicError tells of a panic without its text, which may hold a key; the runtime's
// own texts don't.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	if err, ok := e.value.(runtime.Error); ok {
		return "cache: Checker panicked: " + err.Error()
	}
	return fmt.Sprintf("cache: Checker panicked with a %T", e.value)
}
