package prepaid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// world is what outlives a process: the bank, and what was counted.
type world struct {
	t    testing.TB
	dir  string
	bank *bank
	used *usage
	step func(string) error
	p    *Prepaid
	f    *Feature
}

const name = "api"

func newWorld(t testing.TB, block int64) *world {
	w := &world{t: t, dir: t.TempDir(), bank: newBank(), used: &usage{by: map[string]*use{}}}
	w.open(block)
	return w
}

// open is a new process. What the old one has not ended goes on without effect on the
// file, as after its death.
func (w *world) open(block int64) {
	var err error
	w.p, err = Open(Config{Dir: w.dir, Logger: slog.New(slog.DiscardHandler), step: w.step})
	require.NoError(w.t, err)
	w.f, err = w.p.Declare(name, w.bank, block, w.used)
	require.NoError(w.t, err)
}

// die ends the process without returning anything, or writing any more.
func (w *world) die() {
	w.p.file.io.Lock() // it dies between two writes, or in one that fails
	w.p.file.mu.Lock()
	w.p.file.closed = true
	w.p.file.mu.Unlock()
	w.p.file.io.Unlock()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.p.Close(ended)
	w.p.work.Wait()
	w.used.free()
}

func (w *world) close(ctx context.Context) error {
	w.used.free()
	return w.p.Close(ctx)
}

// call makes a call of n.
func (w *world) call(ctx context.Context, subject string, n int64) error {
	a := w.f.Account(subject)
	for {
		ok := w.used.reserve(subject, a.Enter(), n)
		a.Leave(n)
		if ok {
			w.used.commit(subject, n)
			return nil
		}
		if err := a.Await(ctx, n); err != nil {
			return err
		}
	}
}

// here is what the process, or a new one, holds for a subject that is not used, and what
// is in doubt or on its way.
func (w *world) here(subject string) (unused, doubtful int64) {
	if a := w.f.Known(subject); a != nil && a.begun.Load() {
		s := a.now()
		return stateHas(&s, w.used.of(subject).counted)
	}
	return 0, 0
}

func stateHas(s *state, counted int64) (unused, doubtful int64) {
	s.note(counted)
	for _, d := range s.Aside {
		doubtful += d.Units
	}
	if s.Open != nil {
		doubtful += s.Open.Units
	}
	return s.Drawn - s.Used, doubtful
}

// balanced requires that what was bought is somewhere, by what the process knows, and by
// what it would know that opens its file next. What is in doubt may be in the balance,
// too.
func (w *world) balanced(subject string) {
	w.t.Helper()
	unused, doubtful := w.here(subject)
	w.conserved(subject, unused, doubtful)
	onDisk := file{dir: w.dir}
	_, _, err := onDisk.open()
	require.NoError(w.t, err)
	unused, doubtful = 0, 0
	if s := onDisk.states[owner{name, subject}]; s != nil {
		unused, doubtful = stateHas(s, w.used.of(subject).counted)
	}
	w.conserved(subject, unused, doubtful)
}

func (w *world) conserved(subject string, unused, doubtful int64) {
	w.t.Helper()
	bought, left := w.bank.state(subject)
	used := w.used.since(subject)
	lowest := left + used + unused
	require.LessOrEqual(w.t, lowest, bought, "more than was bought: %d left, %d used, %d unused, %d in doubt", left, used, unused, doubtful)
	require.GreaterOrEqual(w.t, lowest+doubtful, bought, "units are lost: %d left, %d used, %d unused, %d in doubt", left, used, unused, doubtful)
}

// byHand counts n that nobody has admitted, unless the account has begun to begin.
func (w *world) byHand(subject string, n int64) {
	if a := w.f.Known(subject); a != nil && a.begun.Load() || !w.used.of(subject).begun {
		w.used.byHand(subject, n)
	}
}

// usage counts, as the ledger does.
type usage struct {
	mu sync.Mutex
	by map[string]*use
}

type use struct {
	counted, held int64
	before        int64 // counted when the account began
	begun         bool
}

// since is what was used since the account began.
func (u *usage) since(subject string) int64 {
	if one := u.of(subject); one.begun {
		return one.counted - one.before
	}
	return 0
}

// byHand counts n that nobody has admitted.
func (u *usage) byHand(subject string, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.get(subject).counted += n
}

// cut takes n of what was counted, as a power cut does.
func (u *usage) cut(subject string, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.get(subject)
	one.counted -= n
	one.before -= n // they were used
}

func (u *usage) of(subject string) use {
	u.mu.Lock()
	defer u.mu.Unlock()
	return *u.get(subject)
}

func (u *usage) get(subject string) *use {
	if u.by[subject] == nil {
		u.by[subject] = &use{}
	}
	return u.by[subject]
}

func (u *usage) Begin(subject string) (counted int64, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.get(subject)
	if !one.begun {
		one.begun, one.before = true, one.counted
	}
	return one.counted, nil
}

func (u *usage) Count(subject string) (counted, held int64) {
	one := u.of(subject)
	return one.counted, one.held
}

func (u *usage) reserve(subject string, limit, n int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.get(subject)
	if one.counted+one.held+n > limit {
		return false
	}
	one.held += n
	return true
}

func (u *usage) commit(subject string, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.get(subject)
	one.held -= n
	one.counted += n
}

func (u *usage) free() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range u.by {
		one.held = 0
	}
}

// bank is a Balance with a table of transfers.
type bank struct {
	mu           sync.Mutex
	bought, has  map[string]int64
	done         map[string]bool // transfers by ID
	forgets      bool            // and says that doubt is undecidable
	reads, moves int
	fault        func(ctx context.Context, read bool, t license.Transfer) fault
	address      string
}

// fault is what becomes of a call of the bank.
type fault struct {
	before, after error // returned instead of, or after, doing it
	panics        bool
}

func newBank() *bank {
	return &bank{bought: map[string]int64{}, has: map[string]int64{}, done: map[string]bool{}}
}

var errNet = errors.New("connection reset")

func (b *bank) buy(subject string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bought[subject] += n
	b.has[subject] += n
}

// fails has calls fail.
func (b *bank) fails(how func(ctx context.Context, read bool, t license.Transfer) fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = how
}

// knows says whether a transfer was done.
func (b *bank) knows(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done[id]
}

func (b *bank) state(subject string) (bought, left int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bought[subject], b.has[subject]
}

func (b *bank) Address() string { return b.address }

func (b *bank) next(ctx context.Context, read bool, t license.Transfer) (f fault) {
	b.mu.Lock()
	how := b.fault
	b.mu.Unlock()
	if how != nil {
		f = how(ctx, read, t)
	}
	if f.panics {
		panic("secret")
	}
	return f
}

func (b *bank) Read(ctx context.Context, subject string) (license.Funds, error) {
	if f := b.next(ctx, true, license.Transfer{}); f.before != nil {
		return license.Funds{}, f.before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	return license.Funds{Units: b.has[subject], Mark: "m-" + subject}, nil
}

func (b *bank) Move(ctx context.Context, t license.Transfer) error {
	f := b.next(ctx, false, t)
	if f.before != nil {
		return f.before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moves++
	if t.Before.Mark != "m-"+t.Subject || len(t.ID) > 26 || t.Feature != name || t.Units < 1 {
		return fmt.Errorf("a bad transfer: %+v", t)
	}
	if t.Doubt && b.forgets {
		return license.ErrUndecidable
	}
	if !b.done[t.ID] {
		switch {
		case t.Back:
			b.has[t.Subject] += t.Units
		case b.has[t.Subject] < t.Units:
			return license.ErrNotApplied
		default:
			b.has[t.Subject] -= t.Units
		}
		b.done[t.ID] = true
	}
	return f.after
}
