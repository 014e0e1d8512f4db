package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

// client is the customers' side. It notes what was not as the story has it.
type client struct {
	server *server
	api    *cryptolenstest.Server
	told   int
	wrong  error
}

func (c *client) chapter(title string) {
	c.told++
	fmt.Printf("\n%d. %s\n", c.told, title)
}

// use calls a feature, and says what came back and what it took.
func (c *client) use(who, key, feature string, status int, reason license.Reason) {
	r := httptest.NewRequest(http.MethodPost, "/"+feature, nil)
	if key != "" {
		r.Header.Set("X-License-Key", key)
	}
	w, before := httptest.NewRecorder(), c.api.RequestsTo("key/GetKey")
	c.server.ServeHTTP(w, r)

	var problem struct{ Reason license.Reason }
	if w.Code >= 400 {
		c.note(json.Unmarshal(w.Body.Bytes(), &problem))
	}
	asked := "from memory"
	switch {
	case c.api.RequestsTo("key/GetKey") > before:
		asked = "Cryptolens was asked"
	case w.Code == http.StatusUnauthorized:
		asked = "nothing to ask for"
	case w.Code == http.StatusServiceUnavailable:
		asked = "Cryptolens could not be asked"
	}
	fmt.Printf("  %-7s  %-10s  %d %-12s  %s%s\n", who, feature, w.Code, problem.Reason, asked, limits(w.Header()))
	if w.Code != status || problem.Reason != reason {
		c.note(fmt.Errorf("%s of %s should have come to %d %s", feature, who, status, reason))
	}
}

// limits are the header fields by which a client learns to slow down.
func limits(h http.Header) string {
	var all []string
	for _, name := range []string{"RateLimit-Policy", "RateLimit", "Retry-After"} {
		if v := h.Get(name); v != "" {
			all = append(all, name+": "+v)
		}
	}
	if all == nil {
		return ""
	}
	return "\n           " + strings.Join(all, "  ")
}

// billed compares what Cryptolens has recorded with what the customer used.
func (c *client) billed(who, key string, want int64) {
	got := c.api.Total(product, key)
	fmt.Printf("  %-7s  is billed %d\n", who, got)
	if got != want {
		c.note(fmt.Errorf("%s should be billed %d", who, want))
	}
}

func (c *client) note(err error) { c.wrong = errors.Join(c.wrong, err) }
