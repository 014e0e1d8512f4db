package stripesink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

func usageConfig(change func(*stripesink.UsageRecordsConfig)) stripesink.UsageRecordsConfig {
	c := stripesink.UsageRecordsConfig{Key: testKey, Prices: map[string][]string{feature: {"price_1"}}}
	if change != nil {
		change(&c)
	}
	return c
}

func TestValidateUsageRecords(t *testing.T) {
	t.Parallel()
	type config = stripesink.UsageRecordsConfig
	prices := func(ids ...string) func(*config) { return func(c *config) { c.Prices[feature] = ids } }
	tests := map[string]struct {
		change func(*config)
		says   string // "": no fault
	}{
		"fine":               {nil, ""},
		"many instances":     {func(c *config) { c.Instances = 60 }, ""},
		"several prices":     {prices("price_1", "price_2"), ""},
		"plan of old":        {prices("gold-2019"), ""},
		"restamp":            {func(c *config) { c.Late = stripesink.RestampLate }, ""},
		"metadata":           {func(c *config) { c.SubjectMetadata = "skm_key_id" }, ""},
		"test mode":          {func(c *config) { c.Mode = stripesink.TestMode }, ""},
		"live mode":          {func(c *config) { c.Mode = stripesink.LiveMode }, "UsageRecordsConfig.Mode is live, and Key is a test key"},
		"no key":             {func(c *config) { c.Key = "" }, "UsageRecordsConfig.Key is empty"},
		"no prices":          {func(c *config) { c.Prices = nil }, "UsageRecordsConfig.Prices is empty"},
		"no feature":         {func(c *config) { c.Prices[""] = []string{"price_2"} }, `UsageRecordsConfig.Prices[""] has no feature`},
		"no price":           {prices(), `Prices["tax-report"] is empty`},
		"empty price":        {prices(""), `Prices["tax-report"] has something that is no ID of a price`},
		"path":               {prices("../x"), "no ID of a price"},
		"key as price":       {prices("sk_test_canary"), "no ID of a price"},
		"product":            {prices("prod_1"), "has the ID of a product"},
		"price twice":        {prices("price_1", "price_1"), `too: records of both would overwrite each other`},
		"price of another":   {func(c *config) { c.Prices["export"] = []string{"price_1"} }, `Prices["tax-report"] has a price that is in Prices["export"], too`},
		"shared, increments": {func(c *config) { c.Prices["export"], c.Increment = []string{"price_1"}, true }, ""},
		"negative instances": {func(c *config) { c.Instances = -1 }, "UsageRecordsConfig.Instances is -1"},
		"too many instances": {func(c *config) { c.Instances = 61 }, "UsageRecordsConfig.Instances is 61"},
		"unknown policy":     {func(c *config) { c.Late = 2 }, "UsageRecordsConfig.Late is 2"},
		"metadata with '":    {func(c *config) { c.SubjectMetadata = "a'b" }, "UsageRecordsConfig.SubjectMetadata is no field"},
		"long metadata":      {func(c *config) { c.SubjectMetadata = strings.Repeat("a", 41) }, "SubjectMetadata"},
		"bad account":        {func(c *config) { c.Account = "main" }, "UsageRecordsConfig.Account is no account ID"},
		"plain http":         {func(c *config) { c.BaseURL = "http://api.stripe.com" }, "UsageRecordsConfig.BaseURL must start with https://"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stripesink.NewUsageRecords(usageConfig(test.change))
			if test.says == "" {
				require.NoError(t, s.Validate())
				return
			}
			require.ErrorContains(t, s.Validate(), test.says)
			require.NotContains(t, s.Validate().Error(), "canary")
			err := s.Deliver(t.Context(), []sink.Record{usage(0, 1)})
			require.ErrorIs(t, err, sink.ErrNotApplied)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, s.Prepare(t.Context(), nil), test.says)
			_, err = s.Usage(t.Context(), feature, customer, start, start.Add(time.Hour))
			require.ErrorContains(t, err, test.says)
		})
	}
}

func TestUsageRecordsConfigIsCopied(t *testing.T) {
	t.Parallel()
	var cfg stripesink.UsageRecordsConfig
	b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { cfg = *c })
	cfg.Prices[feature][0] = "price_x"
	cfg.Prices["other"] = nil
	delete(cfg.Prices, feature)
	outcome, err := b.deliver(t, usage(-5, 1))
	require.Equal(t, sink.Delivered, outcome, "%v", err)
}

// A record in doubt must go where it went before, and that is part of the address.
func TestAddressOfUsageRecords(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*stripesink.UsageRecordsConfig){
		"stripe:test/usage-records/1":         nil,
		"stripe:live/usage-records/1":         func(c *stripesink.UsageRecordsConfig) { c.Key, c.Instances = "rk_live_1", 1 },
		"stripe:test/acct_1/usage-records/3":  func(c *stripesink.UsageRecordsConfig) { c.Account, c.Instances = "acct_1", 3 },
		"stripe:test/usage-records/increment": func(c *stripesink.UsageRecordsConfig) { c.Increment, c.Instances = true, 3 },
	} {
		require.Equal(t, want, stripesink.NewUsageRecords(usageConfig(change)).Address())
	}
}

func TestLimitsOfUsageRecords(t *testing.T) {
	t.Parallel()
	limits := func(change func(*stripesink.UsageRecordsConfig)) sink.Limits {
		return stripesink.NewUsageRecords(usageConfig(change)).Limits()
	}
	set := limits(nil)
	require.EqualValues(t, 20, set.Rate)
	require.Equal(t, sink.Forever, set.DedupeWindow)
	require.Equal(t, 3*time.Second, set.MinWindow)
	require.Equal(t, 62*time.Second, limits(func(c *stripesink.UsageRecordsConfig) { c.Instances = 60 }).MinWindow)
	require.Greater(t, limits(func(c *stripesink.UsageRecordsConfig) { c.Key = "sk_live_1" }).Concurrency, set.Concurrency)
	added := limits(increment)
	require.Equal(t, 24*time.Hour, added.DedupeWindow)
	require.Zero(t, added.MinWindow)
	require.Len(t, stripesink.NewUsageRecords(usageConfig(nil)).Kinds(), 3)
}
