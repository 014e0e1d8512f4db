package stripeapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76"
)

type eventV2 struct {
	stripe.APIResource
	ID string `json:"id"`
}

func TestGetV2(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Stripe-Version") != "2024-09-30.acacia" || r.Header.Get("Authorization") != "Bearer "+key {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if r.Method+r.URL.String() != "GET/v2/core/events/evt_1" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error": {"type": "invalid_request_error", "code": "not_found", "message": "None."}}`)
			return
		}
		fmt.Fprint(w, `{"id": "evt_1"}`)
	}))
	t.Cleanup(server.Close)
	api := stripeapi.New(server.URL, server.Client())

	ctx, exchange := stripeapi.Watch(t.Context())
	var e eventV2
	require.NoError(t, api.GetV2(ctx, key, "/v2/core/events/evt_1", &e))
	require.Equal(t, "evt_1", e.ID)
	require.Equal(t, http.StatusOK, exchange.Status)

	err := api.GetV2(t.Context(), key, "/v2/core/events/evt_2", &e)
	refusal, ok := errors.AsType[*stripe.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, http.StatusNotFound, refusal.HTTPStatusCode)
}
