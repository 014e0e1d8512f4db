package stripesink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
)

// get makes one read by call and judges it by evidence, as classify does a write.
// what says in an error what was read, and permission what a restricted key needs.
func (s *Sink) get(ctx context.Context, what, permission string, call func(context.Context) error) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, exchange := stripeapi.Watch(ctx)
	a := answer{Exchange: exchange, err: call(ctx), key: s.cfg.Key}
	if a.err == nil && a.Status == http.StatusOK {
		return a, nil
	}
	said := a.text()
	if e, ok := errors.AsType[*stripe.Error](a.err); ok {
		said = a.quote(e)
	}
	err := fmt.Errorf("stripesink: %s: %s", what, said)
	if ended := ctx.Err(); ended != nil {
		err = fmt.Errorf("stripesink: %s: %w: %s", what, ended, said)
	}
	if a.Status != 0 {
		err = fmt.Errorf("%w (status %d)", err, a.Status)
	}
	if a.Status == http.StatusForbidden {
		err = fmt.Errorf("%w; a restricted key needs %s", err, permission)
	}
	return a, pause(err, a.retryAfter())
}

// getList is get for a page of a list. A proxy's JSON must not pass for an empty
// one: nothing found is an answer that money hangs on.
func (s *Sink) getList(ctx context.Context, what, permission string, call func(context.Context) error) error {
	a, err := s.get(ctx, what, permission, call)
	if err != nil {
		return err
	}
	var list struct {
		Object string             `json:"object"`
		Data   *[]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(a.Body, &list); err != nil || list.Object != "list" || list.Data == nil {
		return fmt.Errorf("stripesink: %s: the answer is no list, so perhaps not Stripe's", what)
	}
	return nil
}
