package stripeapi

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"
)

// maxSkew is how far a delivery's time may be from ours, either way.
const maxSkew = webhook.DefaultTolerance

var (
	errMethod   = errors.New("only POST")
	errTooLarge = errors.New("too large")
	errUnread   = errors.New("unreadable")
	errUnsigned = errors.New("no valid signature")
	errStale    = errors.New("not signed within 5 minutes of now")
)

// CheckSecret tells what is wrong with a webhook's signing secret.
//
// Errors: the fault, to follow the field's name; never with the secret in it.
func CheckSecret(secret string) error {
	// An empty secret above all: anybody can sign with it.
	if rest, ok := strings.CutPrefix(secret, "whsec_"); !ok || rest == "" || strings.ContainsAny(rest, " \t\r\n") {
		return errors.New(`is no signing secret: it starts with "whsec_" and has no spaces`)
	}
	return nil
}

// ReadDelivery reads a POST of at most limit bytes that one of the secrets has signed.
// Anything else it answers itself, and returns why.
//
// Errors: what it has answered; without a secret, or a word of the request.
func ReadDelivery(w http.ResponseWriter, r *http.Request, secrets []string, limit int64) ([]byte, error) {
	refuse := func(status int, err error) ([]byte, error) {
		http.Error(w, err.Error(), status)
		return nil, err
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, errMethod)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return refuse(http.StatusRequestEntityTooLarge, errTooLarge)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, errUnread)
	}
	if err := checkSignature(body, r.Header.Get("Stripe-Signature"), secrets); err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	return body, nil
}

// checkSignature accepts what one of the secrets has signed, near our time. The SDK
// refuses old times only.
func checkSignature(body []byte, header string, secrets []string) error {
	for _, secret := range secrets {
		switch err := webhook.ValidatePayloadWithTolerance(body, header, secret, maxSkew); {
		case errors.Is(err, webhook.ErrTooOld):
			return errStale
		case err == nil && time.Until(signedAt(header)) > maxSkew:
			return errStale
		case err == nil:
			return nil
		}
	}
	return errUnsigned
}

// signedAt reads the time of a signature that the SDK has accepted: the last t, as it
// does.
func signedAt(header string) (at time.Time) {
	for pair := range strings.SplitSeq(header, ",") {
		if text, ok := strings.CutPrefix(pair, "t="); ok {
			seconds, _ := strconv.ParseInt(text, 10, 64) // the SDK could
			at = time.Unix(seconds, 0)
		}
	}
	return at
}
