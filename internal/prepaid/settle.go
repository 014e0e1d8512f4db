package prepaid

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrUnknown: there are no such units in doubt.
var ErrUnknown = errors.New("meter: no such prepaid units in doubt")

// Settle is a person's decision about units in doubt: held says that they are not in
// the balance, so that they are here to be used. It is kept for ever.
func (p *Prepaid) Settle(ctx context.Context, id string, held bool, note string) error {
	for _, a := range p.accounts() {
		if slices.ContainsFunc(a.now().Aside, func(d doubt) bool { return d.ID == id }) {
			return a.settle(ctx, id, held, note)
		}
	}
	return fmt.Errorf("%w: %q", ErrUnknown, id)
}

func (a *Account) settle(ctx context.Context, id string, held bool, note string) error {
	for {
		a.mu.Lock()
		f, mine := a.flight, false
		switch {
		case a.closed:
			a.mu.Unlock()
			return ErrClosed
		case f == nil:
			f, mine = a.launch(a.of.of.ctx, func(context.Context) error { return a.decide(id, held, note) }), true
		}
		a.mu.Unlock()
		select {
		case <-f.done:
			if mine {
				return f.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Account) decide(id string, held bool, note string) error {
	next := a.now() // which may not be noted yet: it is now
	i := slices.IndexFunc(next.Aside, func(d doubt) bool { return d.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrUnknown, id)
	}
	d := next.Aside[i]
	next.Aside = slices.Delete(next.Aside, i, i+1)
	if held {
		next.Drawn += d.Units
	}
	// The decision first: one that is there without its effect can be made again.
	err := a.change(next, line{Decision: &decision{d, a.of.name, a.subject, held, note, time.Now().Unix()}})
	if err == nil {
		a.raise()
	}
	return err
}
