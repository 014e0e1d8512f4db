package prepaid

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrUnknown: there are no such units in doubt.
var ErrUnknown = errors.New("no such prepaid units in doubt")

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
	next := a.now()
	i := slices.IndexFunc(next.Aside, func(d doubt) bool { return d.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrUnknown, id)
	}
	d := next.Aside[i]
	next.Aside = slices.Delete(next.Aside, i, i+1)
	if held {
		next.Limit += d.Units
	}
	// The decision first: one that is there without its effect can be made again.
	err := a.of.of.file.write(line{Decision: &decision{d, a.of.name, a.subject, held, note, time.Now().Unix()}})
	if err == nil {
		err = a.save(&next)
	}
	if err != nil {
		return err
	}
	a.raise()
	return nil
}

// Health says what is wrong now.
func (p *Prepaid) Health() error {
	p.mu.Lock()
	var errs []error
	if p.failing != nil {
		errs = append(errs, fmt.Errorf("meter: the file of prepaid units can't be written, so none are drawn or returned: %w", p.failing))
	}
	if p.damaged > 0 {
		errs = append(errs, fmt.Errorf("meter: the file of prepaid units has %d damaged lines: what some subjects have left may be wrong", p.damaged))
	}
	undeclared := map[string]int{}
	for k, s := range p.found {
		if !s.idle() {
			undeclared[k.feature]++
		}
	}
	p.mu.Unlock()
	for name, n := range undeclared {
		errs = append(errs, fmt.Errorf("meter: feature %q holds prepaid units of %d subjects, and is not declared as prepaid: declare it, and they are used or returned", name, n))
	}
	return errors.Join(append(errs, p.troubles()...)...)
}

// troubles are those of accounts: of many alike, one.
func (p *Prepaid) troubles() (errs []error) {
	var failing, aside int
	var failed, first error
	var units int64
	for _, a := range p.accounts() {
		a.mu.Lock()
		if a.failure != nil {
			if failing++; failed == nil {
				failed = fmt.Errorf("feature %q, subject %q: %w", a.of.name, a.subject, a.failure)
			}
		}
		for _, d := range a.state.Aside {
			units += d.Units
			if aside++; first == nil {
				first = fmt.Errorf("%s (%d units, feature %q, subject %q, %v; %s)", d.ID, d.Units, a.of.name, a.subject, time.Unix(d.At, 0).UTC().Format(time.RFC3339), d.Why)
			}
		}
		a.mu.Unlock()
	}
	if failed != nil {
		errs = append(errs, fmt.Errorf("meter: prepaid units of %d subjects can't be drawn or returned now; one of them: %w", failing, failed))
	}
	if first != nil {
		errs = append(errs, fmt.Errorf("meter: %d prepaid units are in doubt, in %d parts: compare the balance with what was used, and decide by Meter.SettlePrepaid; one of them: %w", units, aside, first))
	}
	return errs
}
