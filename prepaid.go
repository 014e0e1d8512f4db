package meter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/internal/prepaid"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
)

// prepay is what Prepaid asks for.
type prepay struct {
	balance license.Balance
	block   int64
}

// Prepaid bounds what each subject may use of a feature, a Sum, by what it has bought:
// units that are drawn from balance in blocks, ahead of the calls that use them. A call
// waits only if its subject has too little left here, as at its first call, for at most
// 5 s or until its context ends. It is refused as license.OverQuota, status 402, if the
// balance has too little, which is looked at every 5 s; and as license.Unavailable,
// status 503, if it can't be known, unless [Config.AllowUnknown] lets it through. Holds,
// [Quantity], RefusedError.Total and RateLimit fields are those of a quota (see [Limit])
// whose limit is what was drawn in all, and that has no end; so [Total] and thresholds
// know nothing of what is still in the balance. Prepaid and Limit replace each other,
// and the quota of a verdict does not count.
//
// When half a block is left, the next is drawn in the background. What a subject has
// not used is returned after 15 min without a call, at [Meter.Shutdown] as far as its
// context lasts, and after a crash by the process that opens the directory next, or
// adopts it, where it is used as if nothing had happened. So a process keeps at most one
// and a half blocks of a subject, or as much as a call reserves that needs more; choose
// a block that lasts for some seconds, and a call can reserve.
//
// # Too much and too little
//
// However many calls begin at once, in however many processes, on one balance, all
// together are let through with no more than was bought. What is counted beyond it has
// other reasons: calls that use more than they had reserved, counts by hand, calls under
// AllowUnknown and Shadow. All these count in full, and are taken of what is drawn next.
// A power cut that loses counts (see [Config.Sync]) does not give their units back, but
// for those of the last draw's window in time: what was counted since the last draw or
// return, and lost, may be used again.
//
// A customer can use less than it bought by what processes hold, and by what is in
// doubt: units whose transfer got no answer, where the balance can't tell any more
// whether it was done. Those are used by nobody and returned by nobody, at most a block
// for each lost answer, or what was being returned; [Meter.Health] names them until
// [Meter.SettlePrepaid] decides. So are the units in a directory that was copied.
//
// # In memory
//
// With meter.InMemory, a process that dies takes with it what it holds.
//
// A nil balance, one whose Validate finds a fault, and a block below 1 or above 2^31-1,
// are a panic of [Meter.Feature], and so is another balance or block for a feature that
// has one. Shutdown closes balance if it is an io.Closer.
func Prepaid(balance license.Balance, block int64) FeatureOption {
	return featureOption(func(c *featureConfig) { c.prepaid, c.limit = &prepay{balance, block}, nil })
}

// maxPrepaidWait bounds how long a call waits for units.
const maxPrepaidWait = 5 * time.Second

// drawn are the bounds of a limit that has no period.
func drawn(limit int64) ledger.Quota { return ledger.Quota{Limit: limit, Start: 1, End: 1} }

func (p *prepay) validate() error {
	if isNil(p.balance) {
		return errors.New("Prepaid needs a balance")
	}
	if p.block < 1 || p.block > 1<<31-1 {
		return fmt.Errorf("Prepaid: the block is %d: it must be 1 to %d", p.block, 1<<31-1)
	}
	if v, ok := p.balance.(sink.Validator); ok {
		if err := asked("Validate", v.Validate); err != nil {
			return fmt.Errorf("Prepaid: %w", err)
		}
	}
	return nil
}

// prepare has the feature's units drawn, nil: not. The caller holds the meter's mu.
func (f *Feature) prepare(p *prepay) error {
	f.prepay, f.prepaid = p, nil
	if p == nil {
		return nil
	}
	if f.kind != sink.Sum {
		return errNoSum
	}
	if f.meter.cfg.Adopt != "" {
		return errors.New("Prepaid: units are held by the directory that has counted their use, so it can't be with Config.Adopt: give each process a Dir that it finds again")
	}
	if err := p.validate(); err != nil {
		return err
	}
	of, err := f.meter.prepaid.Declare(f.name, p.balance, p.block, func(subject string, limit int64) (taken, counted int64, err error) {
		s, err := f.ledger.Look(subject, drawn(limit))
		return s.Taken(), s.Counted, err
	})
	if err != nil && !errors.Is(err, prepaid.ErrClosed) {
		return fmt.Errorf("Prepaid: %w", err)
	}
	f.prepaid = of
	return nil
}

// draw reserves n, and at least one if the call wants any, of what the subject has
// drawn, and waits for more if there is too little.
func (c *Call) draw(ctx context.Context, n int64, wants bool) *RefusedError {
	f := c.feature
	if f.prepaid == nil {
		return f.refusal(license.Unavailable, c.subject, ErrClosed)
	}
	account, err := f.prepaid.Account(c.subject)
	if err != nil {
		return f.refusal(license.Unavailable, c.subject, err)
	}
	most := maxPrepaidWait
	if f.meter.cfg.Shadow { // nobody waits for what would not be refused
		most = 0
	}
	var until context.Context
	for {
		limit := drawn(account.Enter())
		t, admission, err := f.ledger.Reserve(c.tallyOfAccount(), c.subject, &limit, n, wants)
		account.Leave(n)
		switch {
		case err != nil:
			return f.refusal(license.Unavailable, c.subject, err)
		case admission != ledger.Refused:
			c.reserved(t, n)
			return nil
		case until == nil:
			wait, cancel := context.WithTimeout(ctx, most)
			defer cancel()
			until = wait
		}
		least := n
		if wants {
			least = max(n, 1)
		}
		if err = until.Err(); err == nil {
			err = account.Await(until, least)
		}
		if err != nil {
			return c.undrawn(t, err)
		}
	}
}

// undrawn is why there are no units for a call; nil: it goes on without.
func (c *Call) undrawn(t *ledger.Tally, err error) *RefusedError {
	f := c.feature
	if _, empty := errors.AsType[*prepaid.EmptyError](err); empty {
		return f.overQuota(c.subject, totalOf(t.Standing()))
	}
	if f.meter.cfg.AllowUnknown && !f.meter.closing.Load() {
		return nil
	}
	f.warn(context.Background(), refused, "prepaid units can't be drawn", err)
	refusal := f.refusal(license.Unavailable, c.subject, err)
	if wait, ok := errors.AsType[*prepaid.WaitError](err); ok {
		refusal.RetryAfter = wait.After
	}
	return refusal
}

// prepaidQuota is the subject's quota, as far as it is known.
func (f *Feature) prepaidQuota(subject string) license.Quota {
	if f.prepaid == nil {
		return noQuota
	}
	a := f.prepaid.Known(subject)
	if a == nil {
		return noQuota
	}
	return license.Quota{Limit: a.Limit(), Start: time.Unix(1, 0)}
}

// SettlePrepaid decides about prepaid units in doubt, which Health names by their id:
// held says that they were taken from the balance, so that their subject may use them
// here; else they are the balance's, and nothing is done. Compare the balance with what
// was bought and used before. The decision and the note are kept in the directory.
//
// Guarantee: durable once it returns nil.
// Blocking: two fsyncs, and a transfer of the subject that is under way.
// Errors: ErrNotInDoubt: there are no such units, or the feature is not declared;
// ErrClosed; ctx's; what the file system says.
func (m *Meter) SettlePrepaid(ctx context.Context, id string, held bool, note string) error {
	mustHave(ctx, "SettlePrepaid")
	if m.closing.Load() {
		return ErrClosed
	}
	return m.prepaid.Settle(ctx, id, held, note)
}

// balances are those that Shutdown closes.
func (m *Meter) balances() (owned []io.Closer) {
	for _, b := range m.prepaid.Balances() {
		if c, ok := b.(io.Closer); ok {
			owned = append(owned, c)
		}
	}
	return owned
}
