// Package prepaid keeps the units that subjects have bought: it draws them from a
// [license.Balance] in blocks, ahead of what is used, and returns those that are not.
//
// # What is known when
//
// How far a subject's count may go, its limit, is a number in the counting of whoever
// counts, who never lets a call through that would pass it. A file holds it. A draw is
// noted there before it is sent, and raises the limit once it is surely done; a return
// lowers the limit first, together with the note, and raises it again only if it surely
// was not done. Where nobody can tell, the units are set aside until a person decides.
// So wherever the process dies, and whatever answer is lost, the limit is at most what
// was drawn:
//
//	bought = left in the balance + used + unused up to the limit + aside + on their way
//
// It knows neither the ledger nor Cryptolens.
package prepaid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	moveTimeout = 30 * time.Second // for each call of a Balance
	readAgain   = 5 * time.Second  // after which an empty balance is looked at again
	firstPause  = time.Second      // after a failure, doubled up to maxPause
	maxPause    = time.Minute
	sweepEvery  = 30 * time.Second
	idleAfter   = 15 * time.Minute // after which what a subject has is returned
	maxTries    = 3                // of a draw that was not applied
	maxFlights  = 16               // at a time, so that an outage costs no more
)

// ErrClosed: there is nothing to be had after Close.
var ErrClosed = errors.New("meter: closed")

// Config of [Open].
type Config struct {
	Dir    string // "": in memory
	Logger *slog.Logger

	step func(what string) error // in tests
}

// Prepaid is all prepaid units of a meter.
type Prepaid struct {
	log    *slog.Logger
	file   file
	slots  chan struct{} // of capacity maxFlights
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // flights, and the sweeper

	closed atomic.Bool

	mu       sync.Mutex
	features map[string]*Feature
	found    map[owner]*state // by an earlier process, and not yet claimed by a feature
	damaged  int
	failing  error // of the file
}

// Open reads what an earlier process has left. Nothing is drawn or returned before its
// feature is declared.
func Open(cfg Config) (*Prepaid, error) {
	p := &Prepaid{log: cfg.Logger, slots: make(chan struct{}, maxFlights), features: map[string]*Feature{}}
	p.file.dir, p.file.step = cfg.Dir, cfg.step
	damaged, isCopy, err := p.file.open()
	if err != nil {
		return nil, fmt.Errorf("meter: prepaid units: %w", err)
	}
	p.damaged = damaged
	p.found = map[owner]*state{}
	for k, s := range p.file.states {
		s.Copy = s.Copy || isCopy
		p.found[k] = s
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

func (p *Prepaid) accounts() (all []*Account) {
	p.mu.Lock()
	features := slices.Collect(maps.Values(p.features))
	p.mu.Unlock()
	for _, f := range features {
		all = append(all, f.all()...)
	}
	return all
}

// sweep returns what is idle, and goes on with what had failed.
func (p *Prepaid) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-t.C:
		}
		for _, a := range p.accounts() {
			a.sweep()
		}
	}
}

// Close returns what is not used, as far as ctx lasts. What is left stays in the file,
// and so does what is on its way by then, as the error says.
func (p *Prepaid) Close(ctx context.Context) error {
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
			returning.Go(func() { a.clear(ctx) })
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
	p.file.close()
	return unreturned(all, ctx.Err())
}

// unreturned is what could not be returned, because of ended or what an account says.
func unreturned(all []*Account, ended error) error {
	units, subjects := int64(0), 0
	for _, a := range all {
		left, err := a.left()
		if left = max(left, 0); err != nil {
			continue
		}
		a.mu.Lock()
		if a.state.Open != nil {
			left += a.state.Open.Units
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
	err := fmt.Errorf("meter: %d unused prepaid units of %d subjects were not returned, and are kept for the next start", units, subjects)
	if ended != nil {
		err = fmt.Errorf("%w: %w", err, ended)
	}
	return err
}

// guarded calls a Balance, and makes an error of its panic, without what it says: that
// may hold a key.
func guarded(method string, call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the Balance panicked in %s with a %T", method, v)
		}
	}()
	return call()
}
