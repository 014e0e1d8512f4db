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
	if f.err == nil || isEmpty(f.err) {
		a.pause, a.again, a.failure = 0, time.Time{}, nil
	} else {
		a.pause = min(max(2*a.pause, firstPause), maxPause)
		wait := a.pause
		if b, ok := errors.AsType[*balanceError](f.err); ok && b.after > 0 {
			wait = min(max(b.after, firstPause), maxRetryAfter)
		}
		a.again, a.failure = time.Now().Add(wait), f.err
	}
	a.mu.Unlock()
	close(f.done)
}

// draw draws a block, if little is left, or as much as there must be for a call that
// needs a number, if that is more.
func (a *Account) draw(ctx context.Context, need int64) (err error) {
	for try := range maxTries {
		err = a.drawOnce(ctx, need, max(a.of.block>>try, 1))
		if !errors.Is(err, license.ErrNotApplied) {
			break // else somebody else was quicker, and may leave less
		}
	}
	return err
}

func (a *Account) drawOnce(ctx context.Context, need, block int64) error {
	if err := a.goOn(ctx); err != nil {
		return err
	}
	left := a.left()
	missing := need - left
	if missing <= 0 && left > a.low() {
		return nil // what was settled has helped
	}
	funds, err := a.read(ctx)
	if err != nil {
		return err
	}
	n := block
	if missing <= funds.Units {
		n = max(n, missing)
	} else if left > a.low() {
		return &EmptyError{a.subject} // all that there is would not do
	}
	if n = min(n, funds.Units); n <= 0 {
		return &EmptyError{a.subject}
	}
	if err := a.Begin(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	outcome, err := a.begin(ctx, &transfer{Units: n}, funds)
	if outcome == nil {
		a.knows(funds.Units - n)
	}
	return errors.Join(err, outcome)
}

// giveBack returns what nobody uses or has reserved.
func (a *Account) giveBack(ctx context.Context) error {
	if err := a.goOn(ctx); err != nil {
		return err
	}
	if a.left() <= 0 {
		return nil
	}
	funds, err := a.read(ctx)
	if err != nil {
		return err
	}
	free := a.lower()
	switch {
	case free <= 0:
		return nil
	case ctx.Err() != nil:
		a.raise() // nothing is noted
		return ctx.Err()
	}
	return errors.Join(a.begin(ctx, &transfer{Units: free, Back: true}, funds))
}

// lower takes what is free off the limit, so that no call can have it any more.
func (a *Account) lower() (free int64) {
	a.mu.Lock()
	a.until = time.Time{} // the balance will have more
	a.mu.Unlock()
	a.gate.Lock()
	defer a.gate.Unlock()
	free = max(0, a.under(a.limit))
	a.limit -= free
	return free
}

// raise sets the limit to that of the state, which the file has. It never lets it down.
func (a *Account) raise() {
	s := a.now()
	a.gate.Lock()
	a.limit = max(a.limit, s.limit())
	a.gate.Unlock()
	a.due.Store(a.left() - a.low() - 1)
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

// begin notes a transfer, and sends it.
func (a *Account) begin(ctx context.Context, t *transfer, before license.Funds) (outcome, err error) {
	t.ID, t.Before, t.Mark, t.At = newID(), before.Units, before.Mark, time.Now().Unix()
	next := a.now()
	if next.Open = t; t.Back {
		next.Drawn -= t.Units
	}
	if err := a.change(next); err != nil {
		return nil, err
	}
	return a.send(ctx, false)
}

// goOn ends what was begun: it has the file say what is true, and asks what became of a
// transfer.
func (a *Account) goOn(ctx context.Context) error {
	if err := a.flush(); err != nil {
		return err
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
	if !doubtful {
		a.attempted() // the note may have taken long
	}
	next := a.now()
	t := next.Open
	sent := t.of(&next, doubtful)
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	outcome = guarded("Move", func() error { return a.of.balance.Move(ctx, sent) })
	switch {
	case outcome == nil:
		if next.Open = nil; !t.Back {
			next.Drawn += t.Units
		}
	case errors.Is(outcome, license.ErrNotApplied):
		if next.Open = nil; t.Back {
			next.Drawn += t.Units
		}
	case errors.Is(outcome, license.ErrUndecidable):
		next.putAside(*t)
		a.of.of.log.Warn("meter: prepaid units are in doubt", "feature", a.of.name, "subject", a.subject, "units", t.Units, "id", t.ID, "error", outcome)
	default:
		if !doubtful {
			a.attempted()
		}
		return outcome, nil
	}
	a.mu.Lock()
	a.state, a.stale = next, true // whether it can be noted or not
	a.mu.Unlock()
	return outcome, a.flush()
}

// attempted notes that the first attempt of the open transfer was not over before now.
func (a *Account) attempted() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = a.state.clone()
	a.state.Open.At = time.Now().Unix()
}

func (a *Account) now() state {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.clone()
}

// flush has the file say what is true, if it may not, and lets that have its effect.
func (a *Account) flush() error {
	a.mu.Lock()
	next, stale := a.state.clone(), a.stale
	a.mu.Unlock()
	if !stale {
		return nil
	}
	if err := a.change(next); err != nil {
		return err
	}
	a.raise()
	return nil
}

// change makes next the state, once the file has it. After an error that may have it or
// not, so what it says has no effect, and what was true is written again first.
func (a *Account) change(next state, more ...line) error {
	counted, _ := a.of.counts.Count(a.subject)
	next.note(counted)
	err := a.write(next, more...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stale = err != nil; err == nil {
		a.state = next
	}
	return err
}

// write has the file say s, after what more says.
func (a *Account) write(s state, more ...line) error {
	saved := s.clone()
	err := a.of.of.file.write(append(more, line{State: &saved})...)
	a.of.of.noteFile(err)
	if err != nil {
		return fmt.Errorf("the file of prepaid units: %w", err)
	}
	return nil
}
