// Package prepaid keeps the units that subjects have bought: it draws them from a
// [license.Balance] in blocks, ahead of what is used, and returns those that are not.
//
// # What is known when
//
// For each subject, at every moment, in memory and in the file:
//
//	bought = left in the balance + used since its account began + drawn and not used + on its way or in doubt
//
// An account begins, in the file, before its subject is given anything. From then on all
// that is counted of it is used, whether or not anything is held: what was used beyond
// what was drawn is a debt, which outlives the process and is paid by the next draw. How
// far the count may go, the limit, is a number in the counting of whoever counts, who lets
// no call through that would pass it. A draw is noted before it is sent, and raises the
// limit once it is surely done; a return lowers the limit first, and raises it again only
// if it surely was not done. Where nobody can tell, the units are set aside until a person
// decides.
//
// Nothing has an effect that the file does not surely say. When it can't be written, or
// synced, nobody knows what it says: then an account does nothing, and its limit stays
// where it is, until what is true has been written anew.
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
	maxPause    = 5 * time.Second
	closeTime   = 30 * time.Second // for returns in a Close whose context has no end
	sweepEvery  = 30 * time.Second
	idleAfter   = 15 * time.Minute // after which what a subject has is returned
	maxTries    = 10               // of a draw that was not applied
	maxFlights  = 16               // at a time, so that an outage costs no more

	maxRetryAfter = 5 * time.Minute // that a Balance's error may ask for
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
