package stripesink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/form"
)

// make makes what is missing, the product first and each meter before its price.
func (p *provisioner) make(ctx context.Context, round int, have stock) error {
	p.made.Product = p.cfg.Product.ID
	if have.product == nil {
		if err := p.makeProduct(ctx, round); err != nil {
			return err
		}
	}
	prices, meters := map[string]string{}, map[string]Meter{}
	for _, feature := range p.features {
		t, meterID := p.cfg.Tariffs[feature], ""
		if !t.legacy() {
			m := have.meters[t.Meter.EventName]
			if m == nil {
				var err error
				if m, err = p.makeMeter(ctx, round, feature); err != nil {
					return err
				}
			}
			meterID, meters[feature] = m.ID, t.Meter
		}
		found := have.prices[feature]
		if found == nil {
			var err error
			if found, err = p.makePrice(ctx, round, feature, meterID); err != nil {
				return err
			}
		}
		prices[feature] = found.ID
	}
	p.made.Prices, p.made.Meters = prices, meters
	return nil
}

func (p *provisioner) makeProduct(ctx context.Context, round int) error {
	want := p.cfg.Product
	params := &stripe.ProductParams{ID: stripe.String(want.ID), Name: stripe.String(want.Name)}
	if want.CryptolensID != 0 {
		params.Metadata = map[string]string{metadataProduct: strconv.FormatInt(want.CryptolensID, 10)}
	}
	_, err := create(ctx, p.cfg.Key, round, "product "+want.ID, "product", params, p.products.New)
	if err == nil {
		p.note("product %s", want.ID)
	}
	return err
}

func (p *provisioner) makeMeter(ctx context.Context, round int, feature string) (*stripe.BillingMeter, error) {
	t := p.cfg.Tariffs[feature]
	params := &stripe.BillingMeterParams{
		DisplayName:        stripe.String(feature),
		EventName:          stripe.String(t.Meter.EventName),
		DefaultAggregation: &stripe.BillingMeterDefaultAggregationParams{Formula: stripe.String(t.formula())},
		CustomerMapping: &stripe.BillingMeterCustomerMappingParams{
			EventPayloadKey: stripe.String(t.Meter.CustomerKey),
			Type:            stripe.String(string(stripe.BillingMeterCustomerMappingTypeByID)),
		},
		ValueSettings: &stripe.BillingMeterValueSettingsParams{EventPayloadKey: stripe.String(t.Meter.ValueKey)},
	}
	if t.TimeWindow != "" {
		params.EventTimeWindow = stripe.String(string(t.TimeWindow))
	}
	m, err := create(ctx, p.cfg.Key, round, "meter "+t.Meter.EventName, "billing.meter", params, p.meters.New)
	if err == nil {
		p.note("meter %s (%s)", t.Meter.EventName, m.ID)
	}
	return m, err
}

func (p *provisioner) makePrice(ctx context.Context, round int, feature, meterID string) (*stripe.Price, error) {
	lookupKey := p.cfg.Tariffs[feature].LookupKey
	made, err := create(ctx, p.cfg.Key, round, "price "+lookupKey, "price", p.priceParams(feature, meterID), p.prices.New)
	if err == nil {
		p.note("price %s (%s)", lookupKey, made.ID)
	}
	return made, err
}

func (p *provisioner) note(format string, args ...any) {
	p.made.Created = append(p.made.Created, fmt.Sprintf(format, args...))
}

// errReplayed says that Stripe gave an answer of earlier once more.
var errReplayed = errors.New("stripesink: Stripe only repeats an earlier answer to this request, for up to 24 hours, " +
	"and what it would have made is not there: try again then")

// maxRounds bounds how many stored answers are stepped over.
const maxRounds = 10

// rounds runs look and make until Stripe doesn't answer from memory. Under a key that
// it has seen within a day it repeats its first answer, also if that was a 500, and
// also if what was made has been deleted since. So a repeated answer proves nothing:
// the next round looks again, and makes what is still missing under the next key.
func rounds(run func(round int) error) error {
	for round := range maxRounds {
		if err := run(round); !errors.Is(err, errReplayed) {
			return err
		}
	}
	return errReplayed
}

// create makes one object. The key yields from all that is sent and from salt, which
// tells apart what looks the same.
func create[P stripe.ParamsContainer, T any](ctx context.Context, key string, round int, what, object string,
	params P, send func(P) (T, error), salt ...string,
) (made T, err error) {
	common := params.GetParams()
	common.IdempotencyKey = stripe.String(contentKey(round, params, append(salt, object)))
	a := ask(ctx, key, func(ctx context.Context) (err error) {
		common.Context = ctx
		made, err = send(params)
		return err
	})
	if a.Header.Get("Idempotent-Replayed") == "true" {
		return made, errReplayed
	}
	return made, a.failure("making "+what, object)
}

// contentKey is an Idempotency-Key that only the same content yields.
func contentKey(round int, params any, salt []string) string {
	values := &form.Values{}
	form.AppendTo(values, params)
	sum := sha256.Sum256([]byte(values.ToValues().Encode() + "\n" + strings.Join(salt, "\n")))
	return fmt.Sprintf("meter-%s-%d", hex.EncodeToString(sum[:16]), round)
}
