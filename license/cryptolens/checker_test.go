package cryptolens_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

// newChecker returns a checker of the server's, over its own client.
func newChecker(t *testing.T, srv *cryptolenstest.Server, change func(*cryptolens.Config)) *cryptolens.Checker {
	t.Helper()
	return newCheckerOver(t, srv, srv.Client(), change)
}

func newCheckerOver(t *testing.T, srv *cryptolenstest.Server, over *http.Client, change func(*cryptolens.Config)) *cryptolens.Checker {
	t.Helper()
	cfg := cryptolens.Config{
		Token: token, ProductID: product, PublicKeys: []string{srv.PublicKeyXML()}, BaseURL: cryptolenstest.URL, HTTPClient: over,
	}
	if change != nil {
		change(&cfg)
	}
	c := cryptolens.NewChecker(cfg)
	require.NoError(t, c.Validate())
	return c
}

func check(t *testing.T, c license.Checker, q license.Query) license.Verdict {
	t.Helper()
	v, err := c.Check(t.Context(), q)
	require.NoError(t, err)
	return v
}

// unknown checks that there is no verdict, and nothing secret in the error.
func unknown(t *testing.T, c license.Checker, want error) error {
	t.Helper()
	v, err := c.Check(t.Context(), license.Query{Key: key})
	require.Error(t, err)
	if want != nil {
		require.ErrorIs(t, err, want)
	}
	require.Zero(t, v)
	noSecrets(t, err.Error(), fmt.Sprintf("%#v", err))
	return err
}

func noSecrets(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		require.NotContains(t, strings.ToLower(text), "canary")
	}
}

func TestCheckerSaysWhatALicenseAllows(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(time.Hour).Truncate(time.Second)
	list := cryptolenstest.DataObject{Name: "cryptolens_features", String: `["a",["b",["c"]]]`}
	flags := func(c *cryptolens.Config) { c.Features = map[string]int{"one": 1, "two": 2} }
	for name, test := range map[string]struct {
		key    cryptolenstest.Key
		object cryptolenstest.DataObject
		config func(*cryptolens.Config)
		query  license.Query
		why    license.Reason // "": allowed
	}{
		"plain":               {query: license.Query{Feature: "any", Machine: "any"}},
		"blocked":             {key: cryptolenstest.Key{Block: true}, why: license.Blocked},
		"expired":             {key: cryptolenstest.Key{Expires: time.Now()}, why: license.Expired},
		"expired, perpetual":  {key: cryptolenstest.Key{Expires: time.Now()}, config: func(c *cryptolens.Config) { c.TimeLimited = cryptolens.Perpetual }},
		"expired, F3 off":     {key: cryptolenstest.Key{Expires: time.Now()}, config: func(c *cryptolens.Config) { c.TimeLimited = 3 }},
		"expired, F3 on":      {key: cryptolenstest.Key{Expires: time.Now(), Features: [8]bool{2: true}}, config: func(c *cryptolens.Config) { c.TimeLimited = 3 }, why: license.Expired},
		"F1 on":               {key: cryptolenstest.Key{Features: [8]bool{0: true}}, config: flags, query: license.Query{Feature: "one"}},
		"F2 off":              {key: cryptolenstest.Key{Features: [8]bool{0: true}}, config: flags, query: license.Query{Feature: "two"}, why: license.NotEntitled},
		"listed":              {object: list, query: license.Query{Feature: "b.c"}},
		"not listed":          {object: list, query: license.Query{Feature: "c"}, why: license.NotEntitled},
		"no list, needed":     {config: func(c *cryptolens.Config) { c.FeatureTemplate = true }, query: license.Query{Feature: "a"}, why: license.NotEntitled},
		"machine not active":  {key: cryptolenstest.Key{MaxNoOfMachines: 2}, query: license.Query{Machine: "m9"}, why: license.NotEntitled},
		"machine not asked":   {key: cryptolenstest.Key{MaxNoOfMachines: 2}},
		"machine unlimited":   {query: license.Query{Machine: "m9"}},
		"subject of the host": {query: license.Query{Subject: "cus_7"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cryptolenstest.New()
			test.key.ProductID, test.key.Key, test.key.GlobalID = product, keyText, 70123
			if test.key.Expires.IsZero() {
				test.key.Expires = ends
			}
			srv.AddKey(test.key)
			if test.object.Name != "" {
				srv.AddDataObject(product, keyText, "", test.object)
			}
			test.query.Key = key
			v := check(t, newChecker(t, srv, test.config), test.query)
			require.Equal(t, "70123", v.Subject)
			require.Equal(t, test.why, v.Reason)
			if test.why != "" {
				require.Equal(t, license.Denied, v.Status)
				return
			}
			require.Equal(t, license.Allowed, v.Status)
			if test.config == nil {
				require.Equal(t, ends.UTC(), v.Until)
			}
			require.Equal(t, 1, srv.RequestsTo("key/GetKey"))
			require.Equal(t, 1, srv.Requests(), "it only reads")
		})
	}
}

func TestCheckerOfUnknownCallers(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	c := newChecker(t, srv, nil)
	require.Equal(t, license.Verdict{Status: license.Denied, Reason: license.NoKey}, check(t, c, license.Query{Subject: "cus_1"}))
	require.Zero(t, srv.Requests())
	require.Equal(t, license.Verdict{Status: license.Denied, Reason: license.NotFound}, check(t, c, license.Query{Key: license.NewKey("random")}))
	srv.DeleteKey(product, keyText)
	require.Equal(t, license.NotFound, check(t, c, license.Query{Key: key}).Reason)
}

func TestCheckerKnowsActivatedMachines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, client := newServer(t)
		c := newChecker(t, srv, nil)
		on := func(machine string) license.Status {
			return check(t, c, license.Query{Key: key, Machine: machine}).Status
		}
		require.Equal(t, license.Denied, on("m1"))
		require.NoError(t, second(client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: "m1"})))
		require.NoError(t, second(client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: "m2", Floating: time.Minute})))
		require.NoError(t, second(client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: "m3", Floating: time.Minute, Overdraft: 1})))
		for machine, want := range map[string]license.Status{"m1": license.Allowed, "m2": license.Allowed, "m3": license.Allowed, "m4": license.Denied, "floating:m2": license.Denied} {
			require.Equal(t, want, on(machine), machine)
		}
		time.Sleep(time.Minute)
		for machine, want := range map[string]license.Status{"m1": license.Allowed, "m2": license.Denied, "m3": license.Denied} {
			require.Equal(t, want, on(machine), machine)
		}
		require.NoError(t, client.Deactivate(t.Context(), product, key, "m1", false))
		require.Equal(t, license.Denied, on("m1"))
	})
}

// The API's words decide between a denial and no verdict; trouble never denies.
func TestCheckerOnRefusalsAndTrouble(t *testing.T) {
	t.Parallel()
	refused := func(words string) cryptolenstest.Fault {
		return cryptolenstest.Fault{Answer: cryptolenstest.Refused, Message: words}
	}
	for _, test := range []struct {
		fault cryptolenstest.Fault
		err   error
		why   license.Reason
	}{
		{refused("Could not find the key."), nil, license.NotFound},
		{refused("could not find the key"), nil, license.NotFound},
		{refused("The key is blocked and cannot be accessed."), nil, license.Blocked},
		{refused("Unable to authenticate."), cryptolens.ErrAuthentication, ""},
		{refused("Access denied."), cryptolens.ErrAccessDenied, ""},
		{refused("No active subscription found. Please contact support."), cryptolens.ErrVendorUnpaid, ""},
		{refused("Not enough permission and/or key not found."), cryptolens.ErrPermission, ""},
		{refused("Could not find the product."), cryptolens.ErrNoProduct, ""},
		{refused("The input parameters were incorrect."), cryptolens.ErrInput, ""},
		{refused("Cannot activate the new device as the limit has been reached."), cryptolens.ErrMachineLimit, ""},
		{refused("Something went wrong. Please contact support@cryptolens.io and we will try to fix it."), cryptolens.ErrTemporary, ""},
		{refused("Nothing was ever said like this of " + keyText + " and " + token), cryptolens.ErrUnknown, ""},
		{refused(""), cryptolens.ErrUnknown, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.NoResult, Message: "Could not find the key."}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Drop}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Empty}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Error500, Message: "The key is blocked and cannot be accessed."}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.HTML502}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Redirect}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Garbled, Applied: true}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Truncated, Applied: true}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Huge, Applied: true}, cryptolens.ErrReply, ""},
		{cryptolenstest.Fault{Answer: cryptolenstest.Hang}, context.DeadlineExceeded, ""},
	} {
		t.Run(test.fault.String(), func(t *testing.T) {
			t.Parallel()
			srv, _ := newServer(t)
			xml := srv.PublicKeyXML()
			synctest.Test(t, func(t *testing.T) {
				c := newChecker(t, srv, func(c *cryptolens.Config) { c.PublicKeys = []string{xml} })
				srv.Script(test.fault)
				if test.err != nil {
					unknown(t, c, test.err)
				} else {
					require.Equal(t, license.Verdict{Status: license.Denied, Reason: test.why}, check(t, c, license.Query{Key: key}))
				}
				require.Equal(t, 1, srv.Fired())
				require.Equal(t, 1, srv.Requests(), "it never retries")
			})
		})
	}
	srv, _ := newServer(t)
	c := newChecker(t, srv, nil)
	srv.SetDown(true)
	unknown(t, c, cryptolens.ErrNotSent)
	srv.SetDown(false)
	require.Equal(t, license.Allowed, check(t, c, license.Query{Key: key}).Status)
}

func TestCheckerNeedsTheTokensPermission(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	srv.AddToken(token, "Activate")
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: keyText})
	unknown(t, newChecker(t, srv, nil), cryptolens.ErrConfig)
}

func TestCheckerTakesTheVendorsSubject(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: keyText, Customer: &cryptolenstest.Customer{ID: 7, CompanyName: "Engines"}})
	by := func(f func(cryptolens.License) string) license.Checker {
		return newChecker(t, srv, func(c *cryptolens.Config) { c.Subject = f })
	}
	require.Equal(t, "customer-7", check(t, by(func(l cryptolens.License) string { return fmt.Sprintf("customer-%d", l.Customer.ID) }), license.Query{Key: key}).Subject)
	for _, f := range []func(cryptolens.License) string{
		func(cryptolens.License) string { return "" },
		func(l cryptolens.License) string { return l.Key.Reveal() },
	} {
		err := unknown(t, by(f), nil)
		require.ErrorContains(t, err, "Subject")
	}
}

func TestCheckerThroughManyGoroutines(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	c := newChecker(t, srv, nil)
	var all sync.WaitGroup
	errs := make(chan error, 64)
	for range cap(errs) {
		all.Go(func() {
			v, err := c.Check(t.Context(), license.Query{Key: key})
			if err == nil && v.Status != license.Allowed {
				err = errors.New("denied")
			}
			errs <- err
		})
	}
	all.Wait()
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
}

func TestFaultsOfACheckersConfig(t *testing.T) {
	t.Parallel()
	c := cryptolens.NewChecker(cryptolens.Config{
		Token: "with space " + token, ProductID: -1, PublicKeys: []string{token}, BaseURL: "http://" + token + "@api.example.com",
		Timeout: -1, MaxAge: -2, TimeLimited: 9, Features: map[string]int{"a": 0},
	})
	err := c.Validate()
	for _, field := range []string{"Token holds spaces", "ProductID is -1", "PublicKeys[0] is no <RSAKeyValue> XML", "BaseURL holds a user", "Timeout is -1ns", "MaxAge is -2ns", "TimeLimited is 9", `Features["a"] is 0`} {
		require.ErrorContains(t, err, "cryptolens: Config."+field)
	}
	noSecrets(t, err.Error())
	v, checked := c.Check(t.Context(), license.Query{Key: key})
	require.Equal(t, err, checked)
	require.Zero(t, v)
	require.ErrorContains(t, cryptolens.NewChecker(cryptolens.Config{}).Validate(), "Config.PublicKeys is empty")
	require.ErrorContains(t, cryptolens.NewChecker(cryptolens.Config{}).Validate(), "Config.Token is empty")
	require.NoError(t, c.Close())
}

func TestNothingPrintsACheckersToken(t *testing.T) {
	t.Parallel()
	cfg := cryptolens.Config{Token: token, ProductID: product, BaseURL: "https://" + token + "@x.example"}
	c := cryptolens.NewChecker(cfg)
	for _, v := range []any{cfg, &cfg, c, []any{cfg, c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			noSecrets(t, fmt.Sprintf(verb, v))
		}
	}
	require.Contains(t, fmt.Sprint(cfg), "ProductID:3646")
	noSecrets(t, cfg.LogValue().String(), c.LogValue().String())
}

func TestAddress(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	address := func(change func(*cryptolens.Config)) string { return newChecker(t, srv, change).Address() }
	require.Equal(t, "cryptolens:3646", address(nil))
	require.Equal(t, "cryptolens:77", address(func(c *cryptolens.Config) { c.ProductID = 77 }))
	require.Equal(t, "cryptolens:3646", address(func(c *cryptolens.Config) {
		c.Features = map[string]int{"a": 1} // another release sells more; its customers' keys are the same
	}))
	require.Empty(t, cryptolens.NewChecker(cryptolens.Config{}).Address(), "of a faulty Config")
}
