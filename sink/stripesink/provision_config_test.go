package stripesink_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

func provisionConfig(change func(*stripesink.ProvisionConfig)) stripesink.ProvisionConfig {
	c := stripesink.ProvisionConfig{
		Key: testKey, Product: stripesink.Product{ID: "p", Name: "P"}, Currency: "usd",
		Tariffs: map[string]stripesink.Tariff{}, BaseURL: "http://127.0.0.1:1", // nobody listens
	}
	change(&c)
	if len(c.Tariffs) == 0 {
		c.Tariffs["fine"] = stripesink.Tariff{UnitAmount: "1"}
	}
	return c
}

func TestProvisionValidates(t *testing.T) {
	t.Parallel()
	type cfg = stripesink.ProvisionConfig
	meter := stripesink.Meter{EventName: event}
	tariff := func(t stripesink.Tariff) func(*cfg) { return func(c *cfg) { c.Tariffs["f"] = t } }
	free := func(t stripesink.Tariff) func(*cfg) { t.UnitAmount = "0"; return tariff(t) }
	tiers := func(tiers ...stripesink.Tier) func(*cfg) { return tariff(stripesink.Tariff{Tiers: tiers}) }
	const fine = "connection refused"
	for name, test := range map[string]struct {
		change func(*cfg)
		says   string
	}{
		"fine":              {func(*cfg) {}, fine},
		"no key":            {func(c *cfg) { c.Key = "" }, "ProvisionConfig.Key is empty"},
		"live key":          {func(c *cfg) { c.Key, c.Mode = "sk_live_1", stripesink.TestMode }, "ProvisionConfig.Mode is test, and Key is a live key"},
		"plain URL":         {func(c *cfg) { c.BaseURL = "http://api.stripe.com" }, "ProvisionConfig.BaseURL must start with https://"},
		"no product":        {func(c *cfg) { c.Product.ID = "" }, "ProvisionConfig.Product.ID is no ID"},
		"product as a path": {func(c *cfg) { c.Product.ID = "a/../b" }, "ProvisionConfig.Product.ID is no ID"},
		"no name":           {func(c *cfg) { c.Product.Name = "" }, "ProvisionConfig.Product.Name is empty"},
		"negative product":  {func(c *cfg) { c.Product.CryptolensID = -1 }, "ProvisionConfig.Product.CryptolensID is negative"},
		"currency":          {func(c *cfg) { c.Currency = "USD" }, "ProvisionConfig.Currency is no currency"},
		"no feature":        {func(c *cfg) { c.Tariffs[""] = stripesink.Tariff{UnitAmount: "1"} }, `ProvisionConfig.Tariffs[""] has no feature`},
		"one lookup key": {func(c *cfg) {
			c.Tariffs["a"] = stripesink.Tariff{UnitAmount: "1"}
			c.Tariffs["b"] = stripesink.Tariff{UnitAmount: "1", LookupKey: "p-a"}
		}, `Tariffs["b"].LookupKey is that of feature "a", too`},
		"one meter": {func(c *cfg) {
			c.Tariffs["a"] = stripesink.Tariff{UnitAmount: "1", Meter: meter}
			c.Tariffs["b"] = stripesink.Tariff{UnitAmount: "1", Meter: meter}
		}, `Tariffs["b"].Meter.EventName is that of feature "a", too`},
		"long lookup key":        {free(stripesink.Tariff{LookupKey: strings.Repeat("x", 201)}), "LookupKey has 201 characters"},
		"meter without a name":   {free(stripesink.Tariff{Meter: stripesink.Meter{ValueKey: "n"}}), `Tariffs["f"].Meter.EventName is empty`},
		"window without a meter": {free(stripesink.Tariff{TimeWindow: stripesink.HourWindow}), "TimeWindow is set without Meter"},
		"other window":           {free(stripesink.Tariff{Meter: meter, TimeWindow: "week"}), `TimeWindow is "week"`},
		"max of a meter":         {free(stripesink.Tariff{Meter: meter, Aggregate: stripesink.AggregateMax}), "which no billing meter knows"},
		"last ever of a meter":   {free(stripesink.Tariff{Meter: meter, Aggregate: stripesink.AggregateLastEver}), "which no billing meter knows"},
		"last ever":              {free(stripesink.Tariff{Aggregate: stripesink.AggregateLastEver}), fine},
		"other aggregate":        {free(stripesink.Tariff{Aggregate: "avg"}), `Aggregate is "avg"`},
		"interval":               {free(stripesink.Tariff{Interval: "hour"}), `Interval is "hour"`},
		"license":                {free(stripesink.Tariff{License: `{"F3":`}), "License is no JSON object"},
		"license null":           {free(stripesink.Tariff{License: `null`}), "License is no JSON object"},
		"license list":           {free(stripesink.Tariff{License: `[1]`}), "License is no JSON object"},
		"license with a tail":    {free(stripesink.Tariff{License: `{} {}`}), "License is no JSON object"},
		"long license":           {free(stripesink.Tariff{License: `{"a":"` + strings.Repeat("x", 493) + `"}`}), "License has 501 bytes"},
		"longest license":        {free(stripesink.Tariff{License: `{"a":  "` + strings.Repeat("x", 492) + `"}`}), fine},
		"no amount":              {tariff(stripesink.Tariff{}), "UnitAmount is empty, and there are no Tiers"},
		"amount as dollars":      {tariff(stripesink.Tariff{UnitAmount: "$1"}), `UnitAmount is "$1"`},
		"negative amount":        {tariff(stripesink.Tariff{UnitAmount: "-1"}), `UnitAmount is "-1"`},
		"exponent":               {tariff(stripesink.Tariff{UnitAmount: "1e3"}), `UnitAmount is "1e3"`},
		"13 digits":              {tariff(stripesink.Tariff{UnitAmount: "1234567890123"}), "12 digits before the point"},
		"13 decimals":            {tariff(stripesink.Tariff{UnitAmount: "0.0000000000001"}), "12 decimals"},
		"16 digits":              {tariff(stripesink.Tariff{UnitAmount: "1234.567890123456"}), "15 digits"},
		"15 digits":              {tariff(stripesink.Tariff{UnitAmount: "123.456789012345"}), fine},
		"amount and tiers":       {tariff(stripesink.Tariff{UnitAmount: "1", Tiers: []stripesink.Tier{{}}}), "UnitAmount is set, and Tiers, too"},
		"volume without tiers":   {free(stripesink.Tariff{Volume: true}), "Volume is set without Tiers"},
		"one tier":               {tiers(stripesink.Tier{UnitAmount: "1"}), fine},
		"end of the last tier":   {tiers(stripesink.Tier{UpTo: 1}), "Tiers[0].UpTo is 1: the last tier has no end"},
		"tiers without an end":   {tiers(stripesink.Tier{}, stripesink.Tier{}), "Tiers[0].UpTo is 0: it must be above 0"},
		"tiers that fall":        {tiers(stripesink.Tier{UpTo: 5}, stripesink.Tier{UpTo: 5}, stripesink.Tier{}), "Tiers[1].UpTo is 5: it must be above 5"},
		"flat amount":            {tiers(stripesink.Tier{FlatAmount: "x"}), `Tiers[0].FlatAmount is "x"`},
		"tier's amount":          {tiers(stripesink.Tier{UnitAmount: "x"}), `Tiers[0].UnitAmount is "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := stripesink.Provision(t.Context(), provisionConfig(test.change))
			require.ErrorContains(t, err, test.says)
			require.Empty(t, made.Created)
		})
	}
	_, err := stripesink.Provision(t.Context(), stripesink.ProvisionConfig{})
	for _, field := range []string{"Key", "Product.ID", "Product.Name", "Currency", "Tariffs"} {
		require.ErrorContains(t, err, "ProvisionConfig."+field)
	}
}

func TestSubscribeValidates(t *testing.T) {
	t.Parallel()
	_, err := stripesink.Subscribe(t.Context(), stripesink.SubscribeConfig{})
	for _, words := range []string{"Key is empty", "Customer is no customer ID", "Prices is empty"} {
		require.ErrorContains(t, err, "SubscribeConfig."+words)
	}
	_, err = stripesink.Subscribe(t.Context(), stripesink.SubscribeConfig{
		Key: testKey, Mode: stripesink.LiveMode, BaseURL: "x", Customer: "sub_1", Prices: []string{"a", "a", "../b"},
		LicenseKeyID: "AAAA-BBBB CCCC",
	})
	for _, words := range []string{
		"Mode is live, and Key is a test key", "BaseURL is no URL", "Customer is no customer ID",
		"Prices[1] is there twice", "Prices[2] is no price ID", "LicenseKeyID is no ID",
	} {
		require.ErrorContains(t, err, "SubscribeConfig."+words)
	}
}

// The configuration that is given may be used again.
func TestProvisionLeavesItsConfigurationAlone(t *testing.T) {
	t.Parallel()
	c := provisionConfig(func(*stripesink.ProvisionConfig) {})
	before := fmt.Sprintf("%#v", c.Tariffs)
	_, err := stripesink.Provision(t.Context(), c)
	require.Error(t, err)
	require.Equal(t, before, fmt.Sprintf("%#v", c.Tariffs))
}

func TestKeyStaysSecretWhileProvisioning(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	for _, status := range []int{200, 302, 400, 401, 403, 404, 500} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"object":"product","id":%[1]q,"name":%[1]q,"error":{"type":%[1]q,"message":%[1]q}}`, r.Header.Get("Authorization"))
		}))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.Start()
		p := provisionConfig(func(c *stripesink.ProvisionConfig) { c.BaseURL, c.HTTPClient = server.URL, server.Client() })
		s := stripesink.SubscribeConfig{
			Key: testKey, Customer: customer, Prices: []string{"p"}, BaseURL: server.URL, HTTPClient: server.Client(),
		}
		_, err := stripesink.Provision(t.Context(), p)
		_, err2 := stripesink.Subscribe(t.Context(), s)
		for _, err := range []error{err, err2} {
			require.Error(t, err)
			fmt.Fprintf(&said, "%v %+v %#v\n", err, err, fmt.Sprint(err))
		}
		fmt.Fprintf(&said, "%v %+v %#v %s\n%v %+v %#v %s\n", p, p, p, p, s, s, s, &s)
		slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "provision", p, "subscribe", s)
		for _, v := range []any{stripesink.ProvisionConfig{Key: testKey}, stripesink.SubscribeConfig{Key: testKey}} {
			encoded, err := json.Marshal(v)
			require.NoError(t, err)
			said.Write(encoded)
		}
		server.Close()
	}
	require.Contains(t, said.String(), "[key]")
	require.NotContains(t, said.String(), canary)
}
