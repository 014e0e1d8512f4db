// Package cryptolenstest is a Cryptolens Web API for tests: an [http.Handler] with a
// memory, which does with keys, machines, usage and data objects what Cryptolens does
// and says afterwards what was recorded.
//
//	srv := cryptolenstest.New()
//	key := srv.AddKey(cryptolenstest.Key{ProductID: 3646})
//	client := cryptolens.NewClient(cryptolens.ClientConfig{
//		Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client(),
//	})
//	…
//	srv.Total(3646, key.Key) // what Stripe would bill
//
// [Server.Client] needs no ports and works on the clock of testing/synctest; for a real
// connection, hand the Server to [net/http/httptest.NewServer].
//
// It knows products, keys with features, expiry, block, customer and machines, also
// floating ones; data objects of keys and of machines; recorded usage; tokens with
// permissions; and it signs with an RSA key of its own, [Server.PublicKeyXML].
// [Server.Script] makes requests fail, before or after the API has worked on them, and
// [Server.SetDown] takes it away altogether.
//
// Paths and parameter names are taken in any case, paths with doubled and trailing
// slashes, and parameters by GET and query or by POST and form.
//
// # Where Cryptolens is vague
//
// Nobody knows the following of Cryptolens, so don't rely on what you see here:
//
//   - the wording of refusals for a bound, an overflow, a data object that is missing,
//     or a name that is taken or that several have: here each ends with "(made up)";
//   - the HTTP status of refusals: [Server.RefusalStatus];
//   - a negative Amount, which is refused here, as is one above 32 bits;
//   - that a machine needs no activation to have data objects;
//   - that machines and floating machines share the limit of a key;
//   - which permission is missing where a data object's method finds no key;
//   - that a blocked key still takes usage and data objects;
//   - signatures of SignMethod 0: here such a license has none.
package cryptolenstest
