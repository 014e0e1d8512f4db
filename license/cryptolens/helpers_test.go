package cryptolens_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

const (
	product = 3646
	token   = "tokencanary4711"
	keyText = "KEYCANARY-AAAAA-BBBBB-CCCCC"
)

var key = license.NewKey(keyText)

// newServer returns an API that has the key, and a client of it.
func newServer(t *testing.T) (*cryptolenstest.Server, *cryptolens.Client) {
	t.Helper()
	srv := cryptolenstest.New()
	srv.AddToken(token)
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: keyText, MaxNoOfMachines: 2})
	return srv, newClient(srv.Client(), token)
}

func newClient(over *http.Client, token string) *cryptolens.Client {
	return cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: cryptolenstest.URL, HTTPClient: over})
}

func second[T any](_ T, err error) error { return err }

// served is a client whose requests all lead to a handler.
func served(t *testing.T, h http.Handler) *http.Client {
	t.Helper()
	return &http.Client{Transport: handled{h}}
}

type handled struct{ http.Handler }

func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec.Result(), nil
}
