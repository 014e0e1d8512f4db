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

// UsageRecords delivers records to Stripe's metered prices as legacy usage records
// (API version 2023-10-16, POST /v1/subscription_items/{item}/usage_records). Create it
// with [NewUsageRecords]. See the package's comment on usage records.
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

// NextEnd is the end of the next billing period, or cancellation, among the customers
// that this process has billed or tried to, and 15 s before it, so that all but the
// last of a period's usage can be delivered while the period runs.
func (u *UsageRecords) NextEnd(after time.Time) time.Time { return u.payers.ends.next(after) }

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
