package cryptolens

import (
	"context"
	"errors"
	"fmt"
	"strings"

	wire "github.com/inprocess/meter/internal/cryptolens"
)

// Outcomes and classes: every error of a [Client] is ErrNotApplied or ErrInDoubt.
var (
	// ErrNotApplied says that the call surely changed nothing.
	ErrNotApplied = errors.New("not applied")
	// ErrInDoubt says that the call may have been applied; of a call that only reads,
	// that it got no answer to rely on.
	ErrInDoubt = errors.New("in doubt")

	// ErrConfig is the class of what the vendor must correct: token, permission,
	// product, account. It says nothing about the customer.
	ErrConfig = fmt.Errorf("%w: configuration", ErrNotApplied)
	// ErrLicense is the class of what stands against the customer's key.
	ErrLicense = fmt.Errorf("%w: license", ErrNotApplied)
)

// What the API says for sure, each with its exact words.
var (
	ErrAuthentication = fmt.Errorf("%w: token refused", ErrConfig)                   // Unable to authenticate.
	ErrAccessDenied   = fmt.Errorf("%w: token without permission", ErrConfig)        // Access denied.
	ErrPermission     = fmt.Errorf("%w: token without permission or key", ErrConfig) // Not enough permission and/or key not found.
	ErrVendorUnpaid   = fmt.Errorf("%w: no active subscription", ErrConfig)          // No active subscription found. Please contact support.
	ErrNoProduct      = fmt.Errorf("%w: no such product", ErrConfig)                 // Could not find the product.
	ErrNoProcessor    = fmt.Errorf("%w: no payment processor", ErrConfig)            // No Stripe payment processor was set up.

	ErrNoKey        = fmt.Errorf("%w: no such key", ErrLicense)        // Could not find the key.
	ErrBlocked      = fmt.Errorf("%w: key is blocked", ErrLicense)     // The key is blocked and cannot be accessed.
	ErrMachineLimit = fmt.Errorf("%w: no machine is free", ErrLicense) // Cannot activate the new device as the limit has been reached.

	ErrInput              = fmt.Errorf("%w: faulty input", ErrNotApplied)          // The input parameters were incorrect. Also for what is not sent.
	ErrNoSubscriptionItem = fmt.Errorf("%w: nothing to bill by", ErrNotApplied)    // The subscription item id could not be found.
	ErrNotActivated       = fmt.Errorf("%w: machine not activated", ErrNotApplied) // Either the machine code was never activated or key activation feature was never set up.
	ErrNotSent            = fmt.Errorf("%w: not sent", ErrNotApplied)              // the API could not be reached, or the context had ended
)

// What leaves a doubt.
var (
	ErrUsageCounter = fmt.Errorf("%w: usage counter", ErrInDoubt)       // Could not increment the usage counter.
	ErrTemporary    = fmt.Errorf("%w: trouble of the API", ErrInDoubt)  // Something went wrong. Please contact support@cryptolens.io and we will try to fix it.
	ErrUnknown      = fmt.Errorf("%w: unknown message", ErrInDoubt)     // the API refused in words that are not known
	ErrReply        = fmt.Errorf("%w: no reply of the API", ErrInDoubt) // sent, and what came back says nothing
)

// spoken are the API's own messages, as folded by fold.
var spoken = map[string]error{
	"unable to authenticate":                                       ErrAuthentication,
	"access denied":                                                ErrAccessDenied,
	"not enough permission and/or key not found":                   ErrPermission,
	"no active subscription found. please contact support":         ErrVendorUnpaid,
	"could not find the product":                                   ErrNoProduct,
	"no stripe payment processor was set up":                       ErrNoProcessor,
	"could not find the key":                                       ErrNoKey,
	"the key is blocked and cannot be accessed":                    ErrBlocked,
	"cannot activate the new device as the limit has been reached": ErrMachineLimit,
	"the input parameters were incorrect":                          ErrInput,
	"the subscription item id could not be found":                  ErrNoSubscriptionItem,
	"either the machine code was never activated or key activation feature was never set up": ErrNotActivated,
	"could not increment the usage counter":                                                  ErrUsageCounter,
	"something went wrong. please contact support@cryptolens.io and we will try to fix it":   ErrTemporary,
}

// fold makes messages comparable: some documents print them without the final dot.
func fold(message string) string {
	return strings.ToLower(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(message), ".")))
}

// Error is what became of a call that did not succeed. It holds neither token nor key.
//
// Concurrency: read-only.
type Error struct {
	Method  string // of the API, such as "RecordUsage"
	Status  int    // of HTTP; 0: no response
	Message string // what the API said; where it said nothing, what went wrong
	Err     error  // one of the named errors

	ended error // of the context, if that ended the call
}

// Error names the method, the named error, the status and the message. Of a method that
// only reads it does not name the outcome, for nothing could have been applied.
func (e *Error) Error() string {
	text := fmt.Sprintf("cryptolens: %s: %s", e.Method, e.named())
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Status != 0 {
		text += fmt.Sprintf(" (status %d)", e.Status)
	}
	return text
}

func (e *Error) named() string {
	text := fmt.Sprint(e.Err)
	if e.Method != "GetKey" && e.Method != "ListDataObjects" {
		return text
	}
	for _, outcome := range []error{ErrNotApplied, ErrInDoubt} {
		text = strings.TrimPrefix(text, outcome.Error()+": ")
	}
	return text
}

// Unwrap returns the named error, and that of the context where it ended the call.
func (e *Error) Unwrap() []error {
	if e.ended != nil {
		return []error{e.Err, e.ended}
	}
	return []error{e.Err}
}

// AboutQuery says that the fault was the call's, and not the API's, the account's or
// the network's: ErrInput. A cache goes on asking about other keys then.
func (e *Error) AboutQuery() bool { return errors.Is(e.Err, ErrInput) }

// judge makes the error of a call that did not succeed. err is that of the wire, or what
// is wrong with the reply.
func (q *query) judge(e wire.Exchange, err error) error {
	failed := &Error{Method: q.method, Status: e.Status}
	if err == nil {
		failed.Message = q.wire.Clean(e.Reply.Message, q.key.Reveal())
		named, known := spoken[fold(e.Reply.Message)]
		if !known {
			named = ErrUnknown
		}
		failed.Err = named
		return failed
	}
	failed.Message = q.wire.Clean(err.Error(), q.key.Reveal())
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			failed.ended = ended
		}
	}
	switch {
	case !e.Sent:
		failed.Err = ErrNotSent
	default:
		failed.Err = ErrReply
		if e.Status >= 300 && e.Status < 400 {
			failed.Message += "; redirects are not followed: correct the base URL"
		}
	}
	return failed
}
