// Package cryptolenssink bills usage through Cryptolens, by the customer's license
// key: as usage that Cryptolens has Stripe bill ([Sink]), or on counters that it keeps
// as data objects of the key ([Counters]).
//
//	meter                Sink                    Counters
//	feature              those named add up      one data object each
//	subject              what leads to a key     what leads to a key
//	record               one RecordUsage         one bounded increment, or one set
//	doubt                as Config.Doubt says    cleared by reading back
//
// To record usage without a meter, call RecordUsage of
// [github.com/inprocess/meter/license/cryptolens.Client].
//
// # Keys
//
// A record knows its subject, not the key, which is a secret. The sink asks Config.Key
// for it, at each attempt; the Key method of meter's cache is made for that. While there
// is no answer, the record is not sent; it stays pending, and Health says so.
//
// # License servers on premises
//
// BaseURL may lead to one; it only passes on what these sinks ask for. By its code, the
// published one answers "200 OK" with nothing in it when it can't reach Cryptolens. That
// is doubt, where Cryptolens itself would have been out of reach for sure: with [Sink],
// have usage go to Cryptolens directly if you can.
//
// # What is not verified
//
// The package rests on what Cryptolens documents; nothing was tried against a live
// account. See package license/cryptolens.
package cryptolenssink

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/sink"
)

// Sink records usage by the method RecordUsage, so that Cryptolens adds it up on the
// subscription item of the key. Create it with [New].
//
// RecordUsage has no idempotency: the API takes the same usage twice, and does not tell
// what it has. So a call without an answer leaves a doubt that nobody can clear but a
// person who looks at Stripe, and Config.Doubt says what becomes of the record. The sink
// keeps doubt rare: it counts a call as surely not applied if no byte of it was sent, or
// if the API said so in words that are known; it starts none that the batch leaves too
// little time for; and after a doubt it leaves the rest of the batch for later.
//
// Cryptolens has one number for each key. Usage counts when it arrives, whatever
// Record.Start and End say: what is delivered after the end of a billing period is
// billed in the next one. Usage that is reported for a calendar month that is over
// ([sink.Record].Backdated) is therefore rejected, and a person decides. Dimensions are
// not sent.
//
// Concurrency: safe.
type Sink struct {
	cfg    Config
	faults error
	client *cryptolens.Client
	keys   keys
	turns  turns
}

var (
	_ sink.Sink      = (*Sink)(nil)
	_ sink.Limiter   = (*Sink)(nil)
	_ sink.Validator = (*Sink)(nil)
	_ sink.Preparer  = (*Sink)(nil)
	_ sink.Combiner  = (*Sink)(nil)
	_ sink.Addressed = (*Sink)(nil)
)

// New returns a sink for cfg, which it copies. It does no input or output and never
// fails: [Sink.Validate] tells what is wrong with cfg, and meter.Open asks.
func New(cfg Config) *Sink {
	cfg.Features = slices.Clone(cfg.Features)
	return &Sink{cfg: cfg, faults: cfg.validate(), client: newClient(cfg.Token, cfg.BaseURL, cfg.AllowHTTP, cfg.HTTPClient), keys: newKeys(cfg.Key), turns: newTurns()}
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with the token in it.
func (s *Sink) Validate() error { return s.faults }

// Limits are the API's, as far as they are known: amounts have 32 bits. It documents no
// limit of requests, so Rate is a guess. DedupeWindow is 0 with [Quarantine], so that a
// record in doubt is never sent again; with [Resend] and [Assume] it comes back to the
// sink, for a year, which does as it was told. What is in doubt because meter's directory
// is a copy waits for a person all the same.
func (s *Sink) Limits() sink.Limits {
	l := limits(s.cfg.Rate)
	if s.cfg.Doubt != Quarantine {
		l.DedupeWindow = ownDoubt
	}
	if s.cfg.Doubt == Assume {
		l.MaxBatch = 1 // all that a process has begun when it is killed would be written off
	}
	return l
}

// ownDoubt is how long a record in doubt comes back to be sent or assumed. It has an
// end, for with [sink.Forever] records would come back that are in doubt for another
// reason, such as all that wait in a copy of meter's directory: Assume would write off
// what was never sent.
const ownDoubt = 365 * 24 * time.Hour

// limits are what both sinks have in common. Batches are few and small, for the API takes
// one record a call, a license server on premises works on one call at a time, and all
// that a process has begun when it is killed is in doubt.
func limits(rate float64) sink.Limits {
	return sink.Limits{
		MaxBatch:    5,
		Concurrency: 4,
		MaxQuantity: math.MaxInt32,
		Rate:        cmp.Or(rate, defaultRate),
		Timeout:     time.Minute,
	}
}

// Kinds is [sink.Sum]: the API adds up.
func (s *Sink) Kinds() []sink.Kind { return []sink.Kind{sink.Sum} }

// Prepare refuses features that are not in Config.Features. It uses no network, for the
// API has no way to ask without recording.
//
// Errors: a [*sink.BatchError] that names the features at fault; the faults of the
// configuration.
func (s *Sink) Prepare(_ context.Context, features []sink.Feature) error {
	return prepare(s.faults, features, s.checkFeature)
}

// prepare checks features one by one.
func prepare(faults error, features []sink.Feature, check func(name string) error) error {
	if faults != nil {
		return faults
	}
	errs, failed := make([]error, len(features)), false
	for i, f := range features {
		errs[i] = check(f.Name)
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return &sink.BatchError{Errs: errs}
}

func (s *Sink) checkFeature(name string) error {
	if slices.Contains(s.cfg.Features, name) {
		return nil
	}
	return fmt.Errorf("%w: cryptolenssink: feature %q is not in Config.Features: its counts are kept; add it, so that it adds up with the others on the one number that Cryptolens has for a key, or keep its records off this route by Route.Match",
		sink.ErrPostponed, name)
}

// Address is "cryptolens:" and the product, such as "cryptolens:3646". Products are
// numbered across vendors, and a license server leads to the same ones.
func (s *Sink) Address() string { return "cryptolens:" + strconv.Itoa(s.cfg.ProductID) }

// Close drops idle connections, unless Config.HTTPClient was given. The sink stays
// usable.
//
// Errors: none.
func (s *Sink) Close() error { return s.client.Close() }

// Format prints the sink's address, whatever the verb.
func (s *Sink) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Address()) }

// LogValue is the sink's address.
func (s *Sink) LogValue() slog.Value { return slog.StringValue(s.Address()) }
