package license

import (
	"context"
	"errors"
	"time"
)

// Balance holds what subjects have bought and not used yet, in units. meter draws from
// it in blocks, and returns what it has not used; see meter.Prepaid. Both methods must
// return when ctx ends. Their errors are shown in Health, so they must hold no key; one
// that has RetryAfter() time.Duration says when to ask again, at most 5 min later.
//
// It may also have Validate() error, for faults of its configuration; Address() string,
// which names where the balances are, and no secret; and Close() error.
//
// Blocking: may use the network, within ctx.
// Concurrency: must be safe. meter makes one transfer at a time for a subject of a
// feature.
type Balance interface {
	// Read tells what a subject has left. Somebody who has bought nothing has 0.
	Read(ctx context.Context, subject string) (Funds, error)

	// Move carries out t, at most once, however often it is asked to: it takes t.Units
	// from the balance or, if t.Back, adds them. What it returns decides who pays for
	// them:
	//
	//	nil               it is done, by this attempt or one before
	//	ErrNotApplied     nothing was done, and no earlier attempt will have an effect
	//	ErrUndecidable    nobody will ever be able to tell; a person decides
	//	any other error   nobody can tell yet: asked again, with t.Doubt
	//
	// A table of transfers with a unique ID makes that easy: the first attempt inserts
	// the ID and changes the balance in one transaction, and a later one finds it.
	Move(ctx context.Context, t Transfer) error
}

// Funds is what a subject has left.
//
// Concurrency: a plain value.
type Funds struct {
	Units int64
	Mark  string // what Move may want to know of the place; no secret; may be empty
}

// Transfer is a movement of units out of a balance or, if Back, into it. It is the same
// in every attempt, but for Doubt and At.
//
// Concurrency: a plain value.
type Transfer struct {
	ID               string // unique; printable ASCII, at most 26 bytes
	Feature, Subject string
	Units            int64 // at least 1
	Back             bool
	Before           Funds     // what Read told before the first attempt
	At               time.Time // of the first attempt, which was over by then if Doubt
	Doubt            bool      // an attempt before this one may have been applied
}

// What a [Balance] says of a transfer.
var (
	// ErrNotApplied: surely nothing was done, by this attempt or one before.
	ErrNotApplied = errors.New("not applied")
	// ErrUndecidable: it can't be told, now or later, whether it was done.
	ErrUndecidable = errors.New("undecidable")
)
