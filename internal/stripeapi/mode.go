package stripeapi

import (
	"fmt"
	"strings"
)

// Mode names the mode, live or test, of a key or an object.
func Mode(live bool) string {
	if live {
		return "live"
	}
	return "test"
}

// CheckMode refuses a key of another mode than the one wanted, "" for either: a live
// key in a test bills somebody for it, and a test key in production nobody for anything.
//
// Errors: the fault, to follow the field's name; never with the key in it.
func CheckMode(mode, key string) error {
	switch mode {
	case "":
		return nil
	case "live", "test":
	default:
		return fmt.Errorf("is %q: use TestMode, LiveMode, or leave it empty for either", Clean(mode, key))
	}
	if CheckKey(key) != nil {
		return nil // the key's own fault says more
	}
	if is := Mode(Live(key)); is != mode {
		return fmt.Errorf("is %s, and Key is a %s key: one of them is in the wrong place", mode, is)
	}
	return nil
}

// CheckObject compares the mode of what Stripe answered with that of the key. They
// differ when a gateway in between uses a key of its own. A stand-in on this machine,
// where alone plain HTTP may lead, says what it likes: stripe-mock's meter is live.
//
// Errors: the difference, and what to look at.
func CheckObject(livemode bool, key, baseURL string) error {
	if strings.HasPrefix(baseURL, "http://") {
		return nil
	}
	is, want := Mode(livemode), Mode(Live(key))
	if is == want {
		return nil
	}
	return fmt.Errorf("it belongs to %s mode, and the key to %s mode: look at what BaseURL leads to", is, want)
}
