// Package stripetest is a Stripe for tests: an [http.Handler] with a memory, which
// does with usage what Stripe does and says afterwards what it would bill.
//
//	srv := stripetest.New(stripetest.Meter{EventName: "api_call"})
//	srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
//	client, stop := srv.Pipe() // no ports; works on the clock of testing/synctest
//	defer stop()
//	s := stripesink.New(stripesink.Config{BaseURL: stripetest.URL, HTTPClient: client, …})
//	…
//	srv.Total("cus_1", "api_call") // what Stripe would bill
//
// It knows customers, products, prices, subscriptions and their items, usage
// records with their summaries, and billing meters with events, adjustments and
// summaries; idempotency keys and identifiers, rate limits, permissions, error
// reports and signed webhooks. [Server.Script] makes requests fail, before or after
// Stripe has worked on them.
//
// It bills quantities, not amounts: there are no invoices, payments or taxes.
//
// # Where Stripe is vague
//
// There the package is as bad as the documentation of Stripe allows, so that code
// that passes here relies on nothing that Stripe has not promised:
//
//   - Idempotency keys and identifiers are forgotten after 24 hours, to the second.
//   - A refusal for what is stored (a period that is over, a customer that is gone) is
//     stored under the idempotency key, as a 500 is; one for a malformed request is not.
//   - A second event of one customer and meter, or a second usage record of one item,
//     is refused while the first is worked on; Stripe may let it wait a while.
//   - Usage at the very second at which a period starts is refused, as some have seen.
//   - Usage of the period before is refused, unless [Server.Grace] says otherwise.
//   - Usage ahead of the clock is refused, though Stripe seems to take a little of it.
//   - Search by metadata ignores case.
//   - An error report names one event per code, unless [Server.Samples] says otherwise.
//   - The identifier of a canceled event stays taken.
//
// Not known of Stripe, so don't rely on what you see here: the wording of errors other
// than "An event already exists…", "Keys for idempotent requests…", "You cannot combine
// currencies…" and the two of canceled subscriptions and of old timestamps; what a
// paused or incomplete subscription does with usage (here: takes it); whether the
// last record of a period is the one with the latest timestamp (here) or the one that
// came last; and whether a summary without usage is listed (here: no).
package stripetest
