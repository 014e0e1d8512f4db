package stripesink

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
)

// metersTTL is how long the account's meters are remembered. What matters of a meter
// never changes but its status.
const metersTTL = 10 * time.Minute

// catalog remembers the account's meters by event name.
type catalog struct {
	mu     sync.Mutex
	at     time.Time
	meters map[string]*stripe.BillingMeter
}

func (c *catalog) fresh() map[string]*stripe.BillingMeter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > metersTTL {
		return nil
	}
	return c.meters
}

func (c *catalog) keep(meters map[string]*stripe.BillingMeter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.meters = time.Now(), meters
}

// meterOf returns Stripe's meter for a feature.
func (s *Sink) meterOf(ctx context.Context, feature string) (*stripe.BillingMeter, error) {
	want, ok := s.cfg.Meters[feature]
	if !ok {
		return nil, errNoMeter(feature)
	}
	meters := s.known.fresh()
	if meters[want.EventName] == nil {
		var err error
		if meters, err = listMeters(ctx, s.meters); err != nil {
			return nil, err
		}
		s.known.keep(meters)
	}
	m := meters[want.EventName]
	if m == nil {
		return nil, s.errMissingMeter(feature, want.EventName)
	}
	return m, nil
}

func (s *Sink) errMissingMeter(feature, eventName string) error {
	return fmt.Errorf("stripesink: feature %q: Stripe has no meter of event name %q: create it, or correct Config.Meters[%q].EventName",
		feature, stripeapi.Clean(eventName, s.cfg.Key), feature)
}

// sumsRaw reports whether m adds up what each event brings, without a time window in
// which the last event wins.
func sumsRaw(m *stripe.BillingMeter) bool {
	return formula(m) == formulaSum && m.EventTimeWindow == ""
}
