package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"golang.org/x/time/rate"
)

const (
	product      = 3646
	checkToken   = "WyIxIiwiZ2V0a2V5Il0"     // has the permission GetKey, and no other
	billingToken = "WyIyIiwic3Vic2NyaXB0Il0" // has the permission Subscription, and no other
)

// server is a small service that sells two features by license.
type server struct {
	http.Handler
	meter    *meter.Meter
	verdicts *cache.Cache
}

// open is all the setup there is: who may call, how often, and who bills. dir
// outlives the process. api stands in for api.cryptolens.io.
func open(dir string, api *cryptolenstest.Server, logger *slog.Logger) (*server, error) {
	licenses := cryptolens.NewChecker(cryptolens.Config{
		Token:      checkToken,
		ProductID:  product,
		PublicKeys: []string{api.PublicKeyXML()},                 // in production, from the account settings
		Features:   map[string]int{"tax-report": 1, "export": 2}, // F1 and F2 of the license
		BaseURL:    cryptolenstest.URL, HTTPClient: api.Client(), // in production, leave them out
	})
	// Cryptolens is asked when a customer comes for the first time, and behind their back
	// every five minutes. If it can't be reached, they are let through for a day.
	verdicts := cache.New(cache.Config{
		Checker: licenses,
		File:    filepath.Join(dir, "licenses"),
		Logger:  logger,
	})
	// Records are billed by license key, which the counts don't hold: the cache knows it.
	bill := cryptolenssink.New(cryptolenssink.Config{
		Token:     billingToken,
		ProductID: product,
		Key:       verdicts.Key,
		Features:  []string{"tax-report", "export"},
		BaseURL:   cryptolenstest.URL, HTTPClient: api.Client(), // in production, leave them out
	})
	m, err := meter.Open(meter.Config{
		Dir:      filepath.Join(dir, "counts"),
		Sinks:    []meter.Route{{Name: "cryptolens", Sink: bill}},
		Checker:  verdicts,
		Identify: meter.KeyHeader("X-License-Key"),
		Logger:   logger,
		Window:   meter.OnFlush, // sent by Flush here, so that the story is always the same; you would leave this out
	})
	if err != nil {
		return nil, err
	}
	report := m.Feature("tax-report")
	export := m.Feature("export", meter.Rate(rate.Every(time.Minute), 2)) // two at once, one a minute

	mux := http.NewServeMux()
	mux.Handle("POST /tax-report", meter.Middleware(report)(http.HandlerFunc(createReport)))
	mux.Handle("POST /export", meter.Middleware(export)(http.HandlerFunc(exportAll)))
	return &server{mux, m, verdicts}, nil
}

func createReport(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "a tax report") }
func exportAll(w http.ResponseWriter, _ *http.Request)    { _, _ = fmt.Fprintln(w, "all there is") }
