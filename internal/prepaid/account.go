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

	beginning sync.Mutex  // held by Begin
	begun     atomic.Bool // the file knows it
	gone      bool        // under beginning: forgotten, another one may be in its place

	// gate is held for reading while a call is admitted under the limit, and for writing
	// while that comes down.
	gate  sync.RWMutex
	limit int64        // how far the count may go
	due   atomic.Int64 // what may be admitted before somebody looks at what is left
	used  atomic.Bool  // since the sweeper came by

	mu      sync.Mutex
	state   state   // what is true; changed by Begin, and then by the flight alone
	stale   bool    // the file may say something else; it is written before anything else is done
	flight  *flight // the one that runs; nil: none
	known   int64   // what the balance had, until then
	until   time.Time
	pause   time.Duration // after the last failure
	again   time.Time     // when to try again
	failure error
	idle    int // sweeps without a call
	closed  bool
}

// Enter begins the admission of a call under the limit that it returns. Leave ends it.
func (a *Account) Enter() (limit int64) {
	a.gate.RLock()
	return a.limit
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

func (a *Account) limited() int64 {
	a.gate.RLock()
	defer a.gate.RUnlock()
	return a.limit
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

var errForgotten = errors.New("the subject was forgotten meanwhile: try again")

// Begin has all that the subject uses from now on be taken of what it buys. It is called
// before the subject is given anything, and is kept in the file once it returns nil.
func (a *Account) Begin() error {
	if a.begun.Load() {
		return nil
	}
	a.beginning.Lock()
	defer a.beginning.Unlock()
	if a.gone {
		return errForgotten
	}
	if a.begun.Load() {
		return nil
	}
	counted, err := a.of.counts.Begin(a.subject)
	if err != nil {
		return err
	}
	first := a.now()
	first.Begun = counted
	if err := a.write(first); err != nil {
		return err
	}
	a.mu.Lock()
	a.state = first
	a.mu.Unlock()
	a.raise()
	a.begun.Store(true)
	return nil
}

// Await has units drawn for a call that needs at least n, and waits for that. After nil
// the call should try again.
func (a *Account) Await(ctx context.Context, n int64) error {
	left := a.left()
	if n <= left {
		return nil
	}
	var err error
	a.mu.Lock()
	f, mine, now := a.flight, false, time.Now()
	if f == nil {
		switch {
		case a.closed:
			err = ErrClosed
		case now.Before(a.again):
			err = &WaitError{a.again.Sub(now), a.failure}
		case now.Before(a.until) && n-left > a.known:
			err = &EmptyError{a.subject}
		default:
			f, mine = a.launch(a.of.of.ctx, func(ctx context.Context) error { return a.draw(ctx, n) }), true
		}
	}
	a.mu.Unlock()
	if f == nil {
		return err
	}
	select {
	case <-f.done:
		if !mine && isEmpty(f.err) {
			return nil // for somebody who needs another number
		}
		return a.told(f.err)
	case <-ctx.Done():
		return &WaitError{0, ctx.Err()}
	}
}

func isEmpty(err error) bool {
	_, empty := errors.AsType[*EmptyError](err)
	return empty
}

// told is the error of a flight, for a call.
func (a *Account) told(err error) error {
	if err == nil || isEmpty(err) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return &WaitError{max(0, time.Until(a.again)), err}
}

// left is what may still be admitted; below 0: more was used than drawn.
func (a *Account) left() int64 { return a.under(a.limited()) }

// under is what is neither used nor reserved under a limit.
func (a *Account) under(limit int64) int64 {
	const most = 1 << 61 // holds may come to any number, where a quota has no limit
	counted, held := a.of.counts.Count(a.subject)
	return limit - min(counted, most) - min(held, most)
}

// low is what is left when the next block is drawn.
func (a *Account) low() int64 { return a.of.block / 2 }

// look draws if little is left.
func (a *Account) look() {
	left := a.left()
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
	left := a.left()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle++; a.used.Swap(false) {
		a.idle = 0
	}
	idle := a.idle >= int(idleAfter/sweepEvery)
	if a.flight != nil || a.closed || time.Now().Before(a.again) {
		return
	}
	switch {
	case idle && !a.begun.Load():
		go a.of.forget(a) // which takes other locks first
	case idle && left > 0:
		a.launch(a.of.of.ctx, a.giveBack)
	case a.state.Open != nil || a.stale:
		a.launch(a.of.of.ctx, a.goOn)
	case left <= 0 && a.idle > 1:
		a.failure = nil // nobody is waiting for it any more
	}
}

// settleIn finds out at once what became of what an earlier process has sent.
func (a *Account) settleIn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.Open != nil || a.stale {
		a.launch(a.of.of.ctx, a.goOn)
	}
}
