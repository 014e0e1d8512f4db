package httpsink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// outcome names what err means, and fails where it means two things.
func outcome(t *testing.T, err error) string {
	t.Helper()
	isRejected, isNotApplied := errors.Is(err, sink.ErrRejected), errors.Is(err, sink.ErrNotApplied)
	require.False(t, isRejected && isNotApplied, "%v", err)
	switch {
	case err == nil:
		return "delivered"
	case isRejected:
		return "rejected"
	case errors.Is(err, sink.ErrPostponed):
		return "postponed"
	case isNotApplied:
		return "not applied"
	}
	return "doubt"
}

const (
	jsonBody = "application/json"
	problem  = "application/problem+json"
)

func answer(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func notApplied(status int) string {
	return fmt.Sprintf(`{"type":"about:blank","title":"x","status":%d,"outcome":"not-applied"}`, status)
}

func result(id, status string) string { return fmt.Sprintf(`{"id":%q,"status":%q}`, id, status) }

func results(all ...string) string { return `{"results":[` + strings.Join(all, ",") + `]}` }

// Two records are sent; what each answer means for them.
func TestOutcomeRestsOnEvidence(t *testing.T) {
	t.Parallel()
	const one, two = "01-record-1", "01-record-2"
	both := results(result(one, "delivered"), result(two, "delivered"))
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   [2]string
		delay  time.Duration // of the first
	}{
		"delivered":          {answer(200, jsonBody, both), [2]string{"delivered", "delivered"}, 0},
		"any order":          {answer(200, jsonBody, results(result(two, "rejected"), result(one, "delivered"))), [2]string{"delivered", "rejected"}, 0},
		"with charset":       {answer(200, jsonBody+"; charset=utf-8", both), [2]string{"delivered", "delivered"}, 0},
		"every status":       {answer(200, jsonBody, results(result(one, "not-applied"), result(two, "postponed"))), [2]string{"not applied", "postponed"}, 0},
		"doubt":              {answer(200, jsonBody, results(result(one, "in-doubt"), result(two, "a later version's"))), [2]string{"doubt", "doubt"}, 0},
		"retry after":        {answer(200, jsonBody, results(`{"id":"`+one+`","status":"not-applied","retry_after":7}`, result(two, "delivered"))), [2]string{"not applied", "delivered"}, 7 * time.Second},
		"retry after bounds": {answer(200, jsonBody, results(`{"id":"`+one+`","status":"not-applied","retry_after":999999999999}`, result(two, "delivered"))), [2]string{"not applied", "delivered"}, time.Hour},
		"no status":          {answer(200, jsonBody, results(`{"id":"`+one+`"}`, result(two, "delivered"))), [2]string{"doubt", "delivered"}, 0},
		"status in capitals": {answer(200, jsonBody, results(result(one, "Delivered"), result(two, "delivered"))), [2]string{"doubt", "delivered"}, 0},

		"result missing":    {answer(200, jsonBody, results(result(one, "delivered"))), [2]string{"doubt", "doubt"}, 0},
		"result twice":      {answer(200, jsonBody, results(result(one, "delivered"), result(one, "delivered"))), [2]string{"doubt", "doubt"}, 0},
		"result too many":   {answer(200, jsonBody, results(result(one, "delivered"), result(two, "delivered"), result("x", "delivered"))), [2]string{"doubt", "doubt"}, 0},
		"other records":     {answer(200, jsonBody, results(result("x", "delivered"), result("y", "delivered"))), [2]string{"doubt", "doubt"}, 0},
		"no results":        {answer(200, jsonBody, `{}`), [2]string{"doubt", "doubt"}, 0},
		"ok":                {answer(200, "text/plain", `OK`), [2]string{"doubt", "doubt"}, 0},
		"empty":             {answer(200, jsonBody, ``), [2]string{"doubt", "doubt"}, 0},
		"not typed as JSON": {answer(200, "text/html", both), [2]string{"doubt", "doubt"}, 0},
		"other 2xx":         {answer(202, jsonBody, both), [2]string{"doubt", "doubt"}, 0},
		"no content":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, [2]string{"doubt", "doubt"}, 0},
		"two values":        {answer(200, jsonBody, both+both), [2]string{"doubt", "doubt"}, 0},
		"cut off":           {truncated(both), [2]string{"doubt", "doubt"}, 0},
		"huge":              {answer(200, jsonBody, both+strings.Repeat(" ", 1<<20)), [2]string{"doubt", "doubt"}, 0},
		"gzip":              {gzipped(both), [2]string{"doubt", "doubt"}, 0},

		"wrong secret":         {answer(401, problem, notApplied(401)), [2]string{"not applied", "not applied"}, time.Minute},
		"forbidden":            {answer(403, problem, notApplied(403)), [2]string{"not applied", "not applied"}, time.Minute},
		"wrong path":           {answer(404, problem, notApplied(404)), [2]string{"not applied", "not applied"}, time.Minute},
		"malformed":            {answer(400, problem, notApplied(400)), [2]string{"not applied", "not applied"}, 0},
		"throttled":            {retryAfter("30", answer(429, problem, notApplied(429))), [2]string{"not applied", "not applied"}, 30 * time.Second},
		"busy":                 {retryAfter("2", answer(503, problem, notApplied(503))), [2]string{"not applied", "not applied"}, 2 * time.Second},
		"server's own 500":     {answer(500, problem, notApplied(500)), [2]string{"not applied", "not applied"}, time.Minute},
		"problem with results": {answer(422, problem, `{"status":422,"outcome":"in-doubt","results":[`+result(one, "delivered")+`,`+result(two, "rejected")+`]}`), [2]string{"delivered", "rejected"}, 0},
		"results differ":       {answer(500, problem, `{"status":422,"outcome":"in-doubt","results":[`+result(one, "delivered")+`,`+result(two, "delivered")+`]}`), [2]string{"doubt", "doubt"}, 0},
		"results of 200":       {answer(200, problem, `{"status":200,"outcome":"in-doubt","results":[`+result(one, "delivered")+`,`+result(two, "delivered")+`]}`), [2]string{"doubt", "doubt"}, 0},
		"problem of 200":       {answer(200, problem, notApplied(200)), [2]string{"doubt", "doubt"}, 0},
		"status differs":       {answer(500, problem, notApplied(401)), [2]string{"doubt", "doubt"}, 0},
		"problem without word": {answer(401, problem, `{"title":"x","status":401}`), [2]string{"doubt", "doubt"}, 0},
		"gateway's 401":        {answer(401, jsonBody, `{"message":"no key"}`), [2]string{"doubt", "doubt"}, 0},
		"gateway's 503":        {retryAfter("9", answer(503, "text/html", `<html>`)), [2]string{"doubt", "doubt"}, 9 * time.Second},
		"gateway's 502":        {answer(502, "text/html", `<html>`), [2]string{"doubt", "doubt"}, 0},
		"500":                  {answer(500, "text/plain", `oops`), [2]string{"doubt", "doubt"}, 0},
		"500 in doubt":         {answer(500, problem, `{"status":500,"outcome":"in-doubt"}`), [2]string{"doubt", "doubt"}, 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, [2]string{"doubt", "doubt"}, 0},
		"connection broken off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, [2]string{"doubt", "doubt"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := atomic.Int32{}
			s := newSink(t, modes["protocol"], serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				test.answer(w, r)
			}))
			err := s.Deliver(t.Context(), []sink.Record{record(1, 1), record(2, 2)})
			errs := []error{err, err}
			if batch, ok := errors.AsType[*sink.BatchError](err); ok {
				errs = batch.Errs
			}
			require.Equal(t, test.want, [2]string{outcome(t, errs[0]), outcome(t, errs[1])}, "%v", err)
			require.Equal(t, test.delay, sink.RetryDelay(errs[0]), "%v", err)
			require.EqualValues(t, 1, requests.Load(), "nothing is sent twice, or elsewhere")
		})
	}
}

func truncated(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", jsonBody)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
		_, _ = io.WriteString(w, body)
	}
}

func gzipped(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			panic("compression was asked for")
		}
		w.Header().Set("Content-Encoding", "gzip")
		answer(200, jsonBody, "\x1f\x8b"+body)(w, r)
	}
}

func retryAfter(text string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", text)
		next(w, r)
	}
}

// What a taker of CloudEvents means that knows nothing of the protocol. In a batch the
// errors are those of both events; alone is what is said of one.
func TestOutcomeOfCloudEvents(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer      http.HandlerFunc
		both, alone string
	}{
		"204":            {answer(204, "", ""), "delivered", "delivered"},
		"200":            {answer(200, "text/plain", "OK"), "delivered", "delivered"},
		"202":            {answer(202, jsonBody, "{}"), "delivered", "delivered"},
		"207":            {answer(207, jsonBody, "{}"), "doubt", "doubt"},
		"page":           {answer(200, "text/html; charset=utf-8", "sign in"), "doubt", "doubt"},
		"page untold":    {answer(200, "", " <!doctype html>"), "doubt", "doubt"},
		"cut off":        {truncated("{}"), "doubt", "doubt"},
		"redirect":       {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "doubt", "doubt"},
		"400":            {answer(400, problem, `{"title":"invalid event","status":400}`), "not applied", "rejected"},
		"422":            {answer(422, jsonBody, `{}`), "not applied", "rejected"},
		"413":            {answer(413, jsonBody, `{}`), "not applied", "postponed"},
		"401":            {answer(401, problem, `{"status":401}`), "not applied", "not applied"},
		"403":            {answer(403, problem, `{"status":403}`), "not applied", "not applied"},
		"404":            {answer(404, "text/plain", `404`), "not applied", "not applied"},
		"429":            {answer(429, jsonBody, `{}`), "not applied", "not applied"},
		"409":            {answer(409, jsonBody, `{}`), "doubt", "doubt"},
		"500":            {answer(500, problem, `{"status":500}`), "doubt", "doubt"},
		"503":            {retryAfter("3", answer(503, problem, `{"status":503}`)), "doubt", "doubt"},
		"503 with proof": {retryAfter("3", answer(503, problem, notApplied(503))), "not applied", "not applied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, test.answer)
			cfg := httpsink.Config{CloudEvents: &httpsink.CloudEvents{Source: "/m"}}
			err := newSink(t, cfg, url).Deliver(t.Context(), []sink.Record{record(1, 1), record(2, 2)})
			require.Equal(t, test.both, outcome(t, err), "%v", err)
			err = newSink(t, cfg, url).Deliver(t.Context(), []sink.Record{record(1, 1)})
			require.Equal(t, test.alone, outcome(t, err), "%v", err)
		})
	}
}

// A server that can't read one record refuses its batch as a whole. The others must not
// wait for it for ever.
func TestOneUnreadableRecordDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]httpsink.Config{"protocol": modes["protocol"], "event batch": modes["event batch"]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memsink.New()
			b := newBackend(t, store, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				body, _ := io.ReadAll(r.Body)
				if strings.Contains(string(body), "01-record-2") {
					answer(400, problem, notApplied(400))(w, r)
					return
				}
				r.Body = io.NopCloser(strings.NewReader(string(body)))
				next.ServeHTTP(w, r)
			})
			s := newSink(t, cfg, b.url())
			records := []sink.Record{record(1, 1), record(2, 2), record(3, 4)}
			require.Equal(t, "not applied", outcome(t, s.Deliver(t.Context(), records)))
			require.Zero(t, total(store))
			err := s.Deliver(t.Context(), records)
			batch, ok := errors.AsType[*sink.BatchError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, "delivered", outcome(t, batch.Errs[0]))
			require.Equal(t, "postponed", outcome(t, batch.Errs[1]))
			require.Equal(t, "delivered", outcome(t, batch.Errs[2]))
			require.EqualValues(t, 5, total(store))
			require.Equal(t, 4, b.requests)
			require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(4, 8), record(5, 16)}))
			require.Equal(t, 5, b.requests, "new records go together")
		})
	}
}

// Servers take 1 MiB; whatever the records weigh, no request is bigger.
func TestBigRecordsAreSentInSeveralRequests(t *testing.T) {
	t.Parallel()
	store := memsink.New()
	largest := atomic.Int64{}
	b := newBackend(t, store, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		largest.Store(max(largest.Load(), r.ContentLength))
		next.ServeHTTP(w, r)
	})
	s := newSink(t, modes["protocol"], b.url())
	var records []sink.Record
	for n := range 50 {
		r := record(n, 1)
		r.Dimensions = map[string]string{"note": strings.Repeat("<", 10_000)} // 6 bytes each in JSON
		records = append(records, r)
	}
	monster := record(99, 1)
	monster.Dimensions = map[string]string{"note": strings.Repeat("<", 200_000)}
	err := s.Deliver(t.Context(), append(records, monster))
	batch, ok := errors.AsType[*sink.BatchError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "rejected", outcome(t, batch.Errs[50]), "nobody could take it")
	for _, err := range batch.Errs[:50] {
		require.NoError(t, err)
	}
	require.EqualValues(t, 50, total(store))
	require.Equal(t, 3, b.requests)
	require.LessOrEqual(t, largest.Load(), int64(1<<20))
}

// Of what stands behind trouble nothing is sent, and the answer says that.
func TestNothingIsSentBehindTrouble(t *testing.T) {
	t.Parallel()
	requests := atomic.Int32{}
	s := newSink(t, modes["protocol"], serve(t, func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	}))
	var records []sink.Record
	for n := range 20 {
		r := record(n, 1)
		r.Dimensions = map[string]string{"note": strings.Repeat("<", 20_000)}
		records = append(records, r)
	}
	batch, ok := errors.AsType[*sink.BatchError](s.Deliver(t.Context(), records))
	require.True(t, ok)
	require.EqualValues(t, 1, requests.Load())
	require.Equal(t, "doubt", outcome(t, batch.Errs[0]))
	require.Equal(t, "not applied", outcome(t, batch.Errs[19]))
}

// JSON would make one customer of two, or another number of a number.
func TestUnfitRecordsAreRejectedUnsent(t *testing.T) {
	t.Parallel()
	s := newSink(t, modes["protocol"], serve(t, func(http.ResponseWriter, *http.Request) { panic("sent") }))
	for name, spoil := range map[string]func(*sink.Record){
		"subject":   func(r *sink.Record) { r.Subject = "a\xff" },
		"feature":   func(r *sink.Record) { r.Feature = "a\xff" },
		"dimension": func(r *sink.Record) { r.Dimensions = map[string]string{"a": "\xff"} },
		"quantity":  func(r *sink.Record) { r.Quantity = 1 << 53 },
		"zero":      func(r *sink.Record) { r.Quantity = 0 },
		"negative":  func(r *sink.Record) { r.Quantity, r.Kind = math.MinInt64, sink.Max },
		"ID":        func(r *sink.Record) { r.ID = "A" },
		"no ID":     func(r *sink.Record) { r.ID = "" },
		"window":    func(r *sink.Record) { r.End = r.Start },
		"year":      func(r *sink.Record) { r.End = r.End.AddDate(9000, 0, 0) },
	} {
		r := record(1, 1)
		spoil(&r)
		require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{r}), sink.ErrRejected, name)
	}
}

func TestCloudEvent(t *testing.T) {
	t.Parallel()
	bodies := make(chan map[string]any, 1)
	header := make(chan http.Header, 1)
	s := newSink(t, httpsink.Config{
		Token:       "om-token",
		CloudEvents: &httpsink.CloudEvents{Source: "//shop/meter", Types: map[string]string{"tax-report": "report"}, Single: true},
	}, serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		bodies <- body
		header <- r.Header
		w.WriteHeader(204)
	}))
	r := record(1, 3)
	r.Dimensions = map[string]string{"region": "eu"}
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{r}))
	require.Equal(t, map[string]any{
		"specversion": "1.0", "id": "01-record-1", "source": "//shop/meter", "type": "report", "subject": "cus_1",
		"time": "2026-03-01T12:01:59Z", "datacontenttype": "application/json",
		"data": map[string]any{
			"value": 3.0, "kind": "sum", "feature": "tax-report",
			"start": "2026-03-01T12:01:00Z", "end": "2026-03-01T12:02:00Z", "dimensions": map[string]any{"region": "eu"},
		},
	}, <-bodies)
	h := <-header
	require.Equal(t, "Bearer om-token", h.Get("Authorization"))
	require.Equal(t, "application/cloudevents+json", h.Get("Content-Type"))
	require.Empty(t, h.Get("Meter-Signature"))
	require.Zero(t, s.Limits().DedupeWindow, "nobody has promised to dedupe")
	require.Equal(t, []sink.Kind{sink.Sum}, s.Kinds())
}

// slow is a server that has taken the request and then takes its time.
type slow struct{ answer string } // "": not even a status

func (s slow) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	if s.answer == "" {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	body := io.MultiReader(strings.NewReader(s.answer), untilDone{r.Context()})
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {jsonBody}}, Body: io.NopCloser(body)}, nil
}

type untilDone struct{ ctx context.Context }

func (u untilDone) Read([]byte) (int, error) {
	<-u.ctx.Done()
	return 0, u.ctx.Err()
}

// A server that answers never, or bit by bit, holds a delivery no longer than Timeout.
func TestDeliverEndsWithItsTimeout(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", `{"results":[` + result("01-record-1", "delivered")} {
		synctest.Test(t, func(t *testing.T) {
			cfg := modes["protocol"]
			cfg.URL, cfg.Timeout, cfg.Transport = "https://example.com", 5*time.Second, slow{answer}
			begin := time.Now()
			err := httpsink.New(cfg).Deliver(context.Background(), []sink.Record{record(1, 1)})
			require.Equal(t, "doubt", outcome(t, err))
			require.ErrorContains(t, err, "deadline exceeded")
			require.Equal(t, 5*time.Second, time.Since(begin))
		})
	}
}

// The receiver learns all that a record says, so that it can pass it on to a biller.
func TestRecordArrivesAsItWas(t *testing.T) {
	t.Parallel()
	store := memsink.New()
	b := newBackend(t, store, nil)
	r := record(0, 3)
	r.Backdated, r.Instance, r.Dimensions = true, 2, map[string]string{"region": "eu"}
	require.NoError(t, newSink(t, httpsink.Config{Secret: secret}, b.url()).Deliver(t.Context(), []sink.Record{r}))
	require.Equal(t, []sink.Record{r}, store.Records())
}
