package httpsink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

const (
	testSecret  = "canary4711-0123456789abcdef"
	otherSecret = "canary4712-0123456789abcdef"
)

func newHandler(t *testing.T, cfg HandlerConfig) *Handler {
	t.Helper()
	if cfg.Secrets == nil {
		cfg.Secrets = []string{testSecret}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := NewHandler(cfg)
	require.NoError(t, err)
	return h
}

// one is a record's JSON.
func one(id string) string {
	return fmt.Sprintf(`{"id":%q,"feature":"f","subject":"s","kind":"sum","quantity":3,"start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","attempt":1}`, id)
}

func records(all ...string) string { return `{"records":[` + strings.Join(all, ",") + `]}` }

func signed(body string) *http.Request { return request2(jsonType, body, testSecret, time.Now()) }

func request2(kind, body, secret string, at time.Time) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", kind)
	r.Header.Set(signatureHeader, sign(secret, at, []byte(body)))
	return r
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func statuses(t *testing.T, w *httptest.ResponseRecorder) (all []string) {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
	a, err := decodeAnswer(w.Body.Bytes())
	require.NoError(t, err)
	for _, r := range a.Results {
		all = append(all, r.ID+" "+r.Status)
	}
	return all
}

func TestHandlerRefusesWhatItCantBelieve(t *testing.T) {
	t.Parallel()
	body := records(one("a"))
	now := time.Now()
	change := func(f func(*http.Request)) *http.Request {
		r := signed(body)
		f(r)
		return r
	}
	header := func(name, value string) *http.Request {
		return change(func(r *http.Request) { r.Header.Set(name, value) })
	}
	for name, test := range map[string]struct {
		request *http.Request
		status  int
		reason  string
	}{
		"method":            {change(func(r *http.Request) { r.Method = http.MethodGet }), 405, "method"},
		"no type":           {change(func(r *http.Request) { r.Header.Del("Content-Type") }), 415, "media-type"},
		"form":              {header("Content-Type", "application/x-www-form-urlencoded"), 415, "media-type"},
		"unsigned":          {change(func(r *http.Request) { r.Header.Del(signatureHeader) }), 401, "signature"},
		"signed twice":      {change(func(r *http.Request) { r.Header.Add(signatureHeader, r.Header.Get(signatureHeader)) }), 401, "signature"},
		"no signature":      {header(signatureHeader, "Bearer x"), 401, "signature"},
		"foreign secret":    {request2(jsonType, body, otherSecret, now), 401, "signature"},
		"another body":      {header(signatureHeader, sign(testSecret, now, []byte(records(one("b"))))), 401, "signature"},
		"another time":      {header(signatureHeader, strings.Replace(sign(testSecret, now, []byte(body)), fmt.Sprint(now.Unix()), fmt.Sprint(now.Unix()+1), 1)), 401, "signature"},
		"old":               {request2(jsonType, body, testSecret, now.Add(-6*time.Minute)), 401, "stale"},
		"of the future":     {request2(jsonType, body, testSecret, now.Add(6*time.Minute)), 401, "stale"},
		"old and foreign":   {request2(jsonType, body, otherSecret, now.Add(-6*time.Minute)), 401, "signature"},
		"no JSON":           {signed("x"), 400, "malformed"},
		"no records":        {signed("{}"), 400, "malformed"},
		"null":              {signed("null"), 400, "malformed"},
		"two values":        {signed(body + body), 400, "malformed"},
		"bad UTF-8":         {signed(strings.Replace(body, `"s"`, "\"\xff\"", 1)), 400, "malformed"},
		"half a character":  {signed(strings.Replace(body, `"s"`, `"\ud83d"`, 1)), 400, "malformed"},
		"its other half":    {signed(strings.Replace(body, `"s"`, `"\ude00\ud83d"`, 1)), 400, "malformed"},
		"a whole character": {signed(strings.Replace(body, `"s"`, `"\\ud83d\ud83d\ude00\u00e9"`, 1)), 200, ""},
		"fraction":          {signed(strings.Replace(body, `:3`, `:3.5`, 1)), 400, "malformed"},
		"overflow":          {signed(strings.Replace(body, `:3`, `:99999999999999999999`, 1)), 400, "malformed"},
		"no ID":             {signed(records(one("a"), one(""))), 400, "malformed"},
		"odd ID":            {signed(records(one("A b"))), 400, "malformed"},
		"twice":             {signed(records(one("a"), one("a"))), 400, "malformed"},
		"no events":         {request2(eventsType, body, testSecret, now), 400, "malformed"},
		"too many":          {signed(records(many(1001)...)), 413, "too-large"},
		"too large":         {signed(body + strings.Repeat(" ", 4<<20)), 413, "too-large"},
		"within a minute":   {request2(jsonType, body, testSecret, now.Add(-time.Minute)), 200, ""},
		"a little too soon": {request2(jsonType, body, testSecret, now.Add(time.Minute)), 200, ""},
		"the most":          {signed(records(many(1000)...)), 200, ""},
		"with charset":      {header("Content-Type", "application/json; charset=utf-8"), 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stored := memsink.New()
			w := serve(newHandler(t, HandlerConfig{Store: stored}), test.request)
			require.Equal(t, test.status, w.Code, "%s", w.Body)
			if test.status == http.StatusOK {
				require.NotEmpty(t, stored.Records())
				return
			}
			require.Empty(t, stored.Records())
			require.Equal(t, problemType, w.Header().Get("Content-Type"))
			p, err := decodeProblem(w.Body.Bytes())
			require.NoError(t, err)
			require.Equal(t, test.reason, p.Reason)
			require.Equal(t, notApplied, p.Outcome)
			require.Equal(t, test.status, p.Status)
		})
	}
}

func many(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = one(fmt.Sprintf("r-%d", i))
	}
	return all
}

func TestEverySecretIsTakenWhileOneIsReplaced(t *testing.T) {
	t.Parallel()
	h := newHandler(t, HandlerConfig{Store: memsink.New(), Secrets: []string{testSecret, otherSecret}})
	for i, secret := range h.cfg.Secrets {
		require.Equal(t, 200, serve(h, request2(jsonType, records(one(fmt.Sprint(i))), secret, time.Now())).Code)
	}
	// A sender may sign with both, as long as it doesn't know which one is taken.
	body := records(one("z"))
	r := signed(body)
	_, mac, _ := strings.Cut(sign("a secret of nobody here", time.Now(), []byte(body)), ",")
	r.Header.Set(signatureHeader, sign(testSecret, time.Now(), []byte(body))+","+mac+",v2=later")
	require.Equal(t, 200, serve(h, r).Code)
}

// A faulty record is the fault of none of the others.
func TestEachRecordIsAnswered(t *testing.T) {
	t.Parallel()
	stored := memsink.New()
	with := func(id, old, new string) string { return strings.Replace(one(id), old, new, 1) }
	w := serve(newHandler(t, HandlerConfig{Store: stored}), signed(records(
		one("good"),
		with("kind", `"sum"`, `"refund"`),
		with("zero", `:3`, `:0`),
		with("absent", `"quantity":3,`, ``),
		with("much", `:3`, `:9007199254740992`),
		with("window", `12:01`, `12:00`),
		with("subject", `"s"`, `""`),
		strings.Replace(with("level", `"sum"`, `"last"`), `:3`, `:0`, 1),
	)))
	require.Equal(t, []string{
		"good delivered", "kind rejected", "zero rejected", "absent rejected", "much rejected", "window rejected", "subject rejected", "level delivered",
	}, statuses(t, w))
	require.Len(t, stored.Records(), 2)
}

// What a store says, by error, and what the sender hears of it in either form.
func TestStoresAnswerReachesTheSender(t *testing.T) {
	t.Parallel()
	boom := errors.New("dsn=postgres://user:hunter2@db")
	for name, test := range map[string]struct {
		err          error
		want         [2]string
		status, code int // in the protocol's form and of CloudEvents
	}{
		"all":              {nil, [2]string{delivered, delivered}, 200, 204},
		"none now":         {sink.RetryAfter(fmt.Errorf("%w: %w", sink.ErrNotApplied, boom), 7*time.Second), [2]string{notApplied, notApplied}, 503, 503},
		"rejected":         {sink.ErrRejected, [2]string{rejected, rejected}, 200, 422},
		"postponed":        {sink.ErrPostponed, [2]string{postponed, postponed}, 200, 503},
		"doubt":            {boom, [2]string{inDoubt, inDoubt}, 500, 500},
		"contradiction":    {errors.Join(sink.ErrRejected, sink.ErrNotApplied), [2]string{inDoubt, inDoubt}, 500, 500},
		"mixed":            {&sink.BatchError{Errs: []error{nil, sink.ErrRejected}}, [2]string{delivered, rejected}, 200, 422},
		"mixed with doubt": {fmt.Errorf("db: %w", &sink.BatchError{Errs: []error{boom, nil}}), [2]string{inDoubt, delivered}, 200, 500},
		"mixed not now":    {&sink.BatchError{Errs: []error{sink.ErrNotApplied, nil}}, [2]string{notApplied, delivered}, 200, 503},
		"wrong length":     {&sink.BatchError{Errs: []error{sink.ErrNotApplied}}, [2]string{inDoubt, inDoubt}, 500, 500},
		"nil batch":        {(*sink.BatchError)(nil), [2]string{inDoubt, inDoubt}, 500, 500},
		"joined":           {errors.Join(boom, &sink.BatchError{Errs: []error{nil, sink.ErrNotApplied}}), [2]string{inDoubt, inDoubt}, 500, 500},
		"nested":           {&sink.BatchError{Errs: []error{nil, &sink.BatchError{Errs: []error{sink.ErrNotApplied}}}}, [2]string{delivered, inDoubt}, 200, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			h := newHandler(t, HandlerConfig{
				Store:  Idempotent(func(context.Context, []sink.Record) error { return test.err }),
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			w := serve(h, signed(records(one("a"), one("b"))))
			require.Equal(t, test.status, w.Code)
			if w.Code == 200 {
				require.Equal(t, []string{"a " + test.want[0], "b " + test.want[1]}, statuses(t, w))
			} else {
				p, err := decodeProblem(w.Body.Bytes())
				require.NoError(t, err)
				require.Equal(t, test.want[0], p.Outcome)
			}
			require.NotContains(t, w.Body.String(), "hunter2", "the store's insides are not the sender's")
			if w.Code == 503 {
				require.Equal(t, "7", w.Header().Get("Retry-After"))
			}
			if errors.Is(test.err, boom) {
				require.Contains(t, log.String(), "hunter2", "but the operator's")
			}

			w = serve(h, request2(eventsType, events(t, "a", "b"), testSecret, time.Now()))
			require.Equal(t, test.code, w.Code, "%s", w.Body)
		})
	}
}

func events(t *testing.T, ids ...string) string {
	t.Helper()
	var all []eventJSON
	for _, id := range ids {
		var j recordJSON
		require.NoError(t, json.Unmarshal([]byte(one(id)), &j))
		r, err := j.record()
		require.NoError(t, err)
		all = append(all, (&CloudEvents{Source: "x"}).event(r))
	}
	body, err := json.Marshal(all)
	require.NoError(t, err)
	return string(body)
}

// Two requests with one ID: the second one waits for the store's answer to the first.
func TestDuplicatesAtATimeAreSerialized(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most, calls atomic.Int32
		stored := memsink.New()
		h := newHandler(t, HandlerConfig{Store: Idempotent(func(ctx context.Context, records []sink.Record) error {
			calls.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return stored.Deliver(ctx, records)
		})})
		var wg sync.WaitGroup
		for range 8 { // overlapping in every way, and in any order
			for _, body := range []string{records(one("a"), one("b")), records(one("b"), one("c")), records(one("c"), one("a"))} {
				wg.Go(func() { require.Len(t, statuses(t, serve(h, signed(body))), 2) })
			}
		}
		wg.Wait()
		require.EqualValues(t, 24, calls.Load())
		require.EqualValues(t, 1, most.Load())
		require.EqualValues(t, 9, stored.Total("f", "s"))
		require.Empty(t, h.turns.taken)
	})
}

// One customer's use of one feature is stored one request after another, which sinks
// count on.
func TestOneSeriesAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &limited{limits: sink.Limits{Concurrency: 9, DedupeWindow: time.Hour}}
		h := newHandler(t, HandlerConfig{Store: store})
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() { require.Len(t, statuses(t, serve(h, signed(records(one(fmt.Sprint(n)))))), 1) })
		}
		wg.Wait()
		require.Equal(t, 6, store.calls)
		require.Equal(t, 1, store.most)
	})
}

// Different customers' records don't wait for each other, up to what the store takes.
func TestStoreIsCalledAsItsLimitsSay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &limited{limits: sink.Limits{MaxBatch: 2, Concurrency: 3, DedupeWindow: time.Hour, MaxQuantity: 5}}
		h := newHandler(t, HandlerConfig{Store: store})
		var wg sync.WaitGroup
		for n := range 6 {
			body := strings.ReplaceAll(records(one(fmt.Sprintf("%d-a", n)), one(fmt.Sprintf("%d-b", n)), one(fmt.Sprintf("%d-c", n))), `"s"`, fmt.Sprintf("%q", fmt.Sprint("s", n)))
			wg.Go(func() { require.Len(t, statuses(t, serve(h, signed(body))), 3) })
		}
		wg.Wait()
		require.EqualValues(t, 3, store.most)
		require.Equal(t, 2, store.largest)
		require.Equal(t, 12, store.calls)
		require.Equal(t, []string{"z rejected"}, statuses(t, serve(h, signed(strings.Replace(records(one("z")), ":3", ":6", 1)))))
		require.Equal(t, []string{"z rejected"}, statuses(t, serve(h, signed(strings.Replace(records(one("z")), "sum", "max", 1)))))
	})
}

type limited struct {
	limits                        sink.Limits
	mu                            sync.Mutex
	running, most, largest, calls int
}

func (l *limited) Limits() sink.Limits { return l.limits }
func (l *limited) Kinds() []sink.Kind  { return []sink.Kind{sink.Sum} }
func (l *limited) Deliver(_ context.Context, records []sink.Record) error {
	l.mu.Lock()
	l.calls++
	l.running++
	l.most, l.largest = max(l.most, l.running), max(l.largest, len(records))
	l.mu.Unlock()
	time.Sleep(time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	return nil
}

// A sender that is gone doesn't end what was begun; one that waits for its turn may go.
func TestHandlerOutlastsItsSender(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := newHandler(t, HandlerConfig{Store: Idempotent(func(ctx context.Context, _ []sink.Record) error {
			calls++
			time.Sleep(10 * time.Second)
			return ctx.Err()
		})})
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan *httptest.ResponseRecorder, 1)
		go func() { first <- serve(h, signed(records(one("a"))).WithContext(gone)) }()
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		w := serve(h, signed(records(one("a"))).WithContext(impatient))
		require.Equal(t, 503, w.Code)
		require.Equal(t, "5", w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), notApplied)
		require.Equal(t, []string{"a delivered"}, statuses(t, <-first))
		require.Equal(t, 1, calls)
		require.Empty(t, h.turns.taken)
	})
}

// A store that takes longer than its own limit is asked to stop, and is in doubt.
func TestStoreHasALimitedTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, HandlerConfig{Store: Idempotent(func(ctx context.Context, _ []sink.Record) error {
			<-ctx.Done()
			return ctx.Err()
		})})
		begin := time.Now()
		w := serve(h, signed(records(one("a"))))
		require.Equal(t, 500, w.Code)
		p, err := decodeProblem(w.Body.Bytes())
		require.NoError(t, err)
		require.Equal(t, inDoubt, p.Outcome)
		require.Equal(t, 30*time.Second, time.Since(begin))
	})
}

func TestBusyHandlerSaysThatNothingWasApplied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, HandlerConfig{MaxRequests: 1, Store: Idempotent(func(context.Context, []sink.Record) error {
			time.Sleep(time.Second)
			return nil
		})})
		done := make(chan int)
		go func() { done <- serve(h, signed(records(one("a")))).Code }()
		synctest.Wait()
		w := serve(h, signed(records(one("b"))))
		require.Equal(t, 503, w.Code)
		require.Contains(t, w.Body.String(), `"outcome":"not-applied"`)
		require.Equal(t, 200, <-done)
	})
}

// A store that panics has answered nothing; the next attempt gets its turn.
func TestPanicOfTheStoreIsNoAnswer(t *testing.T) {
	t.Parallel()
	panics := true
	h := newHandler(t, HandlerConfig{MaxRequests: 1, Store: Idempotent(func(context.Context, []sink.Record) error {
		if panics {
			panic("store")
		}
		return nil
	})})
	w := httptest.NewRecorder()
	require.PanicsWithValue(t, "store", func() { h.ServeHTTP(w, signed(records(one("a")))) })
	require.Empty(t, w.Body.String())
	panics = false
	require.Equal(t, []string{"a delivered"}, statuses(t, serve(h, signed(records(one("a"))))))
}

func TestBatchOfNoRecordsTellsTheWindow(t *testing.T) {
	t.Parallel()
	for window, want := range map[time.Duration]int64{sink.Forever: maxSeconds, 24 * time.Hour: 86400} {
		h := newHandler(t, HandlerConfig{Store: &limited{limits: sink.Limits{DedupeWindow: window}}})
		a, err := decodeAnswer(serve(h, signed(records())).Body.Bytes())
		require.NoError(t, err)
		require.Equal(t, want, *a.DedupeSeconds)
	}
	require.Equal(t, 204, serve(newHandler(t, HandlerConfig{Store: memsink.New()}), request2(eventsType, "[]", testSecret, time.Now())).Code)
}

func TestHandlerConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := NewHandler(HandlerConfig{
		Secrets: []string{"short canary", testSecret + "\n"}, Store: sink.Func(func(context.Context, []sink.Record) error { return nil }),
		MaxAge: time.Millisecond, MaxBody: 1, MaxRequests: -1,
	})
	for _, field := range []string{"Secrets[0]", "Secrets[1]", "Store states no Limits.DedupeWindow", "MaxAge", "MaxBody", "MaxRequests"} {
		require.ErrorContains(t, err, "HandlerConfig."+field)
	}
	require.NotContains(t, err.Error(), "canary")
	_, err = NewHandler(HandlerConfig{Store: New(Config{})})
	require.ErrorContains(t, err, "HandlerConfig.Secrets is empty")
	require.ErrorContains(t, err, "HandlerConfig.Store is faulty")
	_, err = NewHandler(HandlerConfig{Store: Idempotent(nil)})
	require.ErrorContains(t, err, "HandlerConfig.Store is nil")
}
