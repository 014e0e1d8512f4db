package stripesink

import (
	"errors"
	"fmt"

	"github.com/inprocess/meter/internal/stripeapi"
)

// Mode is one of Stripe's two worlds: in one nobody pays, in the other somebody
// does. The zero value takes a key of either.
//
// Concurrency: a plain value.
type Mode string

const (
	TestMode Mode = "test" // keys sk_test_… and rk_test_…, also those of a sandbox
	LiveMode Mode = "live" // keys sk_live_… and rk_live_…
)

// checkAccess finds the faults of the fields that every configuration has.
func checkAccess(fault func(field string, err error), key string, mode Mode, baseURL string) {
	fault("Key", stripeapi.CheckKey(key))
	fault("Mode", stripeapi.CheckMode(string(mode), key))
	if baseURL != "" {
		fault("BaseURL", stripeapi.CheckURL(baseURL))
	}
}

// collect returns a function that notes faults under the owner's name, and one that
// joins them.
func collect(owner string) (fault func(field string, err error), all func() error) {
	var faults []error
	return func(field string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("stripesink: %s.%s %w", owner, field, err))
		}
	}, func() error { return errors.Join(faults...) }
}
