package prepaid

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inprocess/meter/license"
)

// flight is work on an account that uses the network. There is one at a time.
type flight struct {
	done chan struct{}
	err  error // written before done is closed
}

var errEnded = errors.New("the Balance ended its goroutine")

// launch begins a flight. The caller holds mu, and there is none.
func (a *Account) launch(ctx context.Context, work func(context.Context) error) *flight {
	f := &flight{done: make(chan struct{}), err: errEnded}
	a.flight = f
	a.of.of.work.Go(func() {
		defer a.landed(f)
		slots := a.of.of.slots
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			f.err = ctx.Err()
			return
		}
		defer func() { <-slots }()
		f.err = work(ctx)
	})
	return f
}

func (a *Account) landed(f *flight) {
	a.mu.Lock()
	a.flight = nil
	_, empty := errors.AsType[*EmptyError](f.err)
	switch {
	case f.err == nil || empty:
		a.pause, a.again, a.failure = 0, time.Time{}, nil
	default:
		a.pause = min(max(2*a.pause, firstPause), maxPause)
		wait := a.pause
		if r := retrier(nil); errors.As(f.err, &r) {
			wait = max(r.RetryAfter(), firstPause)
		}
		a.again, a.failure = time.Now().Add(wait), f.err
	}
	a.mu.Unlock()
	close(f.done)
}

// retrier is an error that knows when asking again may help.
type retrier interface{ RetryAfter() time.Duration }

// draw draws a block, if little is left, or as much as there must be for a call that
// needs a number, if that is more.
func (a *Account) draw(ctx context.Context, need int64) (err error) {
	for range maxTries {
		if err = a.drawOnce(ctx, need); !errors.Is(err, license.ErrNotApplied) {
			break // else somebody else was quicker
		}
	}
	return err
}

func (a *Account) drawOnce(ctx context.Context, need int64) error {
	if err := a.goOn(ctx); err != nil {
		return err
	}
	left, err := a.left()
	if err != nil {
		return err
	}
	missing := need - left
	if missing <= 0 && left > a.low() {
		return nil // what was settled has helped
	}
	funds, err := a.read(ctx)
	if err != nil {
		return err
	}
	n := a.of.block
	if missing <= funds.Units {
		n = max(n, missing)
	} else if left > a.low() {
		return &EmptyError{a.subject} // all that there is would not do
	}
	if n = min(n, funds.Units); n <= 0 {
		return &EmptyError{a.subject}
	}
	return a.begin(ctx, &transfer{Units: n}, funds, func() {})
}

// giveBack returns what nobody uses or has reserved.
func (a *Account) giveBack(ctx context.Context) error {
	if err := a.goOn(ctx); err != nil {
		return err
	}
	if left, err := a.left(); err != nil || left <= 0 {
		return err
	}
	funds, err := a.read(ctx)
	if err != nil {
		return err
	}
	free, err := a.lower()
	if err != nil || free <= 0 {
		return err
	}
	return a.begin(ctx, &transfer{Units: free, Back: true}, funds, a.raise)
}

// lower takes what is free off the limit, so that no call can have it any more.
func (a *Account) lower() (free int64, err error) {
	a.gate.Lock()
	defer a.gate.Unlock()
	taken, _, err := a.of.standing(a.subject, max(a.limit, 0))
	if err != nil {
		return 0, err
	}
	free = max(0, a.limit-taken)
	a.limit -= free
	return free, nil
}

// raise sets the limit to that of the state. It never lets it down.
func (a *Account) raise() {
	a.mu.Lock()
	limit := a.state.Limit
	a.mu.Unlock()
	a.gate.Lock()
	a.limit = max(a.limit, limit)
	a.gate.Unlock()
	if left, err := a.left(); err == nil {
		a.due.Store(left - a.low() - 1)
	}
}

func (a *Account) read(ctx context.Context) (funds license.Funds, err error) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	err = guarded("Read", func() error { funds, err = a.of.balance.Read(ctx, a.subject); return err })
	if err != nil {
		return license.Funds{}, err
	}
	a.knows(funds.Units)
	return funds, nil
}

// knows notes what the balance has.
func (a *Account) knows(units int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known, a.until = max(units, 0), time.Now().Add(readAgain)
}

// begin notes a transfer, and sends it. undo takes back what was done for it, if it
// can't be noted.
func (a *Account) begin(ctx context.Context, t *transfer, before license.Funds, undo func()) error {
	if err := ctx.Err(); err != nil {
		undo()
		return err
	}
	t.ID, t.Before, t.Mark, t.At = newID(), before.Units, before.Mark, time.Now().Unix()
	next := a.now()
	next.Open = t
	if t.Back {
		next.Limit -= t.Units
	}
	if err := a.save(&next); err != nil {
		undo()
		return err
	}
	outcome, err := a.send(ctx, false)
	if outcome == nil && !t.Back {
		a.knows(before.Units - t.Units)
	}
	return errors.Join(err, outcome)
}

// goOn ends what was begun: it notes what is not noted yet, and asks what became of a
// transfer.
func (a *Account) goOn(ctx context.Context) error {
	a.mu.Lock()
	unsaved := a.unsaved
	a.mu.Unlock()
	if unsaved != nil {
		if err := a.keep(unsaved); err != nil {
			return err
		}
	}
	if a.now().Open == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	outcome, err := a.send(ctx, true)
	if errors.Is(outcome, license.ErrNotApplied) || errors.Is(outcome, license.ErrUndecidable) {
		return err // it is settled
	}
	return errors.Join(err, outcome)
}

// send makes an attempt of the open transfer, and notes the outcome, unless that is
// still open. err says why it could not be noted.
func (a *Account) send(ctx context.Context, doubtful bool) (outcome, err error) {
	next := a.now()
	t := next.Open
	sent := t.of(&next, doubtful)
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	outcome = guarded("Move", func() error { return a.of.balance.Move(ctx, sent) })
	switch {
	case outcome == nil:
		if next.Open = nil; !t.Back {
			next.Limit += t.Units
		}
	case errors.Is(outcome, license.ErrNotApplied):
		if next.Open = nil; t.Back {
			next.Limit += t.Units
		}
	case errors.Is(outcome, license.ErrUndecidable):
		next.putAside(*t)
		a.of.of.log.Warn("meter: prepaid units are in doubt", "feature", a.of.name, "subject", a.subject, "units", t.Units, "id", t.ID, "error", outcome)
	default:
		return outcome, nil
	}
	return outcome, a.keep(&next)
}

// keep is save for an outcome, which must not be lost: if it can't be noted, the next
// flight tries again, and until then it has no effect.
func (a *Account) keep(next *state) error {
	err := a.save(next)
	a.mu.Lock()
	if a.unsaved = next; err == nil {
		a.unsaved = nil
	}
	a.mu.Unlock()
	if err == nil {
		a.raise()
	}
	return err
}

func (a *Account) now() state {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.clone()
}

// save makes next the state, once the file has it.
func (a *Account) save(next *state) error {
	if _, counted, err := a.of.standing(a.subject, a.Limit()); err == nil {
		next.Mark = max(next.Mark, counted)
	}
	saved := next.clone()
	err := a.of.of.file.write(line{State: &saved})
	a.of.of.noteFile(err)
	if err != nil {
		return fmt.Errorf("the file of prepaid units: %w", err)
	}
	a.mu.Lock()
	a.state = next.clone()
	a.mu.Unlock()
	return nil
}

func (p *Prepaid) noteFile(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, ErrClosed) {
		p.failing = err
	}
}
