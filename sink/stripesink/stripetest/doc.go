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
// records with their summaries, active entitlements, and billing meters with events,
// adjustments and summaries; idempotency keys and identifiers, rate limits, permissions,
// error reports and signed webhooks. [Server.Script] makes requests fail, before or after
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
//
//   - A refusal for what is stored (a period that is over, a customer that is gone) is
//     stored under the idempotency key, as a 500 is; one for a malformed request is not.
//
//   - A second event of one customer and meter, or a second usage record of one item,
//     is refused while the first is worked on; Stripe may let it wait. The event gets
//     409, as has been seen, the usage record 429, as is documented.
//
//   - Usage at the very second at which a period starts is refused, as some have seen.
//
//   - Usage of the period before is refused, unless [Server.Grace] says otherwise.
//
//   - Usage ahead of the clock is refused, though Stripe seems to take a little of it.
//
//   - Search by metadata ignores case.
//
//   - An error report names one event per code, unless [Server.Samples] says otherwise.
//
//   - The identifier of a canceled event stays taken.
//
// Not known of Stripe, so don't rely on what you see here:
//
//   - the wording of errors other than "An event already exists…", "Keys for idempotent
//     requests…", "You cannot combine currencies…", "Cannot create the usage record…"
//     for a canceled subscription and an old timestamp, and "No such…";
//   - that a paused or incomplete subscription takes usage;
//   - that the last usage record of a period is the one with the latest timestamp, and not
//     the one that came last;
//   - that summaries leave out windows without usage;
//   - that an adjustment is refused for an event that is unknown, canceled or too old, and
//     changes what is billed at once;
//   - how soon error reports come: here at once, one per meter and ten seconds.
package stripetest
