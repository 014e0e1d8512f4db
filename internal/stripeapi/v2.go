package stripeapi

import (
	"context"
	"net/http"

	"github.com/stripe/stripe-go/v76"
)

// versionV2 is the first version that serves /v2; the SDK's own does not.
const versionV2 = "2024-09-30.acacia"

// GetV2 reads the object at path, such as "/v2/core/events/evt_1", into v. An ID in
// path is the caller's to check. An answer below 400 counts as success, as with the
// SDK: [Watch] tells which it was.
//
// Errors: the SDK's, a [*stripe.Error] if Stripe answered with one. They may quote
// the answer: [Clean] them.
func (a *API) GetV2(ctx context.Context, key, path string, v stripe.LastResponseSetter) error {
	return a.Backend.Call(http.MethodGet, path, key, &stripe.Params{
		Context: ctx,
		Headers: http.Header{"Stripe-Version": {versionV2}},
	}, v)
}
