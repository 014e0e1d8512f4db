package stripelicense_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// Whatever goes wrong, at whichever request, is unknown and never a denial.
func TestFaultsAreUnknown(t *testing.T) {
	t.Parallel()
	endpoints := map[string]license.Query{search: byKey(), getOne: byKey(), list: bySubject(), listEnt: bySubject()}
	for answer, says := range map[stripetest.Answer]string{
		stripetest.Drop:      "no answer: EOF",
		stripetest.Error500:  "api_error",
		stripetest.HTML502:   "the answer is a web page, so not Stripe's (status 502)",
		stripetest.Throttled: "invalid_request_error (rate_limit)",
		stripetest.Locked:    "invalid_request_error (lock_timeout)",
		stripetest.Truncated: "the answer broke off: reading the reply (status 200): unexpected EOF",
		stripetest.Redirect:  "the answer is a redirect, which is not followed: look at Config.BaseURL (status 307)",
		stripetest.Garbled:   "so perhaps not Stripe's (status 200)",
	} {
		for endpoint, q := range endpoints {
			t.Run(fmt.Sprint(answer, " ", endpoint), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t, nil)
				a.subscribe(nil)
				a.entitle(lookupKey)
				fault := stripetest.Fault{On: endpoint, Answer: answer, Applied: answer == stripetest.Truncated}
				if endpoint == list {
					fault.On = "" // the first request; "/search" has its name, too
				}
				a.Script(fault)
				if answer == stripetest.Drop && endpoint != search && endpoint != list {
					a.Script(fault) // net/http itself asks once more when an old connection breaks
				}
				a.wantUnknown(t, q, says)
				require.NotZero(t, a.Fired())
				a.wantAllowed(t, q)
			})
		}
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	for endpoint, says := range map[string]string{
		search: "read access to subscriptions", getOne: "read access to subscriptions", listEnt: "read access to entitlements",
	} {
		a := newAccount(t, nil)
		a.subscribe(nil)
		a.Forbid(endpoint)
		a.wantUnknown(t, byKey(), "a restricted key needs "+says, "(status 403)")
	}
	a := newAccount(t, nil)
	a.Key = "sk_test_other"
	a.wantUnknown(t, bySubject(), "look at Config.Key", "Invalid API Key provided: [key]")
	a.wantUnknown(t, byKey(), "look at Config.Key")
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	for _, test := range []struct {
		fault stripetest.Fault
		want  time.Duration
	}{
		{stripetest.Fault{Answer: stripetest.Throttled, RetryAfter: 7}, 7 * time.Second},
		{stripetest.Fault{Answer: stripetest.HTML502, RetryAfter: 7}, 7 * time.Second},
		{stripetest.Fault{Answer: stripetest.Throttled, RetryAfter: 1e6}, time.Hour},
		{stripetest.Fault{Answer: stripetest.Throttled}, 0},
	} {
		a.Script(test.fault)
		require.Equal(t, test.want, retryAfter(t, a.wantUnknown(t, bySubject())))
	}
}

func TestHangEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		a.Script(stripetest.Fault{Answer: stripetest.Hang}, stripetest.Fault{Answer: stripetest.Hang})
		begun := time.Now()
		err := a.wantUnknown(t, byKey(), "no answer")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(begun), "by itself")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = a.Check(ctx, byKey())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 11*time.Second, time.Since(begun))
		requireClean(t, err)
	})
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	c := stripelicense.NewChecker(stripelicense.Config{Key: apiKey, KeyMetadata: "license_key", BaseURL: server.URL})
	server.Close()
	a := &account{Checker: c}
	a.wantUnknown(t, byKey(), "no answer: dial tcp")
	require.NoError(t, c.Close())
}

// Answers that look like Stripe's and aren't about what was asked.
func TestStrangeAnswersAreUnknown(t *testing.T) {
	t.Parallel()
	const good = `{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active","metadata":{"license_key":"LK/canary+0815=A:b"}}`
	found := `{"object":"search_result","data":[` + good + `]}`
	for name, test := range map[string]struct{ search, get, says string }{
		"list as search":   {search: `{"object":"list","data":[]}`, says: "the answer is no search_result"},
		"no object":        {search: `{}`, says: "the answer is no search_result"},
		"null":             {search: `null`, says: "the answer is no search_result"},
		"found nothing":    {search: `{"object":"search_result","data":[null]}`, says: "the answer is incomplete"},
		"no ID":            {search: strings.Replace(found, "sub_1", "", 1), says: "the answer is incomplete"},
		"path as ID":       {search: strings.Replace(found, "sub_1", "../x", 1), says: "the answer is incomplete"},
		"no customer":      {search: found, get: strings.Replace(good, `"customer":"cus_1",`, "", 1), says: "the answer is incomplete"},
		"odd customer":     {search: found, get: strings.Replace(good, "cus_1", "acct_1", 1), says: "the answer is incomplete"},
		"no status":        {search: found, get: strings.Replace(good, "active", "", 1), says: "the answer is incomplete"},
		"another":          {search: found, get: strings.Replace(good, "sub_1", "sub_2", 1), says: "the answer is another one"},
		"other kind":       {search: found, get: strings.Replace(good, `"subscription"`, `"customer"`, 1), says: "the answer is no subscription"},
		"status of number": {search: found, get: strings.Replace(good, `"active"`, `1`, 1), says: "the answer is no subscription"},
		"huge":             {search: found, get: strings.Repeat(" ", 1<<20) + good, says: "more than 1048576 bytes"},
		"404 of a proxy":   {search: found, get: "", says: "the answer is no subscription"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := answers(t, func(w httpWriter, r *httpRequest) {
				switch {
				case r.URL.Path == "/v1/subscriptions/search":
					fmt.Fprint(w, test.search)
				case test.get == "":
					w.WriteHeader(404)
				default:
					fmt.Fprint(w, test.get)
				}
			}, nil)
			a.wantUnknown(t, basic(byKey()), test.says)
		})
	}
	other := answers(t, reply(200, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_2","status":"active"}]}`), nil)
	other.wantUnknown(t, bySubject(), "sub_1 is of another customer")
}

// A gateway may use a key of its own, of the other mode.
func TestObjectsOfTheOtherMode(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/active_entitlements") {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"ent_1","lookup_key":"tax_reports","livemode":true}]}`)
			return
		}
		live := strings.Contains(r.URL.RawQuery, "cus_2")
		fmt.Fprintf(w, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":%q,"status":"active","livemode":%t}]}`, r.FormValue("customer"), live)
	}))
	t.Cleanup(server.Close)
	a := &account{client: server.Client()}
	a.Checker = a.another(func(c *stripelicense.Config) { c.BaseURL = server.URL })
	a.wantUnknown(t, basic(license.Query{Subject: "cus_2"}), "it belongs to live mode, and the key to test mode")
	a.wantAllowed(t, basic(bySubject()))
	a.wantUnknown(t, bySubject(), "entitlements of cus_1: it belongs to live mode")
}

// leaks repeat the request, each in its own way, as a debugging proxy would.
var leaks = map[string]http.HandlerFunc{
	"stripe error": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"type":%q,"code":%q,"message":%q}}`, r.FormValue("query"), r.FormValue("query"), told(r))
	},
	"half of the key": func(w http.ResponseWriter, r *http.Request) {
		_, key, _ := strings.Cut(r.FormValue("query"), ":'")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"type":"invalid_request_error","message":%q}}`, "Can't search for "+key[:min(len(key), 10)]+"…")
	},
	"half of it": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Request-Id", "req_"+r.FormValue("query"))
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"type":"invalid_request_error","message":%q}}`, strings.Repeat("x", 285)+r.Header.Get("Authorization")+told(r))
	},
	"text": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, told(r))
	},
	"page": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html>"+told(r))
	},
	"no JSON": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, told(r)) },
	"string": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"object":%q,"data":%q}`, told(r), told(r))
	},
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/?key="+r.URL.RawQuery, http.StatusFound)
	},
	"no HTTP": func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprintf(conn, "%s %s\r\n\r\n", r.URL.RequestURI(), told(r))
			conn.Close()
		}
	},
	"break": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
}

// told is what a careless server tells, the secrets first: errors are cut to a length.
func told(r *http.Request) string {
	query := r.FormValue("query")
	return fmt.Sprint(query, strings.ToLower(query), r.URL.RequestURI(), r.Header)
}

func TestKeysStaySecret(t *testing.T) {
	t.Parallel()
	for name, handler := range leaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(handler)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.Start()
			t.Cleanup(server.Close)
			a := &account{client: server.Client()}
			a.Checker = a.another(func(c *stripelicense.Config) { c.BaseURL = server.URL })
			for _, q := range both() {
				for err := a.wantUnknown(t, q); err != nil; err = errors.Unwrap(err) {
					requireClean(t, err)
				}
			}
		})
	}
}

// Nor is the key to be found in an error of the client that the host has given.
func TestKeysStaySecretFromTheTransport(t *testing.T) {
	t.Parallel()
	a := &account{client: &http.Client{Transport: echo{}}}
	a.Checker = a.another(nil)
	for _, q := range both() {
		a.wantUnknown(t, q, "no answer: can't reach")
	}
}

type echo struct{}

func (echo) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("can't reach %s %v, %v, %v", told(r), r.URL, r.Header, r.URL.Query())
}
