package stripelicense_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*stripelicense.Config)
		says   []string // none: no fault
	}{
		"key alone": {change: func(*stripelicense.Config) {}},
		"all": {change: func(c *stripelicense.Config) {
			c.Key, c.Mode = "rk_live_1", stripelicense.LiveMode
			c.BaseURL, c.Features = "https://stripe.example", map[string]string{"a": "b", "c": ""}
			c.KeyMetadata, c.KeySecret, c.SubjectMetadata = "k", strings.Repeat("x", 32), "s"
			c.PastDueFor, c.Products, c.RefusePaused = time.Hour, []string{"prod_1", "own-name"}, true
			c.Statuses = []string{"active", "past_due"}
		}},
		"no key":          {func(c *stripelicense.Config) { c.Key = "" }, []string{"Config.Key is empty"}},
		"publishable key": {func(c *stripelicense.Config) { c.Key = "pk_test_canary" }, []string{"Config.Key is a publishable key"}},
		"signing secret":  {func(c *stripelicense.Config) { c.Key = "whsec_canary" }, []string{"Config.Key is no Stripe key"}},
		"live in a test":  {func(c *stripelicense.Config) { c.Key, c.Mode = "sk_live_canary", "test" }, []string{"Config.Mode is test, and Key is a live key"}},
		"test in live":    {func(c *stripelicense.Config) { c.Mode = stripelicense.LiveMode }, []string{"Config.Mode is live, and Key is a test key"}},
		"mode":            {func(c *stripelicense.Config) { c.Mode = "sandbox" }, []string{`Config.Mode is "sandbox"`}},
		"key as mode":     {func(c *stripelicense.Config) { c.Mode = apiKey }, []string{`Config.Mode is "[key]"`}},
		"plain HTTP":      {func(c *stripelicense.Config) { c.BaseURL = "http://stripe.example" }, []string{"Config.BaseURL must start with https://"}},
		"no feature":      {func(c *stripelicense.Config) { c.Features = map[string]string{"": "x"} }, []string{`Config.Features[""] has no feature`}},
		"long lookup key": {func(c *stripelicense.Config) { c.Features = map[string]string{"f": strings.Repeat("x", 81)} }, []string{`Config.Features["f"] has a lookup_key of 81 characters`}},
		"spaced":          {func(c *stripelicense.Config) { c.Features = map[string]string{"f": " x"} }, []string{`Config.Features["f"] has a lookup_key that starts or ends`}},
		"key field":       {func(c *stripelicense.Config) { c.KeyMetadata = "license'] OR" }, []string{"Config.KeyMetadata is no field"}},
		"subject field":   {func(c *stripelicense.Config) { c.SubjectMetadata = strings.Repeat("x", 41) }, []string{"Config.SubjectMetadata is no field"}},
		"same field":      {func(c *stripelicense.Config) { c.KeyMetadata, c.SubjectMetadata = "k", "k" }, []string{"Config.SubjectMetadata is KeyMetadata, too"}},
		"short secret":    {func(c *stripelicense.Config) { c.KeyMetadata, c.KeySecret = "k", "canary" }, []string{"Config.KeySecret has 6 characters"}},
		"idle secret":     {func(c *stripelicense.Config) { c.KeySecret = strings.Repeat("canary", 8) }, []string{"Config.KeySecret has no effect"}},
		"past due":        {func(c *stripelicense.Config) { c.PastDueFor = -1 }, []string{"Config.PastDueFor is -1ns"}},
		"idle past due":   {func(c *stripelicense.Config) { c.PastDueFor, c.Statuses = 1, []string{"active"} }, []string{"Config.PastDueFor has no effect"}},
		"price":           {func(c *stripelicense.Config) { c.Products = []string{"prod_1", "price_1"} }, []string{"Config.Products[1] is the ID of a price"}},
		"no product":      {func(c *stripelicense.Config) { c.Products = []string{""} }, []string{"Config.Products[0] is no ID"}},
		"key as product":  {func(c *stripelicense.Config) { c.Products = []string{"sk_test_canary"} }, []string{"Config.Products[0] is no ID"}},
		"status":          {func(c *stripelicense.Config) { c.Statuses = []string{"active", "Trialing"} }, []string{`Config.Statuses[1] is "Trialing"`}},
		"final status":    {func(c *stripelicense.Config) { c.Statuses = []string{"active", "canceled"} }, []string{`Config.Statuses[1] is "canceled"`, "final"}},
		"without active":  {func(c *stripelicense.Config) { c.Statuses = []string{"trialing"} }, []string{`Config.Statuses lacks "active"`}},
		"several":         {func(c *stripelicense.Config) { *c = stripelicense.Config{KeyMetadata: "?", PastDueFor: -1} }, []string{"Config.Key is", "Config.KeyMetadata", "Config.PastDueFor"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := stripelicense.Config{Key: apiKey}
			test.change(&cfg)
			c := stripelicense.NewChecker(cfg)
			if test.says == nil {
				require.NoError(t, c.Validate())
				return
			}
			a := &account{Checker: c}
			err := a.wantUnknown(t, byKey(), test.says...)
			require.Equal(t, c.Validate(), err, "no request with a faulty Config")
			require.Equal(t, len(test.says) == 1 || name == "final status", !strings.Contains(err.Error(), "\n"), "one line each: %v", err)
		})
	}
}

func TestAddressTellsWhoIsFoundAndNoSecrets(t *testing.T) {
	t.Parallel()
	address := func(change func(*stripelicense.Config)) string {
		cfg := stripelicense.Config{Key: apiKey}
		change(&cfg)
		return stripelicense.NewChecker(cfg).Address()
	}
	require.Equal(t, "stripe:test", address(func(c *stripelicense.Config) { c.Features = map[string]string{feature: lookupKey} }))
	seen := map[string]string{}
	for name, change := range map[string]func(*stripelicense.Config){
		"default":   func(*stripelicense.Config) {},
		"live":      func(c *stripelicense.Config) { c.Key = "sk_live_canary4711" },
		"key":       func(c *stripelicense.Config) { c.KeyMetadata = "k" },
		"digest":    func(c *stripelicense.Config) { c.KeyMetadata, c.KeySecret = "k", strings.Repeat("canary", 8) },
		"misplaced": func(c *stripelicense.Config) { c.KeyMetadata = apiKey },
		"subject":   func(c *stripelicense.Config) { c.SubjectMetadata = "s" },
	} {
		got := address(change)
		require.NotContains(t, got, "canary")
		require.NotContains(t, seen, got, name+" is as "+seen[got])
		seen[got] = name
	}
	require.Empty(t, stripelicense.NewChecker(stripelicense.Config{Key: "canary", KeyMetadata: "k"}).Address(), "of a faulty Config")
}

// What the caller does to his maps afterwards changes nothing.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	features, statuses, products := map[string]string{feature: ""}, []string{"active"}, []string{"prod_1"}
	a := newAccount(t, func(c *stripelicense.Config) { c.Features, c.Statuses, c.Products = features, statuses, products })
	a.subscribe(nil)
	features[feature], statuses[0], products[0] = "x", "paused", "prod_2"
	a.wantAllowed(t, bySubject())
}

func TestPrintedWithoutSecrets(t *testing.T) {
	t.Parallel()
	cfg := stripelicense.Config{Key: apiKey, KeyMetadata: "license_key", KeySecret: "canary-canary-canary-canary-4711", Features: map[string]string{"f": apiKey}}
	hook := stripelicense.WebhookConfig{Secrets: []string{"whsec_canary4711"}}
	c := stripelicense.NewChecker(cfg)
	for _, v := range []any{cfg, &cfg, hook, &hook, c, license.NewKey("canary")} {
		requireClean(t, v)
		var said bytes.Buffer
		slog.New(slog.NewTextHandler(&said, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "v", v)
		requireClean(t, said.String())
	}
	require.Equal(t, "stripe:test", fmt.Sprint(c))
	require.Contains(t, fmt.Sprint(cfg), "KeySecret:[secret]")
	for _, v := range []any{stripelicense.Config{Key: apiKey, KeySecret: cfg.KeySecret}, hook} {
		encoded, err := json.Marshal(v)
		require.NoError(t, err)
		requireClean(t, string(encoded))
	}
}
