package stripetest

import (
	"strconv"
	"strings"
)

func (s *Server) createSubscription(r *request) func() response {
	r.only("customer", "items", "metadata", "currency", "description", "collection_method", "days_until_due",
		"payment_behavior", "proration_behavior", "off_session", "cancel_at_period_end", "billing_thresholds",
		"billing_cycle_anchor", "default_payment_method", "payment_settings", "trial_period_days")
	sub := Subscription{
		Customer:          r.required("customer"),
		CancelAtPeriodEnd: r.oneOf("cancel_at_period_end", "false", "true") == "true",
		AmountThreshold:   r.int("billing_thresholds[amount_gte]", 0),
		Metadata:          r.dict("metadata"),
	}
	if r.int("trial_period_days", 0) > 0 {
		sub.Status = "trialing"
	}
	quantity := false
	r.each("items", func(prefix string) {
		sub.Items = append(sub.Items, Item{
			Price:          r.required(prefix + "[price]"),
			UsageThreshold: r.int(prefix+"[billing_thresholds][usage_gte]", 0),
		})
		quantity = quantity || r.get(prefix+"[quantity]") != ""
	})
	if sub.Items == nil {
		r.required("items[0][price]")
	}
	currency := strings.ToLower(r.get("currency"))
	return func() response {
		if bad := s.refuseSubscription(sub, currency, quantity); bad != nil {
			return *bad
		}
		return ok(s.subscriptionObject(s.addSubscription(sub)))
	}
}

// refuseSubscription says what of the account's state is against a new subscription.
func (s *Server) refuseSubscription(sub Subscription, currency string, quantity bool) *response {
	refuse := func(res response) *response { return &res }
	c, found := s.customer(sub.Customer)
	if !found || c.Deleted {
		return refuse(missing("customer", sub.Customer, "customer"))
	}
	seen := map[string]bool{}
	var first *price
	for i, it := range sub.Items {
		p, param := s.prices.byID[it.Price], "items["+strconv.Itoa(i)+"][price]"
		if first == nil {
			first = p
		}
		switch {
		case p == nil:
			return refuse(missing("price", it.Price, param))
		case p.Archived:
			return refuse(invalid(param, "", "The price specified is inactive. This field only accepts active prices."))
		case seen[p.ID]:
			return refuse(invalid("items", "", "Cannot add multiple subscription items with the same plan: %s", p.ID))
		case quantity && p.UsageType == "metered":
			return refuse(invalid("items["+strconv.Itoa(i)+"][quantity]", "", "A metered price takes no quantity."))
		case p.Currency != first.Currency || currency != "" && currency != p.Currency:
			return refuse(invalid(param, "", "All prices of a subscription must have the same currency."))
		case p.Interval != first.Interval || p.IntervalCount != first.IntervalCount:
			return refuse(invalid(param, "", "All prices of a subscription must have the same recurring interval."))
		}
		seen[p.ID] = true
	}
	if c.Currency != "" && c.Currency != first.Currency {
		return refuse(invalid("", "", "You cannot combine currencies on a single customer. This customer has an active "+
			"subscription, subscription schedule, discount, quote, or invoice item with currency %s.", c.Currency))
	}
	return nil
}
