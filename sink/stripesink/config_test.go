package stripesink_test

import (
	"strings"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

func config(change func(*stripesink.Config)) stripesink.Config {
	c := stripesink.Config{Key: testKey, Meters: map[string]stripesink.Meter{feature: {EventName: event}}}
	change(&c)
	return c
}

func TestValidate(t *testing.T) {
	t.Parallel()
	meter := func(m stripesink.Meter) func(*stripesink.Config) {
		return func(c *stripesink.Config) { c.Meters = map[string]stripesink.Meter{feature: m} }
	}
	tests := map[string]struct {
		change func(*stripesink.Config)
		says   string // "": no fault
	}{
		"fine":              {func(*stripesink.Config) {}, ""},
		"live":              {func(c *stripesink.Config) { c.Key = "sk_live_1" }, ""},
		"restricted":        {func(c *stripesink.Config) { c.Key = "rk_test_1" }, ""},
		"restricted live":   {func(c *stripesink.Config) { c.Key = "rk_live_1" }, ""},
		"account":           {func(c *stripesink.Config) { c.Account = "acct_1" }, ""},
		"loopback":          {func(c *stripesink.Config) { c.BaseURL = "http://127.0.0.1:12111" }, ""},
		"loopback v6":       {func(c *stripesink.Config) { c.BaseURL = "http://[::1]:12111/" }, ""},
		"gateway":           {func(c *stripesink.Config) { c.BaseURL = "https://gateway.example/stripe" }, ""},
		"longest name":      {meter(stripesink.Meter{EventName: strings.Repeat("ü", 100)}), ""},
		"no key":            {func(c *stripesink.Config) { c.Key = "" }, "Config.Key is empty"},
		"publishable key":   {func(c *stripesink.Config) { c.Key = "pk_test_1" }, "Config.Key is a publishable key"},
		"other key":         {func(c *stripesink.Config) { c.Key = "whsec_1" }, "Config.Key is no Stripe key"},
		"key with newline":  {func(c *stripesink.Config) { c.Key = testKey + "\n" }, "Config.Key is no Stripe key"},
		"key without rest":  {func(c *stripesink.Config) { c.Key = "sk_test_" }, "Config.Key is no Stripe key"},
		"live for live":     {func(c *stripesink.Config) { c.Key, c.Mode = "rk_live_1", stripesink.LiveMode }, ""},
		"test for test":     {func(c *stripesink.Config) { c.Mode = stripesink.TestMode }, ""},
		"live for test":     {func(c *stripesink.Config) { c.Key, c.Mode = "sk_live_1", stripesink.TestMode }, "Config.Mode is test, and Key is a live key"},
		"test for live":     {func(c *stripesink.Config) { c.Mode = stripesink.LiveMode }, "Config.Mode is live, and Key is a test key"},
		"other mode":        {func(c *stripesink.Config) { c.Mode = "prod" }, `Config.Mode is "prod": use TestMode, LiveMode`},
		"key as mode":       {func(c *stripesink.Config) { c.Mode = "sk_live_canary" }, `Config.Mode is "[key]"`},
		"no meters":         {func(c *stripesink.Config) { c.Meters = nil }, "Config.Meters is empty"},
		"no feature":        {func(c *stripesink.Config) { c.Meters[""] = stripesink.Meter{EventName: "x"} }, `Config.Meters[""] has no feature`},
		"no event name":     {meter(stripesink.Meter{}), `Config.Meters["tax-report"].EventName is empty`},
		"long event name":   {meter(stripesink.Meter{EventName: strings.Repeat("ü", 101)}), "EventName has 101 characters"},
		"customer brackets": {meter(stripesink.Meter{EventName: event, CustomerKey: "a[b]"}), "CustomerKey is \"a[b]\""},
		"value brackets":    {meter(stripesink.Meter{EventName: event, ValueKey: "a]"}), "ValueKey is \"a]\""},
		"one for both":      {meter(stripesink.Meter{EventName: event, CustomerKey: "value"}), `has "value" as both`},
		"bad account":       {func(c *stripesink.Config) { c.Account = "main" }, "Config.Account is no account ID"},
		"plain http":        {func(c *stripesink.Config) { c.BaseURL = "http://api.stripe.com" }, "Config.BaseURL must start with https://"},
		"private network":   {func(c *stripesink.Config) { c.BaseURL = "http://10.0.0.1" }, "Config.BaseURL must start with https://"},
		"looks like lo":     {func(c *stripesink.Config) { c.BaseURL = "http://localhost.example" }, "Config.BaseURL must start with https://"},
		"other scheme":      {func(c *stripesink.Config) { c.BaseURL = "ftp://localhost" }, "Config.BaseURL must start with https://"},
		"no host":           {func(c *stripesink.Config) { c.BaseURL = "https://" }, "Config.BaseURL is no URL"},
		"no URL":            {func(c *stripesink.Config) { c.BaseURL = "https://a b" }, "Config.BaseURL is no URL"},
		"password":          {func(c *stripesink.Config) { c.BaseURL = "https://u:canary@x.example" }, "Config.BaseURL holds a user"},
		"query":             {func(c *stripesink.Config) { c.BaseURL = "https://x.example?a=canary" }, "Config.BaseURL holds a query"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stripesink.New(config(test.change))
			if test.says == "" {
				require.NoError(t, s.Validate())
				return
			}
			require.ErrorContains(t, s.Validate(), test.says)
			require.NotContains(t, s.Validate().Error(), "canary")

			err := s.Deliver(t.Context(), []sink.Record{record(0, 1)})
			require.ErrorIs(t, err, sink.ErrNotApplied)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, s.Prepare(t.Context(), nil), test.says)
		})
	}
}

func TestValidateReportsAllFaults(t *testing.T) {
	t.Parallel()
	err := stripesink.New(stripesink.Config{
		Account: "x", BaseURL: "http://x.example", Meters: map[string]stripesink.Meter{"a": {}, "b": {}},
	}).Validate()
	for _, field := range []string{"Key", `Meters["a"].EventName`, `Meters["b"].EventName`, "Account", "BaseURL"} {
		require.ErrorContains(t, err, "Config."+field)
	}
}

func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	client, stop := b.Pipe()
	t.Cleanup(stop)
	cfg := config(func(c *stripesink.Config) { c.HTTPClient = client })
	cfg.BaseURL = "http://localhost"
	given, transport := *client, client.Transport
	s := stripesink.New(cfg)
	cfg.Meters[feature] = stripesink.Meter{}
	delete(cfg.Meters, feature)
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(0, 1)}))
	require.Equal(t, given.Timeout, client.Timeout)
	require.Nil(t, client.CheckRedirect)
	require.Same(t, transport, client.Transport)
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"sk_test_1": "stripe:test", "rk_test_1": "stripe:test", "sk_live_1": "stripe:live", "rk_live_1": "stripe:live",
	} {
		s := stripesink.New(config(func(c *stripesink.Config) { c.Key = key }))
		require.Equal(t, want, s.Address())
		s = stripesink.New(config(func(c *stripesink.Config) { c.Key, c.Account = key, "acct_1" }))
		require.Equal(t, want+"/acct_1", s.Address())
	}
	s := stripesink.New(config(func(c *stripesink.Config) { c.Account = testKey }))
	require.Equal(t, "stripe:test", s.Address(), "a key put into the wrong field must not show")
}

func TestLimits(t *testing.T) {
	t.Parallel()
	live := stripesink.New(config(func(c *stripesink.Config) { c.Key = "rk_live_1" })).Limits()
	require.EqualValues(t, 800, live.Rate)
	test := newSink(nil).Limits()
	require.EqualValues(t, 20, test.Rate)
	require.Less(t, test.Concurrency, live.Concurrency)
	require.Equal(t, []sink.Kind{sink.Sum, sink.Last}, newSink(nil).Kinds())
}
