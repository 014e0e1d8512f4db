package cryptolens_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

func TestRecordUsage(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	require.NoError(t, client.RecordUsage(t.Context(), product, key, 5))
	require.NoError(t, client.RecordUsage(t.Context(), product, key, math.MaxInt32))
	require.EqualValues(t, math.MaxInt32+5, srv.Total(product, keyText))
	require.Len(t, srv.Usage(product, keyText), 2)
}

// What is wrong is refused here: the API would take 0 for what is missing, and may
// charge for what is negative.
func TestBadInputIsNotSent(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	owner := cryptolens.Owner{ProductID: product, Key: key}
	credits := cryptolens.Ref{Name: "credits"}
	long := string(make([]byte, 101))
	for name, err := range map[string]error{
		"zero":            client.RecordUsage(t.Context(), product, key, 0),
		"negative":        client.RecordUsage(t.Context(), product, key, -1),
		"too much":        client.RecordUsage(t.Context(), product, key, math.MaxInt32+1),
		"no key":          client.RecordUsage(t.Context(), product, license.Key{}, 1),
		"no product":      client.RecordUsage(t.Context(), 0, key, 1),
		"step 0":          client.Increment(t.Context(), owner, credits, 0),
		"step -1":         client.Decrement(t.Context(), owner, credits, -1),
		"bound":           client.IncrementUpTo(t.Context(), owner, credits, 1, math.MaxInt32+1),
		"low bound":       client.DecrementDownTo(t.Context(), owner, credits, 1, math.MinInt32-1),
		"no object":       client.SetInt(t.Context(), owner, cryptolens.Ref{}, 1),
		"two objects":     client.SetInt(t.Context(), owner, cryptolens.Ref{ID: 1, Name: "x"}, 1),
		"value":           client.SetInt(t.Context(), owner, credits, math.MaxInt32+1),
		"long text":       client.SetString(t.Context(), owner, credits, string(make([]byte, 10_001))),
		"no name":         second(client.AddDataObject(t.Context(), owner, cryptolens.DataObject{})),
		"long name":       second(client.AddDataObject(t.Context(), owner, cryptolens.DataObject{Name: long})),
		"no machine":      second(client.Activate(t.Context(), product, key, cryptolens.Activation{})),
		"half a second":   second(client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: "m", Floating: time.Second / 2})),
		"overdraft alone": second(client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: "m", Overdraft: 1})),
		"overdraft":       second(client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: "m", Floating: time.Second, Overdraft: -1})),
		"whose machine":   client.Deactivate(t.Context(), product, key, "", false),
		"not floating":    client.Heartbeat(t.Context(), product, key, cryptolens.Activation{Machine: "m"}),
	} {
		require.ErrorIs(t, err, cryptolens.ErrInput, name)
		require.ErrorIs(t, err, cryptolens.ErrNotApplied, name)
	}
	require.Zero(t, srv.Requests())
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg  cryptolens.ClientConfig
		want []string // none: valid
	}{
		"defaults":      {cryptolens.ClientConfig{Token: token}, nil},
		"empty":         {cryptolens.ClientConfig{}, []string{"ClientConfig.Token is empty"}},
		"all":           {cryptolens.ClientConfig{Token: "a b", BaseURL: "x", Timeout: -1}, []string{".Token holds", ".BaseURL is no URL", ".Timeout is -1ns"}},
		"plain":         {cryptolens.ClientConfig{Token: token, BaseURL: "http://license.example:8080"}, []string{".BaseURL starts with http://"}},
		"plain allowed": {cryptolens.ClientConfig{Token: token, BaseURL: "http://license.example:8080", AllowHTTP: true}, nil},
		"loopback":      {cryptolens.ClientConfig{Token: token, BaseURL: "http://127.0.0.1:8080/"}, nil},
		"api":           {cryptolens.ClientConfig{Token: token, BaseURL: "https://license.example/API/"}, []string{`".BaseURL`[1:] + ` ends with "/api"`}},
		"ftp":           {cryptolens.ClientConfig{Token: token, BaseURL: "ftp://license.example"}, []string{"must start with https://"}},
		"password":      {cryptolens.ClientConfig{Token: token, BaseURL: "https://u:" + token + "@license.example"}, []string{"holds a user or password"}},
		"query":         {cryptolens.ClientConfig{Token: token, BaseURL: "https://license.example?" + token}, []string{"holds a query"}},
	} {
		client := cryptolens.NewClient(test.cfg)
		err := client.Validate()
		if test.want == nil {
			require.NoError(t, err, name)
			continue
		}
		for _, want := range test.want {
			require.ErrorContains(t, err, want, name)
		}
		require.NotContains(t, err.Error(), token, name)
		err = client.RecordUsage(t.Context(), product, key, 1)
		require.ErrorIs(t, err, cryptolens.ErrConfig, name)
		require.NotContains(t, err.Error(), token, name)
	}
}

// Every message that is known leads to its named error, whatever the HTTP status, and
// in whatever case, with or without final dot.
func TestMessages(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]error{
		"Access denied.": cryptolens.ErrAccessDenied,
		"Either the machine code was never activated or key activation feature was never set up.": cryptolens.ErrNotActivated,
		"The input parameters were incorrect.":                                                    cryptolens.ErrInput,
		"Could not find the product.":                                                             cryptolens.ErrNoProduct,
		"Could not find the key.":                                                                 cryptolens.ErrNoKey,
		"No Stripe payment processor was set up.":                                                 cryptolens.ErrNoProcessor,
		"The subscription item id could not be found.":                                            cryptolens.ErrNoSubscriptionItem,
		"Could not increment the usage counter.":                                                  cryptolens.ErrUsageCounter,
		"Unable to authenticate.":                                                                 cryptolens.ErrAuthentication,
		"The key is blocked and cannot be accessed.":                                              cryptolens.ErrBlocked,
		"Cannot activate the new device as the limit has been reached.":                           cryptolens.ErrMachineLimit,
		"No active subscription found. Please contact support.":                                   cryptolens.ErrVendorUnpaid,
		"Not enough permission and/or key not found.":                                             cryptolens.ErrPermission,
		"Something went wrong. Please contact support@cryptolens.io and we will try to fix it.":   cryptolens.ErrTemporary,
		"access denied":                      cryptolens.ErrAccessDenied,
		"  COULD NOT FIND THE KEY . \n":      cryptolens.ErrNoKey,
		"Could not find the key. Try later.": cryptolens.ErrUnknown,
		"":                                   cryptolens.ErrUnknown,
	} {
		for _, status := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusInternalServerError} {
			srv := httptest.NewServer(answer(status, map[string]any{"result": 1, "message": message}))
			client := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: srv.URL})
			err := client.RecordUsage(t.Context(), product, key, 1)
			require.ErrorIs(t, err, want)
			require.True(t, errors.Is(err, cryptolens.ErrNotApplied) != errors.Is(err, cryptolens.ErrInDoubt), "%v", err)
			said, ok := errors.AsType[*cryptolens.Error](err)
			require.True(t, ok)
			require.Equal(t, "RecordUsage", said.Method)
			require.Equal(t, status, said.Status)
			require.NoError(t, client.Close())
			srv.Close()
		}
	}
}

// The API in the flesh gives each refusal, too.
func TestRefusals(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	srv.RefusalStatus = http.StatusUnauthorized
	srv.AddToken("others", "Activate")
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: "blocked", Block: true, MaxNoOfMachines: 1})
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: "unbillable", Unbillable: true})
	machine := cryptolens.Activation{Machine: "m"}
	owner := cryptolens.Owner{ProductID: product, Key: license.NewKey("absent")}
	require.ErrorIs(t, newClient(srv.Client(), "foreign").RecordUsage(t.Context(), product, key, 1), cryptolens.ErrAuthentication)
	others := newClient(srv.Client(), "others")
	require.ErrorIs(t, others.RecordUsage(t.Context(), product, key, 1), cryptolens.ErrAccessDenied)
	require.ErrorIs(t, others.SetInt(t.Context(), owner, cryptolens.Ref{ID: 1}, 1), cryptolens.ErrPermission)
	require.NoError(t, second(others.Activate(t.Context(), product, key, machine)))
	require.ErrorIs(t, client.RecordUsage(t.Context(), 1, key, 1), cryptolens.ErrNoProduct)
	require.ErrorIs(t, client.RecordUsage(t.Context(), product, owner.Key, 1), cryptolens.ErrNoKey)
	require.ErrorIs(t, client.SetInt(t.Context(), owner, cryptolens.Ref{ID: 1}, 1), cryptolens.ErrPermission)
	require.ErrorIs(t, client.RecordUsage(t.Context(), product, license.NewKey("unbillable"), 1), cryptolens.ErrNoSubscriptionItem)
	require.ErrorIs(t, second(client.Activate(t.Context(), product, license.NewKey("blocked"), machine)), cryptolens.ErrBlocked)
	require.ErrorIs(t, client.Deactivate(t.Context(), product, key, "never", false), cryptolens.ErrNotActivated)
	srv.NoProcessor = true
	require.ErrorIs(t, client.RecordUsage(t.Context(), product, key, 1), cryptolens.ErrNoProcessor)
	require.Zero(t, srv.Total(product, keyText))
}

// After each of these nobody knows whether the call was applied, and the error must
// not say that it wasn't.
func TestDoubt(t *testing.T) {
	t.Parallel()
	for answer := cryptolenstest.Drop; answer <= cryptolenstest.Huge; answer++ {
		for _, applied := range []bool{false, true} {
			fault := cryptolenstest.Fault{Answer: answer, Applied: applied, Message: "Access granted."}
			t.Run(fault.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					srv, client := newServer(t)
					srv.Script(fault)
					err := client.RecordUsage(t.Context(), product, key, 3)
					require.ErrorIs(t, err, cryptolens.ErrInDoubt)
					require.NotErrorIs(t, err, cryptolens.ErrNotApplied)
					require.Equal(t, answer == cryptolenstest.Hang, errors.Is(err, context.DeadlineExceeded))
					require.Equal(t, 1, srv.Fired())
					require.Equal(t, 1, srv.Requests(), "a client never retries")
					require.Equal(t, applied, srv.Total(product, keyText) == 3)
				})
			})
		}
	}
}

// Nobody who reads of a question in a log shall look for what it may have billed.
func TestQuestionsDoNotSpeakOfDoubt(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	owner := cryptolens.Owner{ProductID: product, Key: key}
	for fault, want := range map[cryptolenstest.Answer]error{
		cryptolenstest.Drop: cryptolens.ErrReply, cryptolenstest.Refused: cryptolens.ErrUnknown,
	} {
		for method, ask := range map[string]func() error{
			"GetKey":          func() error { return second(client.GetKey(t.Context(), product, key)) },
			"ListDataObjects": func() error { return second(client.DataObjects(t.Context(), owner, "")) },
		} {
			srv.Script(cryptolenstest.Fault{Answer: fault, Message: "Hm."})
			err := ask()
			require.ErrorIs(t, err, want)
			require.ErrorIs(t, err, cryptolens.ErrInDoubt)
			require.NotContains(t, err.Error(), "in doubt")
			require.ErrorContains(t, err, "cryptolens: "+method+": "+strings.TrimPrefix(want.Error(), "in doubt: ")+": ")
		}
	}
	srv.SetDown(true)
	require.ErrorContains(t, second(client.GetKey(t.Context(), product, key)), "cryptolens: GetKey: not sent: ")
	require.ErrorContains(t, client.RecordUsage(t.Context(), product, key, 1), "cryptolens: RecordUsage: not applied: not sent: ")
}

func TestSlowCallEndsInDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, _ := newServer(t)
		client := cryptolens.NewClient(cryptolens.ClientConfig{
			Token: token, BaseURL: cryptolenstest.URL, HTTPClient: srv.Client(), Timeout: 3 * time.Second})
		srv.Script(cryptolenstest.Fault{Delay: 2 * time.Second}, cryptolenstest.Fault{Delay: 4 * time.Second})
		require.NoError(t, client.RecordUsage(t.Context(), product, key, 1))
		begun := time.Now()
		err := client.RecordUsage(t.Context(), product, key, 1)
		require.ErrorIs(t, err, cryptolens.ErrReply)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(begun))
		require.EqualValues(t, 2, srv.Total(product, keyText), "it was applied after the client had left")
	})
}

// What never left is no doubt.
func TestNotSent(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	srv.SetDown(true)
	err := client.RecordUsage(t.Context(), product, key, 1)
	require.ErrorIs(t, err, cryptolens.ErrNotSent)
	require.ErrorIs(t, err, cryptolens.ErrNotApplied)
	require.NotContains(t, err.Error(), cryptolenstest.URL)
	srv.SetDown(false)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = client.RecordUsage(ctx, product, key, 1)
	require.ErrorIs(t, err, cryptolens.ErrNotSent)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, srv.Requests())

	closed := httptest.NewServer(srv)
	closed.Close()
	err = cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: closed.URL}).RecordUsage(t.Context(), product, key, 1)
	require.ErrorIs(t, err, cryptolens.ErrNotSent)
}
