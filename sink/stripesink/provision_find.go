package stripesink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meter"
	"github.com/stripe/stripe-go/v76/price"
	"github.com/stripe/stripe-go/v76/product"
)

// Metadata fields that Cryptolens reads.
const (
	metadataProduct = "skm_product_id" // of a product
	metadataLicense = "skm"            // of a price
	metadataKey     = "skm_key_id"     // of a subscription
)

// provisioner makes or finds what one configuration says.
type provisioner struct {
	cfg      ProvisionConfig
	features []string // in order, so that every run takes the same steps
	products product.Client
	meters   meter.Client
	prices   price.Client
	made     Provisioned
}

func newProvisioner(cfg ProvisionConfig, api *stripeapi.API) *provisioner {
	return &provisioner{
		cfg:      cfg,
		features: slices.Sorted(maps.Keys(cfg.Tariffs)),
		products: product.Client{B: api.Backend, Key: cfg.Key},
		meters:   meter.Client{B: api.Backend, Key: cfg.Key},
		prices:   price.Client{B: api.Backend, Key: cfg.Key},
	}
}

// stock is what Stripe has of it; nil is missing.
type stock struct {
	product *stripe.Product
	meters  map[string]*stripe.BillingMeter // by event name
	prices  map[string]*stripe.Price        // by feature
}

func (p *provisioner) run(ctx context.Context, round int) error {
	have, err := p.find(ctx)
	if err != nil {
		return err
	}
	if err := p.compare(have); err != nil {
		return err
	}
	return p.make(ctx, round, have)
}

// find reads all that there is.
func (p *provisioner) find(ctx context.Context) (have stock, err error) {
	a := ask(ctx, p.cfg.Key, func(ctx context.Context) (err error) {
		params := &stripe.ProductParams{}
		params.Context = ctx
		have.product, err = p.products.Get(p.cfg.Product.ID, params)
		return err
	})
	if a.missing() {
		have.product = nil
	} else if err := a.failure("looking for product "+p.cfg.Product.ID, "product"); err != nil {
		return have, err
	}
	if slices.ContainsFunc(p.features, func(f string) bool { return !p.cfg.Tariffs[f].legacy() }) {
		if have.meters, err = listMeters(ctx, p.meters); err != nil {
			return have, err
		}
	}
	have.prices = map[string]*stripe.Price{}
	for _, feature := range p.features {
		if have.prices[feature], err = p.findPrice(ctx, p.cfg.Tariffs[feature].LookupKey); err != nil {
			return have, err
		}
	}
	return have, nil
}

// findPrice looks among the active prices, then among the archived ones.
func (p *provisioner) findPrice(ctx context.Context, lookupKey string) (*stripe.Price, error) {
	for _, active := range []bool{true, false} {
		var list *price.Iter
		a := ask(ctx, p.cfg.Key, func(ctx context.Context) error {
			params := &stripe.PriceListParams{ListParams: pageParams(ctx, "")}
			params.LookupKeys, params.Active = []*string{&lookupKey}, &active
			params.AddExpand("data.tiers")
			list = p.prices.List(params)
			return list.Err()
		})
		if err := a.failure("looking for the price of lookup key "+lookupKey, "list"); err != nil {
			return nil, err
		}
		for _, found := range list.PriceList().Data {
			if found != nil && found.LookupKey == lookupKey {
				return found, nil
			}
		}
	}
	return nil, nil
}

// differences are those of one thing that Stripe has.
type differences struct {
	what string
	cfg  *ProvisionConfig
	errs []error
}

func (d *differences) add(format string, args ...any) {
	text := stripeapi.Clean(fmt.Sprintf(format, args...), d.cfg.Key)
	d.errs = append(d.errs, fmt.Errorf("%s: %s", d.what, text))
}

func differs[T comparable](d *differences, what string, is, want T) {
	if is != want {
		d.add("its %s is %s, not %s", what, quoted(is), quoted(want))
	}
}

func quoted(v any) string {
	if number, ok := v.(float64); ok {
		return strconv.FormatFloat(number, 'f', -1, 64)
	}
	return fmt.Sprintf("%#v", v)
}

func (d *differences) mode(livemode bool) {
	if err := stripeapi.CheckObject(livemode, d.cfg.Key, d.cfg.BaseURL); err != nil {
		d.add("%v", err)
	}
}

// compare returns all differences of what there is.
func (p *provisioner) compare(have stock) error {
	var errs []error
	about := func(what, id string) *differences {
		return &differences{what: fmt.Sprintf("%s (%s)", what, id), cfg: &p.cfg}
	}
	if have.product != nil {
		d := about("product", have.product.ID)
		p.compareProduct(d, have.product)
		errs = append(errs, d.errs...)
	}
	for _, feature := range p.features {
		t := p.cfg.Tariffs[feature]
		m := have.meters[t.Meter.EventName]
		if m != nil {
			d := about(fmt.Sprintf("feature %q, meter", feature), m.ID)
			t.compareMeter(d, m)
			errs = append(errs, d.errs...)
		}
		if found := have.prices[feature]; found != nil {
			d := about(fmt.Sprintf("feature %q, price", feature), found.ID)
			p.comparePrice(d, t, m, found)
			errs = append(errs, d.errs...)
		}
	}
	if errs == nil {
		return nil
	}
	return fmt.Errorf("%w; nothing was changed; correct the configuration, or choose another ID, event name or lookup key:\n%w",
		ErrDiffers, errors.Join(errs...))
}

func (p *provisioner) compareProduct(d *differences, is *stripe.Product) {
	d.mode(is.Livemode)
	if is.Deleted {
		d.add("it was deleted")
		return
	}
	if !is.Active {
		d.add("it is archived")
	}
	differs(d, "name", is.Name, p.cfg.Product.Name)
	if id := p.cfg.Product.CryptolensID; id != 0 {
		differs(d, "metadata "+metadataProduct, is.Metadata[metadataProduct], strconv.FormatInt(id, 10))
	}
}

func (t Tariff) compareMeter(d *differences, is *stripe.BillingMeter) {
	d.mode(is.Livemode)
	differs(d, "status", string(is.Status), string(stripe.BillingMeterStatusActive))
	differs(d, "formula", string(formula(is)), t.formula())
	differs(d, "event_time_window", string(is.EventTimeWindow), string(t.TimeWindow))
	differs(d, "customer_mapping.event_payload_key", customerKey(is), t.Meter.CustomerKey)
	differs(d, "value_settings.event_payload_key", valueKey(is), t.Meter.ValueKey)
}
