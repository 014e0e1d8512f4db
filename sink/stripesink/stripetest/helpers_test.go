package stripetest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

type object = map[string]any

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// caller speaks to a server as a client without any care.
type caller struct {
	t *testing.T
	*stripetest.Server
	client *http.Client
	clock  *stripetest.Clock
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	c := &caller{t: t, Server: stripetest.New(), clock: stripetest.NewClock(start)}
	c.Now = c.clock.Now
	c.AddMeter(stripetest.Meter{ID: "mtr_1", EventName: "calls"})
	c.AddCustomer(stripetest.Customer{ID: "cus_1"})
	client, stop := c.Pipe()
	t.Cleanup(stop)
	c.client = client
	return c
}

// send sends a request with a form; it comes back without a status if the connection
// breaks.
func (c *caller) send(method, path string, form url.Values, header http.Header) (status int, body string, answer http.Header) {
	c.t.Helper()
	target, data := stripetest.URL+path, io.Reader(nil)
	if method == http.MethodGet {
		target += "?" + form.Encode()
	} else {
		data = io.NopCloser(strings.NewReader(form.Encode())) // not rewindable
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, target, data)
	require.NoError(c.t, err)
	req.Header = header.Clone()
	req.Header.Set("Authorization", "Bearer sk_test_1")
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err.Error(), resp.Header
	}
	return resp.StatusCode, string(all), resp.Header
}

// do sends a request whose form are pairs, and decodes what comes back.
func (c *caller) do(method, path string, pairs ...string) (status int, o object) {
	c.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	status, body, _ := c.send(method, path, form, http.Header{})
	require.NoError(c.t, json.Unmarshal([]byte(body), &o), body)
	return status, o
}

func (c *caller) get(path string, pairs ...string) object {
	c.t.Helper()
	status, o := c.do(http.MethodGet, path, pairs...)
	require.Equal(c.t, 200, status, "%v", o)
	return o
}

func (c *caller) create(path string, pairs ...string) object {
	c.t.Helper()
	status, o := c.do(http.MethodPost, path, pairs...)
	require.Equal(c.t, 200, status, "%v", o)
	return o
}

// refused requires that a request is refused with words.
func (c *caller) refused(method, path string, want int, words string, pairs ...string) {
	c.t.Helper()
	status, o := c.do(method, path, pairs...)
	require.Equal(c.t, want, status, "%v", o)
	require.Contains(c.t, o["error"].(object)["message"], words)
}

// post sends an event of value 5 under a key and identifier; change alters it.
func (c *caller) post(key, identifier string, change ...string) (status int, body string, header http.Header) {
	c.t.Helper()
	form := url.Values{
		"event_name": {"calls"}, "identifier": {identifier},
		"payload[stripe_customer_id]": {"cus_1"}, "payload[value]": {"5"},
	}
	for i := 0; i < len(change); i += 2 {
		form.Set(change[i], change[i+1])
	}
	sent := http.Header{}
	if key != "" {
		sent.Set("Idempotency-Key", key)
	}
	return c.send(http.MethodPost, "/v1/billing/meter_events", form, sent)
}

func (c *caller) want(total int64) {
	c.t.Helper()
	require.Equal(c.t, total, c.Total("cus_1", "calls"))
}

// ids are those of a list.
func ids(list object) (all []string) {
	for _, o := range list["data"].([]any) {
		all = append(all, o.(object)["id"].(string))
	}
	return all
}
