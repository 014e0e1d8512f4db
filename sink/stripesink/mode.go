package stripesink

import (
	"errors"
	"fmt"
	"strings"

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

func modeOf(live bool) Mode {
	if live {
		return LiveMode
	}
	return TestMode
}

// check refuses a key of the other mode: a live key in a test bills somebody for
// it, and a test key in production bills nobody for anything.
func (m Mode) check(key string) error {
	switch m {
	case "":
		return nil
	case TestMode, LiveMode:
	default:
		return fmt.Errorf("is %q: use TestMode, LiveMode, or leave it empty for either", stripeapi.Clean(string(m), key))
	}
	if stripeapi.CheckKey(key) != nil {
		return nil // the key's own fault says more
	}
	if is := modeOf(stripeapi.Live(key)); is != m {
		return fmt.Errorf("is %s, and Key is a %s key: one of them is in the wrong place", m, is)
	}
	return nil
}

// checkObject compares the mode of what Stripe answered with that of the key. They
// differ when a gateway in between uses a key of its own. A stand-in on this machine,
// where alone plain HTTP may lead, says what it likes: stripe-mock's meter is live.
func checkObject(livemode bool, key, baseURL string) error {
	if strings.HasPrefix(baseURL, "http://") {
		return nil
	}
	is, want := modeOf(livemode), modeOf(stripeapi.Live(key))
	if is == want {
		return nil
	}
	return fmt.Errorf("it belongs to %s mode, and the key to %s mode: look at what BaseURL leads to", is, want)
}

// checkAccess finds the faults of the fields that every configuration has.
func checkAccess(fault func(field string, err error), key string, mode Mode, baseURL string) {
	fault("Key", stripeapi.CheckKey(key))
	fault("Mode", mode.check(key))
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
