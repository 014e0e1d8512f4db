package meter_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
)

func createReport(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "a report") }

// byCustomer trusts a header that only the host's own proxy can set.
var byCustomer meter.Identify = func(r *http.Request) (meter.Caller, error) {
	return meter.Caller{Subject: r.Header.Get("X-Customer")}, nil
}

// request serves one request and prints its status.
func request(h http.Handler, header, value string) {
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/reports", nil)
	r.Header.Set(header, value)
	h.ServeHTTP(w, r)
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body)))
}

func ExampleMiddleware() {
	m, _ := memory(func(c *meter.Config) {
		c.Identify = meter.KeyHeader("X-License-Key")
		c.Checker = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
			if q.Key == license.NewKey("K-1") {
				return license.Verdict{Status: license.Allowed, Subject: "cus_1"}, nil
			}
			return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
		})
	})
	report := m.Feature("tax-report")
	mux := http.NewServeMux()
	mux.Handle("POST /reports", meter.Middleware(report)(http.HandlerFunc(createReport)))

	request(mux, "X-License-Key", "K-1")
	request(mux, "X-License-Key", "nonsense")
	fmt.Println("counted:", report.Total("cus_1").Quantity)
	// Output:
	// 200 a report
	// 403 {"type":"https://pkg.go.dev/github.com/inprocess/meter/license#NotFound","title":"Forbidden","status":403,"detail":"The license is not known.","reason":"not-found","feature":"tax-report"}
	// counted: 1
}

// A streaming handler whose quantity is known while it runs.
func ExampleHold() {
	m, _ := memory()
	tokens := m.Feature("tokens", meter.Unit("token"))
	h := meter.Middleware(tokens, byCustomer, meter.Hold(5000))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, _ := meter.CallFrom(r.Context())
		for _, token := range []string{"a", "b", "c"} {
			_ = call.AddQuantity(1) // survives a client that leaves
			fmt.Fprint(w, token)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	request(h, "X-Customer", "cus_1")
	fmt.Println("counted:", tokens.Total("cus_1").Quantity)
	// Output:
	// 200 abc
	// counted: 3
}

func ExampleCountWhen() {
	m, _ := memory()
	search := m.Feature("search")
	found := meter.CountWhen(func(r meter.Result) bool { return r.Status == http.StatusOK })
	h := meter.Middleware(search, byCustomer, found)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	request(h, "X-Customer", "cus_1")
	fmt.Println("counted:", search.Total("cus_1").Quantity)
	// Output:
	// 204
	// counted: 0
}

func ExampleRate() {
	m, _ := memory()
	search := m.Feature("search", meter.Rate(10, 1), meter.Refuse(func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusTooManyRequests)
	}))
	h := meter.Middleware(search, byCustomer)(http.HandlerFunc(createReport))
	request(h, "X-Customer", "cus_1")
	request(h, "X-Customer", "cus_1")
	// Output:
	// 200 a report
	// 429 meter: refused: too-fast: feature "search"
}

// What clients are told: how much they may, and how they stand.
func ExampleRate_fields() {
	m, _ := memory()
	report := m.Feature("tax-report", meter.Rate(100.0/60, 100)) // 100 a minute
	h := meter.Middleware(report, byCustomer)(http.HandlerFunc(createReport))
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/reports", nil)
	r.Header.Set("X-Customer", "cus_1")
	h.ServeHTTP(w, r)
	fmt.Println(w.Header().Get("RateLimit-Policy"))
	fmt.Println(w.Header().Get("RateLimit"))
	// Output:
	// "tax-report";q=100;w=60
	// "tax-report";r=99;t=1
}

func ExampleRefuse() {
	m, _ := memory()
	plain := meter.Refuse(func(w http.ResponseWriter, _ *http.Request, _ error) {
		http.Error(w, "ask sales@example.com", http.StatusPaymentRequired)
	})
	request(meter.Middleware(m.Feature("export"), byCustomer, plain)(http.HandlerFunc(createReport)), "X-Customer", "")
	// Output: 402 ask sales@example.com
}

// A frame of any other framework: Begin, then Commit or Cancel.
func ExampleWriteProblem() {
	m, _ := memory()
	report := m.Feature("tax-report")
	adapter := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := meter.KeyBearer()(r)
		if err == nil {
			_, _, err = report.Begin(meter.WithCaller(r.Context(), who))
		}
		if err != nil {
			meter.WriteProblem(w, r, err)
		}
	})
	w := httptest.NewRecorder()
	adapter.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="meter"
}

// Trying a license server out before it may refuse anybody.
func ExampleDecision() {
	m, _ := memory(func(c *meter.Config) {
		c.Shadow = true
		c.OnDecision = func(_ context.Context, d meter.Decision) {
			if d.Refusal != nil {
				fmt.Println("would refuse:", d.Refusal.Reason)
			}
		}
	})
	request(meter.Middleware(m.Feature("tax-report"), byCustomer)(http.HandlerFunc(createReport)), "X-Customer", "")
	// Output:
	// would refuse: no-key
	// 200 a report
}
