package stripesink

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76/price"
	"github.com/stripe/stripe-go/v76/usagerecord"
	"github.com/stripe/stripe-go/v76/usagerecordsummary"
)

// UsageRecords delivers records as usage records of Stripe's metered prices (API
// version 2023-10-16, POST /v1/subscription_items/{item}/usage_records). Stripe calls
// them legacy: versions from 2025-03-31 on are without them, and for how long the older
// one is served is not known. Create it with [NewUsageRecords].
//
//	meter                    Stripe
//	feature, kind Sum        metered price, aggregate_usage sum
//	feature, kind Max        metered price, aggregate_usage max
//	feature, kind Last       metered price, aggregate_usage last_during_period or last_ever
//	subject                  subscription item, or what leads to one
//	record                   usage record
//
// # What keeps a customer from being billed twice
//
// Of an item, Stripe keeps one quantity for each second, and action=set overwrites it.
// So each record is set at a second that no other record of the item has. It follows
// from the record alone, and so is the same on every attempt and after a restart; being
// sent again changes nothing. Several processes may count for one item, each with an
// Instance of its own in meter's Config, for each has seconds of its own.
//
// That holds while nobody else writes to the item, and each customer is identified in
// one way: two subjects that lead to one item would share seconds. The sink rejects the
// second of them where it sees both. A ledger that was thrown away, or is in memory
// alone, does not know when its last window began: leave as many seconds between two
// processes as Limits.MinWindow says.
//
// A record in doubt is sent again to the item that it was sent to before, or not at all.
// A process that was restarted doesn't know that item any more, and Prices or a
// subscription's metadata may have changed since. It sends the record if it can have been
// no other: the subject is an item, or it is a subscription or a customer that has one
// item alone, whatever its price, in all of its subscriptions of any status. Else, as for
// every subject that is found by metadata, the record is rejected, and a person decides.
// An item that was deleted since is not seen. So, of a customer with several items, what
// was being sent when a process was killed waits for a person, unless callers are
// identified by "si_…".
//
// It also holds only while the billing period runs. A record in doubt is not sent again
// once its period is over, or about to be: for some minutes Stripe may still take usage
// of the period before, and what it then does with a second that was set already is
// not verified. It is rejected, and a person decides.
//
// With Increment, a record is added up under its ID as the Idempotency-Key, which Stripe
// knows again for 24 hours. An answer that Stripe has stored, such as a 500, is all that
// it says in that time; the record then stays in doubt.
//
// # The ends of billing periods
//
// NextEnd has windows end where a known customer's period ends, and some time before, so
// that usage is billed in the period in which it was used. That lead is 15 s, or a second
// more than Limits.MinWindow if that is longer, and 0.1 s for each item whose period ends
// in the same second: what was used before it can be delivered in time, if no more than
// the half of Limits.Rate is needed for all else, and nothing is left from before. What
// is used within the lead may come late, and with very many customers that end together
// it is long: 115 s for a thousand.
//
// A window can't end sooner than Limits.MinWindow after its begin, 62 s with 60
// instances. Of two periods that end closer together, one is not met, nor is one whose
// end becomes known too late, as with the first usage of a customer since the start of
// the process. The window that contains such an end is billed as of its begin, a level
// as of its end.
//
// What is delivered after the end is tried all the same, for Stripe may take it for some
// minutes, which it doesn't guarantee. If it refuses, Late decides. A sum whose window
// contains the begin of the running period, as with the first usage of a new
// subscription, is added up within that period whatever Late says; a level is rejected.
// Nothing is added up on an item that did not exist when it was used.
//
// What is reported after its window has ended ([sink.Record].Backdated) is added up, for
// the seconds of its window may be taken. Its key protects it as with Increment, but not
// over a restart: a record in doubt from before it waits for a person. If its billing
// period is over, Late decides.
//
// Where a subscription ends with its period (cancel_at_period_end), nothing is left to
// bill what comes late. If its subject is the subscription or an item of it, the record
// is rejected. A customer, or what metadata holds, may get another subscription: there it
// stays pending, with [ErrNotFound] in Health. Bill such usage by hand, by an invoice
// item, and settle the record as voided then; or identify callers by "sub_…" or "si_…".
//
// Every item with a period end of its own makes for two more windows a period, each a
// record of everybody who used something in it. With very many customers whose periods
// end at random times, windows become shorter, but not below Limits.MinWindow.
//
// None of this was tried against a live account: it rests on what Stripe documents and
// others have seen.
//
// Concurrency: safe.
type UsageRecords struct {
	cfg       UsageRecordsConfig
	faults    error
	api       *stripeapi.API
	records   usagerecord.Client
	summaries usagerecordsummary.Client
	prices    price.Client
	payers    *resolver
	ends      *ends
	registers registers
	turns     turns // by item
	traces    traces
	taken     *lru.Cache[place, string] // by which subject
}

// place is one register.
type place struct {
	item   string
	second int64
}

const maxPlaces = 100_000 // that are remembered: over an hour of them, at the highest rate

var (
	_ sink.Sink      = (*UsageRecords)(nil)
	_ sink.Limiter   = (*UsageRecords)(nil)
	_ sink.Validator = (*UsageRecords)(nil)
	_ sink.Preparer  = (*UsageRecords)(nil)
	_ sink.Combiner  = (*UsageRecords)(nil)
	_ sink.Addressed = (*UsageRecords)(nil)
	_ sink.Scheduler = (*UsageRecords)(nil)
	_ sink.Reader    = (*UsageRecords)(nil)
	_ io.Closer      = (*UsageRecords)(nil)
)

// NewUsageRecords returns a sink for cfg, which it copies. It does no input or output
// and never fails: [UsageRecords.Validate] tells what is wrong with cfg, and meter.Open
// asks.
func NewUsageRecords(cfg UsageRecordsConfig) *UsageRecords {
	cfg = cfg.withDefaults()
	api := stripeapi.New(cfg.BaseURL, cfg.HTTPClient)
	u := &UsageRecords{
		cfg: cfg, faults: cfg.validate(), api: api,
		records:   usagerecord.Client{B: api.Backend, Key: cfg.Key},
		summaries: usagerecordsummary.Client{B: api.Backend, Key: cfg.Key},
		prices:    price.Client{B: api.Backend, Key: cfg.Key},
		payers:    newResolver(api, cfg.Key, cfg.SubjectMetadata),
		registers: registers{int64(cfg.Instances)},
		traces:    newTraces(),
	}
	l := u.Limits()
	u.ends = newEnds(l.MinWindow, l.Rate)
	u.taken, _ = lru.New[place, string](maxPlaces) // fails for sizes below 1 only
	return u
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with the key in it.
func (u *UsageRecords) Validate() error { return u.faults }

// Limits are those of Stripe. While its billing period runs, a record can be sent any
// number of times; with Increment, for as long as Stripe keeps idempotency keys. At 20
// records a second some of the 25 that Stripe takes at an endpoint are left, and in
// test mode, where all requests share 25, some for reading subscriptions. Windows begin
// a few seconds apart, so that each record has a second of its own; with Increment they
// may begin at any.
func (u *UsageRecords) Limits() sink.Limits {
	l := sink.Limits{
		MaxBatch:     20,
		Concurrency:  8,
		MaxAge:       366 * 24 * time.Hour, // no period is longer than the year of a yearly price
		DedupeWindow: sink.Forever,         // Deliver refuses what is in doubt when its period is over
		Rate:         20,
		Timeout:      time.Minute,
		MinWindow:    u.registers.apart(),
	}
	if u.cfg.Increment {
		l.DedupeWindow, l.MinWindow = 24*time.Hour, 0
	}
	if !stripeapi.Live(u.cfg.Key) {
		l.Concurrency = 4
	}
	return l
}

// Kinds are all, or with Increment [sink.Sum] alone. Prepare says whether a feature's
// price goes with its kind.
func (u *UsageRecords) Kinds() []sink.Kind {
	if u.cfg.Increment {
		return []sink.Kind{sink.Sum}
	}
	return []sink.Kind{sink.Sum, sink.Max, sink.Last}
}

// Address is that of the billing meters' sink and what decides where a record stands:
// "stripe:live/acct_1/usage-records/3" for three instances, or ".../increment". A
// record in doubt must be sent again to where it was sent before, so these can't be
// changed while any is owed.
func (u *UsageRecords) Address() string {
	way := strconv.Itoa(u.cfg.Instances)
	if u.cfg.Increment {
		way = "increment"
	}
	return address(u.cfg.Key, u.cfg.Account) + "/usage-records/" + way
}

// NextEnd is the end of the next billing period, or cancellation, among the items that
// this process has billed or tried to, or the lead before it, so that all but the last of
// a period's usage can be delivered while the period runs. The type's comment says how
// long the lead is, and which ends can't be met. It holds a few bytes for each item and
// end to come.
func (u *UsageRecords) NextEnd(after time.Time) time.Time { return u.ends.next(after) }

// Close drops idle connections, unless HTTPClient was given. The sink stays usable.
//
// Errors: none.
func (u *UsageRecords) Close() error {
	u.api.Close()
	return nil
}

// Format prints the sink's address, whatever the verb.
func (u *UsageRecords) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.Address()) }

// LogValue is the sink's address.
func (u *UsageRecords) LogValue() slog.Value { return slog.StringValue(u.Address()) }
