package main

import (
	"context"
	"fmt"
	"iter"
	"net/http"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
)

const (
	included = 1500 // tokens a month
	most     = 500  // that one answer may take
)

type proxy struct {
	meter  *meter.Meter
	tokens *meter.Feature
	ended  chan struct{} // for the demonstration: a handler has ended
}

func newProxy(cfg meter.Config) (*proxy, error) {
	m, err := meter.Open(cfg)
	if err != nil {
		return nil, err
	}
	tokens := m.Feature("tokens", meter.Unit("token"),
		meter.Limit(func(_ context.Context, tenant string) (license.Quota, error) {
			return license.Quota{Limit: included}, nil // a real program looks up the tenant's plan
		}),
		meter.Hold(most))
	return &proxy{m, tokens, make(chan struct{}, 1)}, nil
}

func (p *proxy) handler() http.Handler {
	byTenant := meter.Identify(func(r *http.Request) (meter.Caller, error) {
		return meter.Caller{Subject: r.Header.Get("X-Tenant")}, nil
	})
	// Tokens that were sent are owed, also by a client that leaves midway.
	sent := meter.CountWhen(func(r meter.Result) bool { return r.Status < 400 && !r.Unseen })
	chat := meter.Middleware(p.tokens, byTenant, sent)(http.HandlerFunc(p.chat))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chat", func(w http.ResponseWriter, r *http.Request) {
		defer func() { p.ended <- struct{}{} }()
		chat.ServeHTTP(w, r)
	})
	mux.Handle("GET /usage", p.meter.Usage(byTenant))
	return mux
}

// chat passes the model's answer on, token by token, and counts what it has sent.
func (p *proxy) chat(w http.ResponseWriter, r *http.Request) {
	call, _ := meter.CallFrom(r.Context())
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for token := range model(r.Context(), r.FormValue("q")) {
		if _, err := fmt.Fprintf(w, "data: %s\n\n", token); err != nil {
			return // it has left
		}
		if out.Flush() != nil || call.AddQuantity(1) != nil {
			return
		}
	}
}

// model stands for one that takes its time. It stops when nobody listens any more.
func model(ctx context.Context, prompt string) iter.Seq[string] {
	length, ends := 300, true
	switch prompt {
	case "a long story":
		length = most
	case "leaves midway":
		length, ends = 100, false
	}
	return func(yield func(string) bool) {
		for i := range length {
			if !yield(fmt.Sprint("word", i)) {
				return
			}
		}
		if !ends {
			<-ctx.Done() // it thinks about the next word
		}
	}
}
