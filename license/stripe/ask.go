package stripelicense

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
)

// requestTimeout bounds one request.
const requestTimeout = 10 * time.Second

// request is what is asked.
type request struct {
	doing      string // for errors
	object     string // that Stripe answers with
	permission string // that a restricted key needs
	secret     string // that is in the URL; "": none
}

// failure is an error of asking Stripe. Its text has no secret.
type failure struct {
	text  string
	cause error // that the context has ended; nil: it has not
	retry time.Duration
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// RetryAfter is the pause that Stripe has asked for; 0: none.
func (f *failure) RetryAfter() time.Duration { return f.retry }

// ask makes one request. found is false if Stripe itself says that there is no such
// thing; else there is an answer of the right kind, or an error.
func (c *Checker) ask(ctx context.Context, r request, do func(context.Context) error) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, answer := stripeapi.Watch(ctx)
	err = do(ctx)
	if err == nil && answer.Is(r.object) {
		return true, nil
	}
	refusal, refused := errors.AsType[*stripe.Error](err)
	if refused && refusal.Code == stripe.ErrorCodeResourceMissing &&
		(answer.Status == http.StatusNotFound || answer.Status == http.StatusBadRequest) {
		return false, nil
	}
	text := "stripelicense: " + r.doing + ": " + c.why(r, answer, err)
	if answer.Status != 0 {
		text += fmt.Sprintf(" (status %d)", answer.Status)
	}
	switch answer.Status {
	case http.StatusUnauthorized:
		text += "; look at Config.Key"
	case http.StatusForbidden:
		text += "; a restricted key needs read access to " + r.permission
	}
	return false, &failure{text, ended(err), answer.RetryAfter()}
}

// why says what went wrong, without secrets. Where one is in the URL, no text is quoted
// that may quote the URL in turn.
func (c *Checker) why(r request, answer *stripeapi.Exchange, err error) string {
	if e, ok := errors.AsType[*stripe.Error](err); ok {
		text := word(string(e.Type))
		if e.Code != "" {
			text += " (" + word(string(e.Code)) + ")"
		}
		if r.secret == "" {
			text += ": " + e.Msg
		} else if id := answer.Header.Get("Request-Id"); requestID.MatchString(id) {
			text += ", see " + id + " in Stripe's log of requests"
		}
		return stripeapi.Clean(text, c.cfg.Key)
	}
	switch {
	case answer.Status == 0:
		return "no answer: " + c.transport(r, err)
	case !answer.Complete:
		return "the answer broke off: " + c.transport(r, err)
	case answer.Status >= 300 && answer.Status < 400:
		return "the answer is a redirect, which is not followed: look at Config.BaseURL"
	case answer.HTML():
		return "the answer is a web page, so not Stripe's"
	}
	return "the answer is no " + r.object + ", so perhaps not Stripe's"
}

// transport is the text of an error of net/http, which has the whole URL in it.
func (c *Checker) transport(r request, err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if err == nil {
		return "no error"
	}
	text := err.Error()
	for _, secret := range []string{r.secret, url.QueryEscape(r.secret)} {
		if secret != "" {
			text = regexp.MustCompile("(?i)"+regexp.QuoteMeta(secret)).ReplaceAllString(text, "[key]")
		}
	}
	return stripeapi.Clean(text, c.cfg.Key)
}

// nonsense is the error for an answer that lacks what it must have.
func (r request) nonsense() error {
	return fmt.Errorf("stripelicense: %s: the answer is incomplete, so perhaps not Stripe's", r.doing)
}

// ended keeps of an error that a context has ended.
func ended(err error) error {
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, cause) {
			return cause
		}
	}
	return nil
}

var (
	wordShape = regexp.MustCompile(`^[a-z_]{1,60}$`)
	requestID = regexp.MustCompile(`^req_[A-Za-z0-9]{1,60}$`)
)

// word is a name of Stripe's, which a stranger may have put there.
func word(text string) string {
	if wordShape.MatchString(text) {
		return text
	}
	return "error"
}
