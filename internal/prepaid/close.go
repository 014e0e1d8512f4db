package prepaid

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Close returns what is not used, again and again as far as ctx lasts, or closeTime if
// that has no end. What is left stays in the file, and so does what is on its way by
// then, as the error says.
func (p *Prepaid) Close(ctx context.Context) error {
	if _, ends := ctx.Deadline(); !ends {
		bounded, cancel := context.WithTimeout(ctx, closeTime)
		defer cancel()
		ctx = bounded
	}
	p.mu.Lock()
	p.closed.Store(true)
	p.mu.Unlock()
	all := p.accounts()
	for _, a := range all {
		a.shut()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var returning sync.WaitGroup
		for _, a := range all {
			if !a.clean() {
				returning.Go(func() { a.clear(ctx) })
			}
		}
		returning.Wait()
		p.cancel()
		p.work.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		p.cancel()
	}
	p.file.close(last(all))
	return unreturned(all, ctx.Err())
}

// Abandon ends everything as the death of the process would: nothing more is returned or
// written.
func (p *Prepaid) Abandon() {
	p.mu.Lock()
	p.closed.Store(true)
	p.mu.Unlock()
	for _, a := range p.accounts() {
		a.shut()
	}
	p.cancel()
	p.work.Wait()
}

// last are the lines that say how much was used in the end.
func last(all []*Account) (lines []line) {
	for _, a := range all {
		counted, _ := a.of.counts.Count(a.subject)
		a.mu.Lock()
		if s := a.state.clone(); a.begun.Load() && a.flight == nil { // none will be launched any more
			if s.note(counted); a.stale || s.Used != a.state.Used {
				lines = append(lines, line{State: &s})
			}
		}
		a.mu.Unlock()
	}
	return lines
}

// unreturned is what could not be returned, because of ended or what an account says.
func unreturned(all []*Account, ended error) error {
	units, subjects := int64(0), 0
	for _, a := range all {
		counted, held := a.of.counts.Count(a.subject)
		a.mu.Lock()
		s := a.state.clone()
		s.note(counted)
		left := max(s.Drawn-s.Used-min(held, 1<<61), 0)
		if s.Open != nil {
			left += s.Open.Units
		}
		if left > 0 && a.failure != nil && !errors.Is(a.failure, ErrClosed) {
			ended = a.failure
		}
		a.mu.Unlock()
		if left > 0 {
			units += left
			subjects++
		}
	}
	if units == 0 {
		return nil
	}
	err := fmt.Errorf("meter: %d unused prepaid units, of %s, were not returned, and are kept for the next start", units, count(subjects, "subject"))
	if ended != nil {
		err = fmt.Errorf("%w: %w", err, ended)
	}
	return err
}

func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// shut has nothing more drawn.
func (a *Account) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
}

// clean says that there is nothing to be done.
func (a *Account) clean() bool {
	left := a.left()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.flight == nil && !a.stale && a.state.Open == nil && left <= 0
}

// clear returns what is left, after shut.
func (a *Account) clear(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		f, mine := a.flight, false
		if f == nil {
			f, mine = a.launch(ctx, a.giveBack), true
		}
		a.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
		if !mine {
			continue
		}
		a.mu.Lock()
		failed, again := a.failure != nil, a.again
		a.mu.Unlock()
		if end, ok := ctx.Deadline(); !failed || ok && again.After(end) {
			return
		}
		select {
		case <-time.After(time.Until(again)):
		case <-ctx.Done():
		}
	}
}
