// Package signed reads licenses that Cryptolens has signed: answers of GetKey and
// Activate asked for with SignMethod=1 ("StringSign"), and the files that hold them.
//
// A license is accepted in three shapes: the reply itself, as JSON; a file with that
// reply (.skm); and the compact form v20180502-<licenseKey>-<signature>. In each, the
// signature is RSASSA-PKCS1-v1_5 with SHA-256 over the bytes that licenseKey encodes
// in base64, and nothing in those bytes is looked at before it has been verified.
//
// # Refused by name
//
// SignMethod=0 ("LingSign", [ErrLingSign]): its signature does not cover which machine
// is which, nor the customer's ID. Dates written as text ([ErrISODates]), as in answers
// of before 2017-05: their time zone is not stated.
//
// # Keys
//
// Vendors' keys have 2048 bits. A license server on a customer's premises, which signs
// for floating licenses with a key of its own, was seen to use 1024, so 1024 bits are
// accepted: who lists such a key trusts it. Shorter ones are refused. Several keys may
// be listed, for vendors' keys get replaced.
//
// # Not verified
//
// How a field that the token's feature lock masks looks on the wire: one that is
// missing or null is taken as masked ([ErrMasked]), and a default value can't be told
// from a real one. Whether the dates of FloatingExpires are ever anything but Unix
// seconds. The prefix of machines in overdraft: only its length, 19, is known, and
// "floating:overdraft:" is taken for it.
package signed

import "errors"

var (
	// ErrMalformed: what should hold a license does not.
	ErrMalformed = errors.New("no signed Cryptolens license")
	// ErrLingSign: signed by SignMethod=0, which can be forged in part.
	ErrLingSign = errors.New("signed by the old method (LingSign), which does not cover the whole license: ask for SignMethod=1")
	// ErrISODates: dates as text, without a time zone.
	ErrISODates = errors.New("has dates as text, from before 2017-05: make a new file")
	// ErrSignature: no listed key has signed this.
	ErrSignature = errors.New("is not signed by any of the public keys: it was changed, or the vendor's key is another one")
	// ErrProduct: a license for another product.
	ErrProduct = errors.New("is for another product")
	// ErrKey: a license of another key than was asked for.
	ErrKey = errors.New("is for another key than was asked for")
	// ErrTooOld: signed longer ago than is accepted.
	ErrTooOld = errors.New("was signed too long ago")
	// ErrReplayed: signed before another one that was seen already.
	ErrReplayed = errors.New("is older than one seen before")
	// ErrClock: signed in the future, so the clock is wrong.
	ErrClock = errors.New("the clock of this machine is wrong")
	// ErrMasked: a field that decides is not in the answer.
	ErrMasked = errors.New("lacks a field that is needed: let the access token return all fields (feature lock)")
	// ErrTemplate: the data object cryptolens_features can't be read.
	ErrTemplate = errors.New("has a data object cryptolens_features that is no list of features")
)
