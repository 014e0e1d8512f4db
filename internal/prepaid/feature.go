package prepaid

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/inprocess/meter/license"
)

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
