package stripesink_test

import (
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestPricesThatWouldBillWrongly(t *testing.T) {
	t.Parallel()
	sum, highest, last := sink.Sum, sink.Max, sink.Last
	tests := map[string]struct {
		price stripetest.Price
		kind  sink.Kind
		says  string // "": fits
	}{
		"sum":                       {stripetest.Price{Aggregate: "sum"}, sum, ""},
		"max":                       {stripetest.Price{Aggregate: "max"}, highest, ""},
		"last of a period":          {stripetest.Price{Aggregate: "last_during_period"}, last, ""},
		"last ever":                 {stripetest.Price{Aggregate: "last_ever"}, last, ""},
		"tiered":                    {stripetest.Price{Tiers: []stripetest.Tier{{UnitAmount: "1"}}}, sum, ""},
		"sum by max":                {stripetest.Price{Aggregate: "max"}, sum, "kind sum needs sum"},
		"sum by last":               {stripetest.Price{Aggregate: "last_ever"}, sum, `it bills the "last_ever" (aggregate_usage)`},
		"max by sum":                {stripetest.Price{Aggregate: "sum"}, highest, "kind max needs max"},
		"max by last":               {stripetest.Price{Aggregate: "last_during_period"}, highest, "kind max needs max"},
		"last by sum":               {stripetest.Price{Aggregate: "sum"}, last, "kind last needs last_during_period or last_ever"},
		"last by max":               {stripetest.Price{Aggregate: "max"}, last, "kind last needs"},
		"licensed":                  {stripetest.Price{UsageType: "licensed"}, sum, `its usage_type is "licensed"`},
		"archived":                  {stripetest.Price{Archived: true}, sum, "it is archived: activate it"},
		"archived, and another way": {stripetest.Price{Archived: true, Aggregate: "max"}, sum, "kind sum needs sum"},
		"billing meter":             {stripetest.Price{Meter: "mtr_1"}, sum, "billed by billing meter mtr_1"},
		"kind of the future":        {stripetest.Price{}, 99, "kind unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { c.Prices[feature] = []string{"price_1"} })
			b.AddMeter(stripetest.Meter{ID: "mtr_1", EventName: "x"})
			test.price.ID = "price_1"
			b.AddPrice(test.price)
			for range 2 {
				err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature, Kind: test.kind}})
				if test.says == "" {
					require.NoError(t, err)
					continue
				}
				require.ErrorContains(t, err, test.says)
				require.ErrorContains(t, err, `feature "tax-report", Stripe price price_1`)
			}
		})
	}
}

func TestPrepareNamesTheFeatureWithoutAPrice(t *testing.T) {
	t.Parallel()
	b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
		c.Prices["seats"] = []string{"price_max", "price_gone"}
		c.Prices["levels"] = []string{"price_last_ever"}
	})
	err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: "seats", Kind: sink.Max}, {Name: feature}, {Name: "export"}, {Name: "levels"}})
	batch, ok := errors.AsType[*sink.BatchError](err)
	require.True(t, ok)
	require.Len(t, batch.Errs, 4)
	require.ErrorContains(t, batch.Errs[0], "price_gone: there is none of this ID")
	require.NotContains(t, batch.Errs[0].Error(), "price_max")
	require.NoError(t, batch.Errs[1])
	require.ErrorContains(t, batch.Errs[2], `no Stripe price for feature "export"`)
	require.ErrorContains(t, batch.Errs[3], "kind sum needs sum")
}

func TestIncrementTakesSumsOnly(t *testing.T) {
	t.Parallel()
	b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
		c.Increment = true
		c.Prices[feature] = []string{"price_max"}
	})
	err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature, Kind: sink.Max}})
	require.ErrorContains(t, err, "incremented")
	require.Equal(t, []sink.Kind{sink.Sum}, b.sink.Kinds())
}

// A price that can't be read must not pass for one that fits, nor for one that is gone.
func TestPrepareFailsWithThePrice(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		inBubble(t, fault.String(), func(t *testing.T) {
			b := newRegister(t, nil)
			b.Script(fault, fault) // net/http may try a read twice
			err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}})
			require.ErrorContains(t, err, "reading price price_sum")
			require.EqualValues(t, fault.RetryAfter, sink.RetryDelay(err).Seconds())
			require.NoError(t, b.settled(t))
		})
	}
	b := newRegister(t, nil)
	b.Forbid("GET /v1/prices/{id}")
	err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}})
	require.ErrorContains(t, err, "needs read access to prices")
}

// settled prepares until the script of faults is over.
func (b *register) settled(t *testing.T) (err error) {
	for range 2 {
		err = b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}})
	}
	return err
}

func TestPriceOfTheOtherMode(t *testing.T) {
	t.Parallel()
	b := newRegister(t, nil)
	b.Live = true
	server := httptest.NewTLSServer(b.Server) // plain HTTP may lead to a stand-in alone
	t.Cleanup(server.Close)
	b.change = func(c *stripesink.UsageRecordsConfig) { c.BaseURL = server.URL }
	b.sink = b.through(t, server.Client())
	err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}})
	require.ErrorContains(t, err, "it belongs to live mode")
}

// Thresholds show when a record comes, and the count is kept.
func TestBillingThresholdsNeedIncrements(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*stripetest.Subscription){
		"of the subscription": func(s *stripetest.Subscription) { s.AmountThreshold = 1000 },
		"of the item":         func(s *stripetest.Subscription) { s.Items[0].UsageThreshold = 10 },
	} {
		for way, configure := range ways {
			b := newRegister(t, configure)
			sub := b.subscribe("cus_2", "price_sum")
			b.ChangeSubscription(sub.ID, change)
			r := usage(-5, 3)
			r.Subject = "cus_2"
			outcome, err := b.deliver(t, r)
			if way == "increment" {
				require.Equal(t, sink.Delivered, outcome, "%s: %v", name, err)
				require.EqualValues(t, 3, b.billed("cus_2"))
				continue
			}
			require.Equal(t, sink.Pending, outcome, name)
			require.ErrorContains(t, err, "has billing thresholds")
			require.Zero(t, b.RequestsTo(postUsage))
		}
	}
}
