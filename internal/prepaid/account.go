package prepaid

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Account is what one subject has drawn of a feature.
type Account struct {
	of      *Feature
	subject string

	// gate is held for reading while a call is admitted under the limit, and for writing
	// while that comes down.
	gate  sync.RWMutex
	limit int64
	due   atomic.Int64 // what may be admitted before somebody looks at what is left
	used  atomic.Bool  // since the sweeper came by

	mu      sync.Mutex
	state   state // as the file has it; changed by the flight alone
	unsaved *state
	flight  *flight // the one that runs; nil: none
	known   int64   // what the balance had, until then
	until   time.Time
	pause   time.Duration // after the last failure
	again   time.Time     // when to try again
	failure error
	idle    int // sweeps without a call
	closed  bool
}

func (f *Feature) account(s state) *Account {
	return &Account{of: f, subject: s.Subject, state: s, limit: s.Limit}
}

// Enter begins the admission of a call under the limit that it returns. Leave ends it.
func (a *Account) Enter() (limit int64) {
	a.gate.RLock()
	return max(a.limit, 0)
}

// Leave ends the admission of a call that has reserved n, and has more drawn if little
// is left.
func (a *Account) Leave(n int64) {
	a.gate.RUnlock()
	if !a.used.Load() {
		a.used.Store(true)
	}
	if a.due.Add(-n) < 0 {
		a.look()
	}
}

// Limit is how far the subject's count may go now.
func (a *Account) Limit() int64 {
	a.gate.RLock()
	defer a.gate.RUnlock()
	return max(a.limit, 0)
}

// EmptyError says that too little is left, here and in the balance.
type EmptyError struct{ Subject string }

func (e *EmptyError) Error() string {
	return fmt.Sprintf("subject %q has used what it has bought", e.Subject)
}

// WaitError says that it can't be known whether there is more.
type WaitError struct {
	After time.Duration // until it will be tried again; 0: not known
	Err   error
}

func (e *WaitError) Error() string { return "prepaid units can't be drawn: " + e.Err.Error() }
func (e *WaitError) Unwrap() error { return e.Err }

// Await has units drawn for a call that needs at least n, and waits for that. After nil
// the call should try again.
func (a *Account) Await(ctx context.Context, n int64) error {
	left, err := a.left()
	if err != nil {
		return err
	}
	if n <= left {
		return nil
	}
	a.mu.Lock()
	f, now := a.flight, time.Now()
	if f == nil {
		switch {
		case a.closed:
			err = ErrClosed
		case now.Before(a.again):
			err = &WaitError{a.again.Sub(now), a.failure}
		case now.Before(a.until) && n-left > a.known:
			err = &EmptyError{a.subject}
		default:
			f = a.launch(a.of.of.ctx, func(ctx context.Context) error { return a.draw(ctx, n) })
		}
	}
	a.mu.Unlock()
	if f == nil {
		return err
	}
	select {
	case <-f.done:
		return a.told(f.err)
	case <-ctx.Done():
		return &WaitError{0, ctx.Err()}
	}
}

// told is the error of a flight, for a call.
func (a *Account) told(err error) error {
	if _, empty := errors.AsType[*EmptyError](err); err == nil || empty {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return &WaitError{max(0, time.Until(a.again)), err}
}

// left is what may still be admitted; below 0: more was used than drawn.
func (a *Account) left() (int64, error) {
	limit := a.Limit()
	taken, _, err := a.of.standing(a.subject, limit)
	return limit - taken, err
}

// low is what is left when the next block is drawn.
func (a *Account) low() int64 { return a.of.block / 2 }

// look draws if little is left.
func (a *Account) look() {
	left, err := a.left()
	if err != nil {
		return
	}
	if left > a.low() {
		a.due.Store(left - a.low() - 1)
		return
	}
	a.due.Store(a.low() / 4) // not every call needs to look
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.flight != nil || a.closed || now.Before(a.again) || now.Before(a.until) && a.known == 0 {
		return
	}
	a.launch(a.of.of.ctx, func(ctx context.Context) error { return a.draw(ctx, 0) })
}

// sweep is called from time to time.
func (a *Account) sweep() {
	left, err := a.left()
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle++; a.used.Swap(false) {
		a.idle = 0
	}
	idle := a.idle >= int(idleAfter/sweepEvery) && left > 0
	if a.flight != nil || a.closed || time.Now().Before(a.again) {
		return
	}
	switch {
	case idle:
		a.launch(a.of.of.ctx, a.giveBack)
	case a.state.Open != nil || a.unsaved != nil:
		a.launch(a.of.of.ctx, a.goOn)
	case left <= 0 && a.idle > 1:
		a.failure = nil // nobody is waiting for it any more
	}
}

// settleIn finds out at once what became of what an earlier process has sent.
func (a *Account) settleIn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.Open != nil || a.unsaved != nil {
		a.launch(a.of.of.ctx, a.goOn)
	}
}

// shut has nothing more drawn.
func (a *Account) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
}

// clear returns what is left, after shut.
func (a *Account) clear(ctx context.Context) {
	for {
		a.mu.Lock()
		f, last := a.flight, false
		if f == nil && ctx.Err() == nil {
			f, last = a.launch(ctx, a.giveBack), true
		}
		a.mu.Unlock()
		if f == nil {
			return
		}
		select {
		case <-f.done:
			if last {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
