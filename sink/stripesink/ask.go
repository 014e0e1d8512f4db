package stripesink

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
)

// maxPages bounds a list, 100 objects to a page.
const maxPages = 50

// ask makes one request, within requestTimeout, and returns what is known of it.
func ask(ctx context.Context, key string, request func(context.Context) error) answer {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, exchange := stripeapi.Watch(ctx)
	err := request(ctx)
	return answer{Exchange: exchange, err: err, key: key}
}

// failure is why a request, named by what it did, did not bring the object that
// Stripe answers with; nil if it did.
func (a answer) failure(doing, object string) error {
	what := a.text()
	if e, ok := errors.AsType[*stripe.Error](a.err); ok {
		what = a.quote(e)
	} else if a.err == nil {
		if a.Is(object) {
			return nil
		}
		what = fmt.Sprintf("the answer is no %s, so perhaps not Stripe's", object)
	}
	err := fmt.Errorf("stripesink: %s: %s", doing, what)
	if a.Status != 0 {
		err = fmt.Errorf("%w (status %d)", err, a.Status)
	}
	return pause(err, a.RetryAfter())
}

// needing adds to err what a restricted key lacks, if that may be the reason.
func (a answer) needing(permission string, err error) error {
	if err == nil || a.Status != http.StatusForbidden {
		return err
	}
	return fmt.Errorf("%w; a restricted key needs %s", err, permission)
}

// missing reports whether Stripe itself said that there is no such object, in the path
// or in a parameter.
func (a answer) missing() bool {
	e, ok := errors.AsType[*stripe.Error](a.err)
	return ok && (a.Status == http.StatusNotFound || a.Status == http.StatusBadRequest) && e.Code == stripe.ErrorCodeResourceMissing
}

// eachPage calls read with the last ID of the page before, "" first, until there is
// no more.
func eachPage(what string, read func(after string) (last string, more bool, err error)) error {
	after := ""
	for range maxPages {
		last, more, err := read(after)
		if err != nil || !more || last == "" {
			return err
		}
		after = last
	}
	return fmt.Errorf("stripesink: there are more than %d %s: not all were read", maxPages*100, what)
}

// pageParams are those of one page of a list, the one after an ID.
func pageParams(ctx context.Context, after string) stripe.ListParams {
	p := stripe.ListParams{Context: ctx, Single: true, Limit: stripe.Int64(100)}
	if after != "" {
		p.StartingAfter = stripe.String(after)
	}
	return p
}
