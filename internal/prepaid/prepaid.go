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
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/license"
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

// Standing is how far a subject's count is, with what running calls have reserved
// (taken) and without (counted), after its limit was set to one; below 0: none.
type Standing func(subject string, limit int64) (taken, counted int64, err error)

// Feature is what is prepaid of one feature.
type Feature struct {
	of       *Prepaid
	name     string
	balance  license.Balance
	address  string
	block    int64
	standing Standing

	mu       sync.RWMutex
	accounts map[string]*Account
}

// Declare has a feature's units drawn from balance, in blocks. It is not called twice at
// a time. The same again gives the same.
func (p *Prepaid) Declare(name string, balance license.Balance, block int64, standing Standing) (*Feature, error) {
	p.mu.Lock()
	known := p.features[name]
	p.mu.Unlock()
	switch {
	case known == nil:
	case known.block != block || !same(known.balance, balance):
		return nil, errors.New("it was declared with another balance or block; use one")
	default:
		return known, nil
	}
	f := &Feature{of: p, name: name, balance: balance, block: block, standing: standing, accounts: map[string]*Account{}}
	err := guarded("Address", func() error {
		if a, ok := balance.(interface{ Address() string }); ok {
			f.address = a.Address()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return nil, ErrClosed
	}
	if len(p.features) == 0 {
		p.work.Go(p.sweep)
	}
	p.features[name] = f
	for k, s := range p.found {
		if k.feature == name {
			if err := f.claim(s); err != nil {
				return nil, err
			}
			delete(p.found, k)
		}
	}
	return f, nil
}

func same(a, b license.Balance) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// Balances are those of all features, each once.
func (p *Prepaid) Balances() (all []license.Balance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.features {
		if !slices.ContainsFunc(all, func(b license.Balance) bool { return same(b, f.balance) }) {
			all = append(all, f.balance)
		}
	}
	return all
}

// claim takes over what an earlier process has left.
func (f *Feature) claim(found *state) error {
	_, counted, err := f.standing(found.Subject, -1)
	if err != nil {
		return err
	}
	s := found.clone()
	if counted < s.Mark {
		// A power cut took counts that had been let through: they were used.
		s.Limit -= s.Mark - counted
	}
	s.Mark = counted
	changed := true
	switch {
	case s.Copy:
		s.setAside(copied)
	case s.From != f.address:
		s.setAside(elsewhere)
	default:
		changed = false
	}
	s.Copy, s.From = false, f.address
	a := f.account(s)
	if changed {
		a.unsaved = &s
	}
	f.mu.Lock()
	f.accounts[s.Subject] = a
	f.mu.Unlock()
	a.settleIn()
	return nil
}

// Account is the subject's, made if there is none.
func (f *Feature) Account(subject string) (*Account, error) {
	if a := f.Known(subject); a != nil {
		return a, nil
	}
	_, counted, err := f.standing(subject, -1)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	a := f.accounts[subject]
	if a == nil {
		subject = strings.Clone(subject) // it may be a part of a request
		a = f.account(state{Feature: f.name, Subject: subject, From: f.address, Limit: counted, Mark: counted})
		a.closed = f.of.closed.Load() // or Close finds it here
		f.accounts[subject] = a
	}
	f.mu.Unlock()
	return a, nil
}

// Known is the subject's account, nil if it has none.
func (f *Feature) Known(subject string) *Account {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.accounts[subject]
}

func (f *Feature) all() []*Account {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.Collect(maps.Values(f.accounts))
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
