package stripesink_test

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// shop is a Stripe in which nothing is for sale yet.
type shop struct {
	*stripetest.Server
	t      *testing.T
	client *http.Client
}

func newShop(t *testing.T, meters ...stripetest.Meter) *shop {
	t.Helper()
	s := &shop{Server: stripetest.New(meters...), t: t}
	s.Key = testKey
	client, stop := s.Pipe()
	t.Cleanup(stop)
	s.client = client
	return s
}

// config has one tariff of each sort.
func (s *shop) config() stripesink.ProvisionConfig {
	return stripesink.ProvisionConfig{
		Key:      testKey,
		Product:  stripesink.Product{ID: "tax-suite", Name: "Tax Suite", CryptolensID: 3349},
		Currency: "usd",
		Tariffs: map[string]stripesink.Tariff{
			"import": {
				UnitAmount: "12.5", LookupKey: "import-2026",
				License: `{ "F3": true, "MaxNoOfMachines": 1 }`,
			},
			"seats": {
				Meter: stripesink.Meter{EventName: "seats"}, TimeWindow: stripesink.HourWindow, UnitAmount: "0.001",
			},
			"tax-report": {
				Meter:  stripesink.Meter{EventName: "tax_report", CustomerKey: "who", ValueKey: "n"},
				Tiers:  []stripesink.Tier{{UpTo: 100}, {UpTo: 1000, UnitAmount: "25", FlatAmount: "500"}, {UnitAmount: "12.5"}},
				Volume: true,
			},
		},
		BaseURL:    stripetest.URL,
		HTTPClient: s.client,
	}
}

// list reads a list of Stripe's.
func (s *shop) list(path string) []map[string]any {
	t := s.t
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, stripetest.URL+path, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+testKey)
	resp, err := s.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var list struct{ Data []map[string]any }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&list))
	return list.Data
}

// wantOnce requires that Stripe has all of config, and nothing else.
func (s *shop) wantOnce() {
	s.t.Helper()
	require.Len(s.t, s.list("/v1/prices?limit=100"), 3)
	require.Len(s.t, s.list("/v1/billing/meters?limit=100"), 2)
}

func (s *shop) writes() int {
	return s.RequestsTo("POST /v1/products") + s.RequestsTo("POST /v1/prices") + s.RequestsTo("POST /v1/billing/meters")
}

func TestProvision(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	made, err := stripesink.Provision(t.Context(), s.config())
	require.NoError(t, err)
	s.wantOnce()
	require.Len(t, made.Created, 6)
	require.Equal(t, "tax-suite", made.Product)
	require.Equal(t, map[string]stripesink.Meter{
		"seats":      {EventName: "seats", CustomerKey: "stripe_customer_id", ValueKey: "value"},
		"tax-report": {EventName: "tax_report", CustomerKey: "who", ValueKey: "n"},
	}, made.Meters)

	meterID := map[any]any{}
	for _, m := range s.list("/v1/billing/meters") {
		meterID[m["event_name"]] = m["id"]
		require.Equal(t, map[string]any{"formula": "sum"}, m["default_aggregation"])
		window := any(nil)
		if m["event_name"] == "seats" {
			window = "hour"
		}
		require.Equal(t, window, m["event_time_window"])
	}
	prices := map[any]map[string]any{}
	for _, p := range s.list("/v1/prices?expand[]=data.tiers") {
		require.Equal(t, "tax-suite", p["product"])
		require.Equal(t, "usd", p["currency"])
		prices[p["id"]] = p
	}
	legacy := prices[made.Prices["import"]]
	require.Equal(t, "12.5", legacy["unit_amount_decimal"])
	require.Equal(t, "import-2026", legacy["lookup_key"])
	require.Equal(t, map[string]any{"skm": `{"F3":true,"MaxNoOfMachines":1}`}, legacy["metadata"])
	require.Subset(t, legacy["recurring"], map[string]any{"usage_type": "metered", "aggregate_usage": "sum", "meter": nil, "interval": "month"})
	seats := prices[made.Prices["seats"]]
	require.Equal(t, "0.001", seats["unit_amount_decimal"])
	require.Equal(t, "tax-suite-seats", seats["lookup_key"])
	require.Subset(t, seats["recurring"], map[string]any{"usage_type": "metered", "aggregate_usage": nil, "meter": meterID["seats"]})
	tiered := prices[made.Prices["tax-report"]]
	require.Equal(t, "volume", tiered["tiers_mode"])
	require.Equal(t, []any{
		map[string]any{"up_to": 100.0, "unit_amount": 0.0, "unit_amount_decimal": "0", "flat_amount": nil, "flat_amount_decimal": nil},
		map[string]any{"up_to": 1000.0, "unit_amount": 25.0, "unit_amount_decimal": "25", "flat_amount": 500.0, "flat_amount_decimal": "500"},
		map[string]any{"up_to": nil, "unit_amount": nil, "unit_amount_decimal": "12.5", "flat_amount": nil, "flat_amount_decimal": nil},
	}, tiered["tiers"])

	writes := s.writes()
	again, err := stripesink.Provision(t.Context(), s.config())
	require.NoError(t, err)
	require.Nil(t, again.Created)
	require.Equal(t, made.Prices, again.Prices)
	require.Equal(t, made.Meters, again.Meters)
	require.Equal(t, writes, s.writes())
}

// What was made fits what the sink needs.
func TestProvisionedMetersPrepare(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	made, err := stripesink.Provision(t.Context(), s.config())
	require.NoError(t, err)
	k := stripesink.New(stripesink.Config{Key: testKey, Meters: made.Meters, BaseURL: stripetest.URL, HTTPClient: s.client})
	require.NoError(t, k.Validate())
	require.NoError(t, k.Prepare(t.Context(), []sink.Feature{{Name: "tax-report"}, {Name: "seats", Kind: sink.Last}}))
}

// requestsOf is how many requests a run takes that meets no fault.
func requestsOf(t *testing.T, run func(t *testing.T, s *shop)) (n int) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t)
		run(t, s)
		n = s.Requests()
	})
	return n
}

// Every fault strikes every request of the first run. However often it is run again,
// there is one of each thing.
func TestProvisionAfterEveryFault(t *testing.T) {
	t.Parallel()
	steps := requestsOf(t, func(t *testing.T, s *shop) {
		_, err := stripesink.Provision(t.Context(), s.config())
		require.NoError(t, err)
	})
	require.Greater(t, steps, 10)
	for _, fault := range everyFault {
		inBubble(t, fault.String(), func(t *testing.T) {
			for step := range steps {
				s := newShop(t)
				for range step {
					s.Script(stripetest.Fault{})
				}
				s.Script(fault)
				failures := 0
				for {
					made, err := stripesink.Provision(t.Context(), s.config())
					if err == nil {
						require.Len(t, made.Prices, 3)
						break
					}
					require.NotErrorIs(t, err, stripesink.ErrDiffers)
					failures++
					require.Less(t, failures, 3, "%v", err)
				}
				require.Equal(t, 1, s.Fired())
				s.wantOnce()
			}
		})
	}
}

// Stripe repeats a 500 for a day, which must not keep a vendor waiting for a day.
func TestProvisionStepsOverStoredAnswers(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for n := range 5 {
		for range n { // what is stored comes first
			s.Script(stripetest.Fault{On: "POST /v1/prices"})
		}
		s.Script(stripetest.Fault{Answer: stripetest.Error500, On: "POST /v1/prices"})
		_, err := stripesink.Provision(t.Context(), s.config())
		require.ErrorContains(t, err, "making price", n)
		require.ErrorContains(t, err, "(status 500)")
	}
	made, err := stripesink.Provision(t.Context(), s.config())
	require.NoError(t, err)
	require.Len(t, made.Created, 5, "all but the product, which was there")
	s.wantOnce()
}

func TestProvisionAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() { _, _ = stripesink.Provision(context.Background(), s.config()) })
	}
	running.Wait()
	_, err := stripesink.Provision(t.Context(), s.config())
	require.NoError(t, err)
	s.wantOnce()
}

func TestProvisionFindsDifferences(t *testing.T) {
	t.Parallel()
	type cfg = stripesink.ProvisionConfig
	tariff := func(feature string, change func(*stripesink.Tariff)) func(*cfg) {
		return func(c *cfg) {
			t := c.Tariffs[feature]
			change(&t)
			c.Tariffs[feature] = t
		}
	}
	theirs := map[string]struct {
		change func(*shop, stripesink.Provisioned)
		says   string
	}{
		"archived product": {func(s *shop, _ stripesink.Provisioned) {
			s.ChangeProduct("tax-suite", func(p *stripetest.Product) { p.Archived = true })
		}, "product (tax-suite): it is archived"},
		"other product of Cryptolens": {func(s *shop, _ stripesink.Provisioned) {
			s.ChangeProduct("tax-suite", func(p *stripetest.Product) { p.Metadata = map[string]string{"skm_product_id": "1"} })
		}, `its metadata skm_product_id is "1", not "3349"`},
		"archived price": {func(s *shop, p stripesink.Provisioned) {
			s.ChangePrice(p.Prices["import"], func(p *stripetest.Price) { p.Archived = true })
		}, "it is archived"},
		"licensed price": {func(s *shop, p stripesink.Provisioned) {
			s.ChangePrice(p.Prices["import"], func(p *stripetest.Price) { p.UsageType = "licensed" })
		}, `its usage_type is "licensed", not "metered"`},
		"price of a quarter": {func(s *shop, p stripesink.Provisioned) {
			s.ChangePrice(p.Prices["import"], func(p *stripetest.Price) { p.IntervalCount = 3 })
		}, "its interval_count is 3, not 1"},
		"price of another product": {func(s *shop, p stripesink.Provisioned) {
			s.ChangePrice(p.Prices["import"], func(p *stripetest.Price) { p.Product = "prod_other" })
		}, "it belongs to another product than tax-suite"},
		"price of another meter": {func(s *shop, p stripesink.Provisioned) {
			s.ChangePrice(p.Prices["seats"], func(p *stripetest.Price) { p.Meter = "mtr_other" })
		}, `its meter is "mtr_other", not "mtr_`},
		"inactive meter": {func(s *shop, _ stripesink.Provisioned) {
			id := s.meterID("seats")
			s.ChangeMeter(id, func(m *stripetest.Meter) { m.Status = "inactive" })
		}, `its status is "inactive", not "active"`},
	}
	ours := map[string]struct {
		change func(*cfg)
		says   string
	}{
		"name":      {func(c *cfg) { c.Product.Name = "Tax" }, `its name is "Tax Suite", not "Tax"`},
		"currency":  {func(c *cfg) { c.Currency = "eur" }, `its currency is "usd", not "eur"`},
		"amount":    {tariff("import", func(t *stripesink.Tariff) { t.UnitAmount = "12.500000000001" }), "its unit_amount_decimal is 12.5, not 12.500000000001"},
		"license":   {tariff("import", func(t *stripesink.Tariff) { t.License = `{"F3":false}` }), `its metadata skm is`},
		"aggregate": {tariff("import", func(t *stripesink.Tariff) { t.Aggregate = stripesink.AggregateMax }), `its aggregate_usage is "sum", not "max"`},
		"interval":  {tariff("import", func(t *stripesink.Tariff) { t.Interval = "year" }), `its interval is "month", not "year"`},
		"to legacy": {tariff("seats", func(t *stripesink.Tariff) { t.Meter, t.TimeWindow = stripesink.Meter{}, "" }), `its meter is "mtr_`},
		"to tiers": {tariff("import", func(t *stripesink.Tariff) {
			t.UnitAmount, t.Tiers = "", []stripesink.Tier{{UnitAmount: "12.5"}}
		}), `its billing_scheme is "per_unit", not "tiered"`},
		"window":                    {tariff("seats", func(t *stripesink.Tariff) { t.TimeWindow = stripesink.DayWindow }), `its event_time_window is "hour", not "day"`},
		"formula":                   {tariff("seats", func(t *stripesink.Tariff) { t.Aggregate = stripesink.AggregateLast }), `its formula is "sum", not "last"`},
		"keys":                      {tariff("tax-report", func(t *stripesink.Tariff) { t.Meter.ValueKey = "value" }), `its value_settings.event_payload_key is "n", not "value"`},
		"other meter for the price": {tariff("seats", func(t *stripesink.Tariff) { t.Meter.EventName = "new" }), `there is no meter of event name "new"`},
		"graduated":                 {tariff("tax-report", func(t *stripesink.Tariff) { t.Volume = false }), `its tiers_mode is "volume", not "graduated"`},
		"tier":                      {tariff("tax-report", func(t *stripesink.Tariff) { t.Tiers[1].FlatAmount = "" }), "its tiers[1].flat_amount_decimal is 500, not 0"},
		"tier's end":                {tariff("tax-report", func(t *stripesink.Tariff) { t.Tiers[0].UpTo = 99 }), "its tiers[0].up_to is 100, not 99"},
		"fewer":                     {tariff("tax-report", func(t *stripesink.Tariff) { t.Tiers = t.Tiers[2:] }), "its number of tiers is 3, not 1"},
	}
	check := func(t *testing.T, s *shop, c cfg, says string) {
		c.Tariffs["more"] = stripesink.Tariff{UnitAmount: "1"} // is missing, and must not be made
		before := s.writes()
		made, err := stripesink.Provision(t.Context(), c)
		require.ErrorIs(t, err, stripesink.ErrDiffers)
		require.ErrorContains(t, err, says)
		require.Empty(t, made)
		require.Equal(t, before, s.writes())
	}
	for name, test := range theirs {
		t.Run("in Stripe/"+name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			made, err := stripesink.Provision(t.Context(), s.config())
			require.NoError(t, err)
			test.change(s, made)
			check(t, s, s.config(), test.says)
		})
	}
	for name, test := range ours {
		t.Run("in the configuration/"+name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			_, err := stripesink.Provision(t.Context(), s.config())
			require.NoError(t, err)
			c := s.config()
			test.change(&c)
			check(t, s, c, test.says)
		})
	}
	t.Run("all at once", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		_, err := stripesink.Provision(t.Context(), s.config())
		require.NoError(t, err)
		c := s.config()
		for _, test := range []string{"name", "currency", "window", "tier"} {
			ours[test].change(&c)
		}
		for _, test := range []string{"name", "currency", "window", "tier"} {
			check(t, s, c, ours[test].says)
		}
	})
	t.Run("of mode", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		_, err := stripesink.Provision(t.Context(), s.config())
		require.NoError(t, err)
		s.Live = true
		c := s.config()
		c.BaseURL, c.HTTPClient = gateway(s.client)
		check(t, s, c, "it belongs to live mode, and the key to test mode")
	})
}

func (s *shop) meterID(eventName string) string {
	for _, m := range s.list("/v1/billing/meters") {
		if m["event_name"] == eventName {
			return m["id"].(string)
		}
	}
	return ""
}

// gateway leads to the same Stripe from afar, where it must say by which key it acts.
func gateway(client *http.Client) (url string, through *http.Client) {
	return "https://gateway.example", &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Scheme = "http"
		return client.Transport.RoundTrip(r)
	})}
}

// The order of fields says nothing.
func TestProvisionComparesLicensesByMeaning(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	_, err := stripesink.Provision(t.Context(), s.config())
	require.NoError(t, err)
	c := s.config()
	i := c.Tariffs["import"]
	i.License = "{\"MaxNoOfMachines\":1,\n\"F3\":true}"
	c.Tariffs["import"] = i
	_, err = stripesink.Provision(t.Context(), c)
	require.NoError(t, err)
}

func TestProvisionEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := stripesink.Provision(ctx, s.config())
	require.ErrorContains(t, err, "context canceled")
	require.Zero(t, s.Requests())
}

// A forbidden key, and a list that is cut short, must not pass for an empty account.
func TestProvisionNeedsPermissions(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"GET /v1/products/{id}", "GET /v1/billing/meters", "GET /v1/prices", "POST /v1/products"} {
		s := newShop(t)
		s.Forbid(endpoint)
		_, err := stripesink.Provision(t.Context(), s.config())
		require.ErrorContains(t, err, "(status 403)", endpoint)
		require.Zero(t, s.RequestsTo("POST /v1/prices"))
	}
}
