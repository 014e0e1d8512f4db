// Package stripesink bills usage through Stripe's billing meters or, with
// [UsageRecords], through the older usage records of metered prices.
//
// With billing meters, each record becomes one meter event (API v1, POST
// /v1/billing/meter_events): the record's quantity as its value, its subject as the
// customer, its ID as the event's identifier, and the last second of its window as the
// timestamp.
//
//	meter                    Stripe
//	feature, kind Sum        billing meter, default_aggregation.formula "sum"
//	feature, kind Last       billing meter, formula "last", or with an event_time_window
//	subject                  customer, "cus_…"
//	record                   meter event
//	record ID                identifier
//	dimensions               further payload keys
//
// # What keeps a customer from being billed twice
//
// Stripe refuses an identifier that it has seen in the last 24 hours, and the
// identifier is the record's ID, which is fixed before the first attempt. An
// answer that says "already exists" therefore means delivered. The first attempt
// carries the ID as its Idempotency-Key, too. A later attempt carries a fresh one,
// because Stripe replays the first answer to a key, even a 500, all day.
//
// A record counts as surely not recorded only with proof: not one byte of the
// request's body left this process, or Stripe itself said so (401, 403, 404, 409,
// 429). A broken connection, a timeout, a 5xx, a redirect or a page of some proxy
// is doubt, and meter sends the record again while the identifier protects it.
//
// # What a delivery does not promise
//
// Stripe answers 200 before it has looked for the customer and the meter, and
// reports an event that it can't bill later, elsewhere. Call meter's Prepare at
// the start: it refuses a meter that is missing, inactive, or adds up something
// else, and one of the other mode than the key's. Records whose subject is no customer
// ID, and leads to none, are not sent, for Stripe would accept them and bill nobody.
//
// # Who is billed
//
// A subject is a customer, "cus_…". Where SubjectMetadata names a field of
// subscriptions, it may also be what that field holds, such as the ID of a license
// key, or the ID of a subscription or one of its items. It must lead to one customer,
// and for usage records to one item with a price of the feature, among subscriptions
// that are active, trialing, past due or unpaid: what was used is owed, and who may
// call is decided elsewhere. Where it leads to nobody or to several, the error is
// [ErrNotFound] or [ErrAmbiguous], and the count is kept.
//
// What is found is remembered for four hours, and till the billing period ends, for
// Stripe limits reads (500 a payment in 30 days, at least 10,000 a month). What is not
// found is looked up again after a minute. Stripe's search by metadata is a minute
// behind, in bad times an hour, and is not to be had in India.
//
// # After a delivery
//
// Delivered means accepted: Stripe answered that it took the record. Billed is what
// its meters have added up, later. Between the two stand
//
//   - [Sink.Webhook], which takes what Stripe reports about events that it could not
//     bill, and reopens their records, which meter keeps at hand for that for 15
//     minutes after a delivery (Limits.Confirm): a later report may find them no more;
//   - [Sink.Reconcile], which compares all that was delivered with all that is billed,
//     for the reports name only samples;
//   - [Sink.Void], by which meter has Stripe cancel a record's event, within 24 hours;
//   - [Sink.Verify], by which meter finds out about a record in doubt that is too old
//     to be sent again, where a minute has no other usage.
//
// None of these was tried against a live account: they rest on what Stripe documents.
// How late its totals are, and what it answers to a second cancellation or about an
// event that it doesn't have, it doesn't say.
//
// # Levels
//
// A feature of kind [sink.Last] is a level, such as seats: what Feature.Set said
// last in each window. Three kinds of billing meter can bill it, and Prepare refuses any
// other:
//
//	formula last                             the period's last level
//	event_time_window hour or day, sum       the last level of each hour or day, added up: seat-hours
//	event_time_window hour or day, last      the last level of the last hour or day
//
// With an event_time_window, Stripe keeps the event that it received last of each
// hour or day of UTC; for formula last alone it doesn't say whether that or the
// latest timestamp counts, so don't rely on either. Both come to the same for a
// single writer, and such a meter must have one: two processes, features, series or
// subjects of one customer would overwrite each other's levels. The sink refuses two
// features on one meter, and dimensions; it can't see the rest. meter never sends a
// level after it has tried a newer one of the same series.
//
// An hour without an event has no level, so set it at least once in each; and let
// windows end with the hour, as they do if meter's Config.Window divides it. A level
// that is still waiting, in doubt or in quarantine when a newer one is tried is
// superseded, also across the end of an hour, which then keeps the level before it.
//
// [sink.Sum] can't be billed by a meter with an event_time_window: each record would
// overwrite the one before.
//
// # Timestamps
//
// Usage is billed in the period of its window's last second. Give invoices a
// grace period of an hour or more before they are finalized, so that what is
// counted in a period's last minutes is on its invoice.
//
// After a long outage meter merges what has waited, by the hour, and the hour's record
// is stamped with its last second, too: if a period ends within that hour, what was used
// in it before the end is billed in the next period. The windows of usage records end
// with known periods; those of billing meters don't, for nobody is looked up for them.
//
// # The SDK
//
// Requests go through stripe-go, without its retries, telemetry and log. On its
// first request in a process it runs "uname -a" for a header; where no such
// program may be run, it goes on without.
package stripesink

import (
	"maps"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76/billing/meter"
	"github.com/stripe/stripe-go/v76/billing/meterevent"
	"github.com/stripe/stripe-go/v76/billing/metereventadjustment"
	"github.com/stripe/stripe-go/v76/billing/metereventsummary"
)

// Sink delivers records to Stripe's billing meters. Create it with [New].
//
// Concurrency: safe.
type Sink struct {
	cfg         Config
	faults      error
	api         *stripeapi.API
	turns       turns
	events      meterevent.Client
	adjustments metereventadjustment.Client
	meters      meter.Client
	summaries   metereventsummary.Client
	known       catalog
	payers      *resolver
	traces      traces
	absent      *lru.Cache[string, time.Time] // record ID, and when Stripe's meter first was without it
}

var (
	_ sink.Sink      = (*Sink)(nil)
	_ sink.Limiter   = (*Sink)(nil)
	_ sink.Validator = (*Sink)(nil)
	_ sink.Preparer  = (*Sink)(nil)
	_ sink.Combiner  = (*Sink)(nil)
	_ sink.Addressed = (*Sink)(nil)
	_ sink.Reader    = (*Sink)(nil)
	_ sink.Verifier  = (*Sink)(nil)
	_ sink.Voider    = (*Sink)(nil)
)

// New returns a sink for cfg, which it copies. It does no input or output and
// never fails: [Sink.Validate] tells what is wrong with cfg, and meter.Open asks.
func New(cfg Config) *Sink {
	cfg.Meters = maps.Clone(cfg.Meters)
	s := &Sink{cfg: cfg, faults: cfg.validate()}
	for feature, m := range s.cfg.Meters {
		s.cfg.Meters[feature] = m.withDefaults()
	}
	s.api = stripeapi.New(cfg.BaseURL, cfg.HTTPClient)
	s.events = meterevent.Client{B: s.api.Backend, Key: cfg.Key}
	s.adjustments = metereventadjustment.Client{B: s.api.Backend, Key: cfg.Key}
	s.meters = meter.Client{B: s.api.Backend, Key: cfg.Key}
	s.summaries = metereventsummary.Client{B: s.api.Backend, Key: cfg.Key}
	s.payers, s.traces = newResolver(s.api, cfg.Key, cfg.SubjectMetadata), newTraces()
	s.absent, _ = lru.New[string, time.Time](maxAbsent) // fails for sizes below 1 only
	return s
}

// Validate returns all faults of the configuration, each by the name of its
// field. It uses no network.
//
// Errors: one per fault, joined; never with the key in it.
func (s *Sink) Validate() error { return s.faults }

// Limits are those of Stripe. A record is tried again for as long as Stripe keeps
// identifiers, and is not sent when it is more than 34 days old, of the 35 that
// Stripe takes. Stripe allows 1,000 events a second in live mode and 25 in test
// mode; meter takes four fifths. One customer's records of one feature are sent
// one after another, which Stripe demands.
func (s *Sink) Limits() sink.Limits {
	l := sink.Limits{
		MaxBatch:     20,
		Concurrency:  32,
		MaxAge:       34 * 24 * time.Hour,
		DedupeWindow: 24 * time.Hour,
		Rate:         800,
		Timeout:      time.Minute,
		Confirm:      15 * time.Minute, // Stripe reports within a minute or so what it can't bill
	}
	if !stripeapi.Live(s.cfg.Key) {
		l.Concurrency, l.Rate = 4, 20
	}
	return l
}

// Kinds are [sink.Sum] and [sink.Last]. A billing meter knows no highest level, so
// a Max would be billed once per window.
func (s *Sink) Kinds() []sink.Kind { return []sink.Kind{sink.Sum, sink.Last} }

// Address is "stripe:test" or "stripe:live", by the key's mode, and the account
// if the configuration names one: "stripe:live/acct_1".
func (s *Sink) Address() string { return address(s.cfg.Key, s.cfg.Account) }

func address(key, account string) string {
	address := "stripe:" + stripeapi.Mode(stripeapi.Live(key))
	if account != "" && stripeapi.CheckAccount(account) == nil {
		address += "/" + account
	}
	return address
}

// Close drops idle connections, unless Config.HTTPClient was given. The sink
// stays usable.
//
// Errors: none.
func (s *Sink) Close() error {
	s.api.Close()
	return nil
}
