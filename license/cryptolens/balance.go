package cryptolens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/inprocess/meter/license"
)

// Balance is the number of a data object of each license key, as what its subject has
// bought and not used yet. The vendor adds to it when something is bought, by
// [Client.Increment]; meter.Prepaid draws from it. Create it with [NewBalance].
//
// # Who may write
//
// The vendor may add at any time. Any number of processes may draw: the API takes
// nothing that would bring the number below 0, so all together they never get more than
// was bought. An answer that is lost leaves a doubt that nobody can settle by reading
// then, for others write there, too: a person does.
//
// With BalanceConfig.Sole there is one process, with one feature for each data object
// and one subject for each key, and nobody else takes anything. Then each transfer is
// sent with a bound, so that the API can do it once, and what became of it is read. Of B
// before a draw of n, this is left:
//
//	B-n to B-1     it was done, and fewer than n were bought meanwhile
//	B              it was not done. A minute later, so that it won't be any more
//	more than B    something was bought meanwhile, and it may have been done or not: a
//	               person decides
//
// and of B before n are returned:
//
//	B+n            it was done
//	B to B+n-1     it was not done. A minute later
//	anything else  a person decides
//
// Until then nothing more is drawn for the subject: for some 70 s it has only what was
// drawn before.
//
// Somebody who buys exactly n units in between, a draw without an answer, and is read to
// have B, loses n; so does one who buys exactly n while n are returned in vain. Nothing
// makes more units than were bought.
//
// A subject whose key has changed meanwhile is left to a person, too.
//
// # Not verified
//
// That a result of 1, in words that are not known, is a refusal; in such words the API
// refuses what passes a bound. That a request without an answer has no effect any more
// after a minute. That the number is read as it was left by the last call.
//
// Numbers have 32 bits: more than 2147483647 is never in a balance, and what would pass
// that is not returned. The product's cryptolens_dobjreset must not reset the object.
//
// Concurrency: safe.
type Balance struct {
	cfg    BalanceConfig
	faults error
	client *Client

	mu    sync.Mutex
	users map[license.Key]user // with Sole
}

// user is who draws from a key's data object.
type user struct{ feature, subject string }

var _ license.Balance = (*Balance)(nil)

// NewBalance returns the balances of cfg, which it copies. It does no input or output
// and never fails: [Balance.Validate] tells what is wrong with cfg.
func NewBalance(cfg BalanceConfig) *Balance {
	return &Balance{cfg: cfg, faults: cfg.validate(), client: NewClient(cfg.client()), users: map[license.Key]user{}}
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with the token in it.
func (b *Balance) Validate() error { return b.faults }

// Address is "cryptolens:", the product, and the data object, such as
// "cryptolens:3646/data/credits".
func (b *Balance) Address() string {
	return "cryptolens:" + strconv.Itoa(b.cfg.ProductID) + "/data/" + b.cfg.Object
}

// Close drops idle connections, unless BalanceConfig.HTTPClient was given. The balance
// stays usable.
//
// Errors: none.
func (b *Balance) Close() error { return b.client.Close() }

// Format prints where the balance is, whatever the verb.
func (b *Balance) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.Address()) }

// LogValue is what [Balance.Format] prints.
func (b *Balance) LogValue() slog.Value { return slog.StringValue(b.Address()) }

// Read is the number of the subject's data object; 0 if there is none.
//
// Blocking: until the API has answered.
// Errors: those of a [Client]; of BalanceConfig.Key; several data objects of the name.
func (b *Balance) Read(ctx context.Context, subject string) (license.Funds, error) {
	key, err := b.key(ctx, subject)
	if err != nil {
		return license.Funds{}, err
	}
	o, err := b.find(ctx, key)
	if errors.Is(err, errNoObject) {
		return license.Funds{}, nil
	}
	if err != nil {
		return license.Funds{}, err
	}
	return license.Funds{Units: o.Int, Mark: mark(o)}, nil
}

// mark is the data object's ID, so that a transfer is not looked for on another one.
func mark(o DataObject) string { return strconv.FormatInt(o.ID, 10) }

var errNoObject = errors.New("the key has no such data object")

func (b *Balance) find(ctx context.Context, key license.Key) (found DataObject, err error) {
	list, err := b.client.DataObjects(ctx, b.owner(key), b.cfg.Object)
	if err != nil {
		return found, err
	}
	n := 0
	for _, o := range list { // the API finds parts of names, too
		if o.Name == b.cfg.Object {
			found = o
			n++
		}
	}
	switch n {
	case 0:
		return found, errNoObject
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("cryptolens: %d data objects have the name %q: remove all but one", n, b.cfg.Object)
}

func (b *Balance) owner(key license.Key) Owner { return Owner{ProductID: b.cfg.ProductID, Key: key} }

func (b *Balance) key(ctx context.Context, subject string) (license.Key, error) {
	if b.faults != nil {
		return license.Key{}, fmt.Errorf("the configuration is faulty: %w", b.faults)
	}
	key, err := b.cfg.Key(ctx, subject)
	if err != nil {
		return license.Key{}, fmt.Errorf("cryptolens: no license key for subject %q: %w", subject, err)
	}
	if key.IsZero() {
		return license.Key{}, fmt.Errorf("cryptolens: no license key for subject %q", subject)
	}
	return key, nil
}

// settleTime is how long after its attempt a transfer without an answer may take effect.
const settleTime = time.Minute

// Move takes units from the subject's data object, or adds them.
//
// Blocking: at most three calls of the API, or until ctx ends.
// Errors: as [license.Balance] says.
func (b *Balance) Move(ctx context.Context, t license.Transfer) error {
	key, err := b.key(ctx, t.Subject)
	if err == nil && !t.Doubt {
		err = b.claim(key, t)
	}
	switch {
	case err != nil && t.Doubt: // what an earlier attempt did is as unknown as before
		return err
	case err != nil:
		return errors.Join(license.ErrNotApplied, err)
	case t.Doubt:
		return b.settle(ctx, key, t, errors.New("an earlier attempt had no answer"))
	}
	switch err = b.step(ctx, key, t); {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnknown):
		return b.refused(ctx, key, t, err)
	case errors.Is(err, ErrInDoubt):
		t.At = time.Now() // when it was over, which may be long after it was to begin
		return b.settle(ctx, key, t, err)
	}
	return fmt.Errorf("%w: %w", license.ErrNotApplied, err)
}

// step asks for the transfer once. It goes by name, for a license server on premises
// that keeps a log of usage takes steps by ID for itself.
func (b *Balance) step(ctx context.Context, key license.Key, t license.Transfer) error {
	of, object := b.owner(key), Ref{Name: b.cfg.Object}
	switch {
	case t.Back && b.cfg.Sole:
		return b.client.IncrementUpTo(ctx, of, object, t.Units, t.Before.Units+t.Units)
	case t.Back:
		return b.client.Increment(ctx, of, object, t.Units)
	case b.cfg.Sole:
		return b.client.DecrementDownTo(ctx, of, object, t.Units, max(t.Before.Units-t.Units, 0))
	}
	return b.client.DecrementDownTo(ctx, of, object, t.Units, 0)
}

// refused is the outcome of what the API has refused in words that are not known, such
// as a step beyond its bound.
func (b *Balance) refused(ctx context.Context, key license.Key, t license.Transfer, why error) error {
	if b.cfg.Sole {
		o, err := b.find(ctx, key)
		switch {
		case err != nil: // unread, it may be there
			return fmt.Errorf("%w; reading what became of it: %w", why, err)
		case o.Int == after(t) && mark(o) == t.Before.Mark:
			return fmt.Errorf("%w: it was refused, and seems to be done: %w", license.ErrUndecidable, why)
		}
	}
	return fmt.Errorf("%w: %w", license.ErrNotApplied, why)
}

// after is what a balance has once a transfer was done, and nothing else.
func after(t license.Transfer) int64 {
	if t.Back {
		return t.Before.Units + t.Units
	}
	return t.Before.Units - t.Units
}

// settle finds out what became of a transfer without an answer.
func (b *Balance) settle(ctx context.Context, key license.Key, t license.Transfer, why error) error {
	if !b.cfg.Sole {
		return fmt.Errorf("%w: others draw from %s, too: %w", license.ErrUndecidable, b.Address(), why)
	}
	o, err := b.find(ctx, key)
	if err == nil && mark(o) != t.Before.Mark {
		err = errNoObject
	}
	if errors.Is(err, errNoObject) {
		return fmt.Errorf("%w: the data object that subject %q had is not there: %w", license.ErrUndecidable, t.Subject, why)
	}
	if err != nil {
		return fmt.Errorf("%w; reading what became of it: %w", why, err)
	}
	before, done := t.Before.Units, after(t)
	switch now := o.Int; {
	case t.Back && now == done, !t.Back && done <= now && now < before:
		return nil
	case t.Back && before <= now && now < done, !t.Back && now == before:
		if left := time.Until(t.At.Add(b.client.wire.Timeout() + settleTime)); left > 0 {
			return &laterError{why, left}
		}
		return fmt.Errorf("%w: %w", license.ErrNotApplied, why)
	default:
		return fmt.Errorf("%w: the balance was %d, and is %d: %w", license.ErrUndecidable, before, now, why)
	}
}

// laterError says that it can't be told yet.
type laterError struct {
	why  error
	left time.Duration
}

func (e *laterError) Error() string {
	return "not done yet, and may be within a minute: " + e.why.Error()
}
func (e *laterError) Unwrap() error             { return e.why }
func (e *laterError) RetryAfter() time.Duration { return e.left }

// claim keeps a Sole balance to one feature and subject for each key.
func (b *Balance) claim(key license.Key, t license.Transfer) error {
	if !b.cfg.Sole {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	is := user{t.Feature, t.Subject}
	first, taken := b.users[key]
	if taken && first != is {
		return fmt.Errorf("cryptolens: feature %q for subject %q and feature %q for subject %q draw from one data object: leave BalanceConfig.Sole false, or give each its own",
			first.feature, first.subject, is.feature, is.subject)
	}
	b.users[key] = is
	return nil
}
