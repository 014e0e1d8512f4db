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
// waits only if too little was drawn for its subject, as at the first call, for at most
// 5 s or until its context ends. If the balance has too little, which is looked at again
// after 5 s, the call is refused as license.OverQuota, status 402; if nobody can tell, as
// while the balance is out of reach, as license.Unavailable, status 503, or it is let
// through under [Config.AllowUnknown]. After a failure the balance is left alone for 1 s,
// then 2, 4, and 5 s at most, or for as long as its error says by RetryAfter, at most
// 5 min; meanwhile calls that need more than was drawn are refused at once.
//
// [Hold] and [Quantity] reserve as with a quota (see [Limit]). The quota of a verdict
// does not count here; Prepaid and Limit replace each other, but what a subject uses by
// another declaration of the feature is used. A process knows what it has drawn, not what
// was bought, so [Total], [Meter.Usage] and refusals tell of that, and of no limit;
// RateLimit fields tell of nothing. What a customer has left is what the balance has, and
// Total.Drawn.
//
// The next block is drawn when half a block is left. What a subject has not used is
// returned after 15 min without a call, and at [Meter.Shutdown], which tries again as
// long as its context lasts, or 30 s if that has no end. After a crash whoever opens the
// directory next, and declares the feature, goes on with it, as if nothing had happened.
// So a process keeps at most one and a half blocks of a subject, or what a call needs that
// reserves more. Choose a block that lasts for some seconds, and that the customer can do
// without for a while. A subject that was ever let through is remembered for good, in some
// 1.1 kB of memory and 0.3 kB of disk; one that never was is forgotten.
//
// # Too much and too little
//
// Of each subject, at every moment, of all processes together:
//
//	bought = left in the balance + used since its account began + drawn and not used + on its way or in doubt
//
// An account begins before the first call is let through. From then on all that the
// directory counts of the subject is used, by calls, by hand and by events, whether or
// not the process holds anything; what was counted before is not.
//
// However many calls begin at once, in however many processes, all of them on one balance
// are let through with no more units than were bought, whatever answer is lost and
// wherever a process is killed. Beyond that go only calls that use more than they had
// reserved, counts by hand, and calls under AllowUnknown and Shadow: they count in full,
// and are a debt, which outlives the process, and is taken of what is drawn next. And what
// a power cut makes of counts (see [Config.Sync]): the units of those that it lost, as far
// as they were counted since the last draw or return, may be used again.
//
// A customer may get less than it has bought by what processes hold, those that died
// included, and by what is in doubt: units whose transfer had no answer, if the balance
// will never tell whether it was done. Nobody uses or returns them; for each such answer
// that is what was drawn or returned then, and of a draw mostly a block. [Meter.Health]
// names them until [Meter.SettlePrepaid] decides. What a copied directory holds is in
// doubt, too, and so is what was drawn before a feature got a balance of another Address.
//
// While the disk can't be written, nothing is drawn or returned, and what is noted is
// used. With meter.InMemory, a process that dies takes with it what it holds, and debts.
//
// [Meter.Feature] panics if balance is nil or finds a fault in Validate, if block is below
// 1 or above 2^31-1, if an earlier declaration has another balance or block, with
// [Thresholds], which are shares of a quota, and with [Config.Adopt]: units are held by
// the directory that counts their use, so each process needs a Dir that it finds again.
// Shutdown closes balance if it is an io.Closer.
func Prepaid(balance license.Balance, block int64) FeatureOption {
	return featureOption(func(c *featureConfig) { c.prepaid, c.limit = &prepay{balance, block}, nil })
}

// maxPrepaidWait bounds how long a call waits for units.
const maxPrepaidWait = 5 * time.Second

// sinceEver is what units are taken of.
type sinceEver struct{ feature *ledger.Feature }

func (e sinceEver) Begin(subject string) (int64, error)        { return e.feature.BeginEver(subject) }
func (e sinceEver) Count(subject string) (counted, held int64) { return e.feature.Ever(subject) }

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
	of, err := f.meter.prepaid.Declare(f.name, p.balance, p.block, sinceEver{f.ledger})
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
	account := f.prepaid.Account(c.subject)
	least, most := n, maxPrepaidWait
	if wants {
		least = max(n, 1)
	}
	shadow := f.meter.cfg.Shadow
	if shadow { // nobody waits for what would not be refused
		most = 0
	}
	if least == 0 || shadow { // it is let through in any case
		if err := account.Begin(); err != nil {
			return f.refusal(license.Unavailable, c.subject, err)
		}
	}
	var until context.Context
	for {
		t, ok, err := f.ledger.ReserveEver(c.tallyOfAccount(), c.subject, account.Enter(), n, wants)
		account.Leave(n)
		switch {
		case err != nil:
			return f.refusal(license.Unavailable, c.subject, err)
		case ok:
			c.reserved(t, n)
			return nil
		case until == nil:
			wait, cancel := context.WithTimeout(ctx, most)
			defer cancel()
			until = wait
		}
		if err = until.Err(); err == nil {
			err = account.Await(until, least)
		}
		if err != nil {
			return c.undrawn(account, err)
		}
	}
}

// undrawn is why there are no units for a call; nil: it goes on without.
func (c *Call) undrawn(account *prepaid.Account, err error) *RefusedError {
	f := c.feature
	if _, empty := errors.AsType[*prepaid.EmptyError](err); empty {
		refusal := f.overQuota(c.subject, f.Total(c.subject))
		refusal.Cause = err
		return refusal
	}
	if f.meter.cfg.AllowUnknown && !f.meter.closing.Load() {
		if err = account.Begin(); err == nil { // or nobody would ever pay for it
			return nil
		}
	}
	f.warn(context.Background(), refused, "prepaid units can't be drawn", err)
	refusal := f.refusal(license.Unavailable, c.subject, err)
	if wait, ok := errors.AsType[*prepaid.WaitError](err); ok {
		refusal.RetryAfter = wait.After
	}
	return refusal
}

// prepaidDetail is what a client is told that was refused for want of units; "": it was
// refused for another reason.
func prepaidDetail(e *RefusedError) string {
	if _, empty := errors.AsType[*prepaid.EmptyError](e.Cause); empty && e.Total != nil {
		if e.Total.Drawn > 0 {
			return "What is left of what was bought is too little for this request."
		}
		return "What was bought is used up."
	}
	if _, waits := errors.AsType[*prepaid.WaitError](e.Cause); waits {
		return "It can't be known right now what is left of what was bought; try again later."
	}
	return ""
}

// prepaidTotal is the Total of prepaid units.
func (f *Feature) prepaidTotal(subject string) Total {
	t := Total{Limit: -1}
	if f.prepaid != nil {
		t.Quantity, t.Drawn = f.prepaid.Standing(subject)
		_, t.Held = f.ledger.Ever(subject)
	}
	return t
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
