package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
)

// licenses stands for a licensing server: key K-1 is customer cus_ada's, and K-2
// was cus_bob's.
var licenses = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
	switch q.Key {
	case license.NewKey("K-1"):
		return license.Verdict{Status: license.Allowed, Subject: "cus_ada"}, nil
	case license.NewKey("K-2"):
		return license.Verdict{Status: license.Denied, Reason: license.Expired, Subject: "cus_bob"}, nil
	}
	return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
})

func routes(m *meter.Meter) http.Handler {
	report := m.Feature("tax-report")
	metered := meter.Middleware(report)

	mux := http.NewServeMux()
	mux.Handle("POST /reports/{year}", metered(http.HandlerFunc(createReport)))
	// Not metered, so free. Probes must not stop a server that still counts because
	// the biller is down, so what Health says is for whoever is alerted.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /alerts", func(w http.ResponseWriter, _ *http.Request) {
		if err := m.Health(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}

// createReport knows nothing of metering. Years without taxes are not found, and
// 1999 is a bug.
func createReport(w http.ResponseWriter, r *http.Request) {
	switch year := r.PathValue("year"); {
	case year == "1999":
		panic("two digits were not enough")
	case len(year) != 4 || year < "1900":
		http.NotFound(w, r)
	default:
		_, _ = fmt.Fprintln(w, "the taxes of", year)
	}
}
