package prepaid

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inprocess/meter/license"
)

// Counts is what counts a feature's use. Its number of a subject falls only when a power
// cut takes counts.
type Counts interface {
	// Begin has all be counted that the subject uses from now on, for good, and says what
	// is by now. Again, it goes on.
	Begin(subject string) (counted int64, err error)
	// Count is what was counted since then, and what running calls have reserved.
	Count(subject string) (counted, held int64)
}

// Feature is what is prepaid of one feature.
type Feature struct {
	of      *Prepaid
	name    string
	balance license.Balance
	address string
	block   int64
	counts  Counts

	mu       sync.RWMutex
	accounts map[string]*Account
}

// Declare has a feature's units drawn from balance, in blocks. It is not called twice at
// a time. The same again gives the same.
func (p *Prepaid) Declare(name string, balance license.Balance, block int64, counts Counts) (*Feature, error) {
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
	f := &Feature{of: p, name: name, balance: balance, block: block, counts: counts, accounts: map[string]*Account{}}
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

// claim takes over what an earlier process has left. What the file does not say yet has
// no effect before it does: until then nothing is to be had.
func (f *Feature) claim(found *state) error {
	counted, err := f.counts.Begin(found.Subject)
	if err != nil {
		return err
	}
	s := found.clone()
	stale := true
	switch lost := s.Used - (counted - s.Begun); {
	case lost > 0:
		s.Begun -= lost // a power cut took counts that had been let through: they were used
	case !s.Copy && s.From == f.address:
		stale = false
	}
	s.note(counted)
	switch {
	case s.Copy:
		s.setAside(copied)
	case s.From != f.address:
		s.setAside(elsewhere)
	case s.Open != nil:
		s.Open.At = time.Now().Unix() // the last process may have sent it a moment ago
	}
	s.Copy, s.From = false, f.address
	a := &Account{of: f, subject: s.Subject, state: s, stale: stale}
	a.begun.Store(true)
	if !stale {
		a.limit = s.limit()
	}
	f.mu.Lock()
	f.accounts[s.Subject] = a
	f.mu.Unlock()
	a.settleIn()
	return nil
}

// Account is the subject's, made if there is none.
func (f *Feature) Account(subject string) *Account {
	if a := f.Known(subject); a != nil {
		return a
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.accounts[subject]
	if a == nil {
		subject = strings.Clone(subject) // it may be a part of a request
		a = &Account{of: f, subject: subject, state: state{Feature: f.name, Subject: subject, From: f.address}}
		a.closed = f.of.closed.Load() // or Close finds it here
		f.accounts[subject] = a
	}
	return a
}

// Known is the subject's account, nil if it has none.
func (f *Feature) Known(subject string) *Account {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.accounts[subject]
}

// Standing is what the subject has used since its account began, and what is drawn and
// not used yet; below 0: more was used than drawn.
func (f *Feature) Standing(subject string) (used, drawn int64) {
	a := f.Known(subject)
	if a == nil || !a.begun.Load() {
		return 0, 0
	}
	counted, _ := f.counts.Count(subject) // first: what is drawn meanwhile is used later
	s := a.now()
	used = counted - s.Begun
	return used, s.Drawn - used
}

// forget drops the account of a subject that has never been given anything.
func (f *Feature) forget(a *Account) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !a.beginning.TryLock() {
		return
	}
	defer a.beginning.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun.Load() && a.flight == nil {
		a.gone = true
		delete(f.accounts, a.subject)
	}
}

func (f *Feature) all() []*Account {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.Collect(maps.Values(f.accounts))
}
