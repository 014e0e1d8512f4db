package meter

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/license"
)

type limitFunc func(ctx context.Context, subject string) (license.Quota, error)

// Limit bounds what each subject may use of a feature in a period. quota is asked at
// the beginning of every call whose verdict carries no quota, and by [Feature.AddEvent]
// for a subject of which no quota is known yet, so it must be fast and safe for
// concurrent use; a Limit below 0 is none. While it fails or panics, calls are refused as
// license.Unavailable, or let through without a quota under [Config.AllowUnknown].
//
// A call that would take the subject past the limit is refused as license.OverQuota,
// status 402, before it runs. What counts is what this directory has counted since the
// period began, across restarts and crashes, what others have used (Quota.Used), and
// what calls that run have reserved (see [Hold] and [Quantity]). Counts by hand
// ([Feature.Add], [Counter]) and calls that use more than they had reserved are counted
// in full, and may pass the limit. [Middleware] tells clients how they stand in the
// fields RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11, in
// units and seconds, under the feature's name with "-quota" behind it:
//
//	RateLimit-Policy: "report-quota";q=100;w=2678400
//	RateLimit: "report-quota";r=42;t=86400
//
// A window's start decides which period its counts belong to, so a period whose end
// shows only when it has come goes on until its last window ends. Windows end with the
// calendar month and where a period ends that is known, but not within a tenth of
// [Config.Window], so that periods of many subjects don't make many more records. One
// that ends by Flush alone begins no period before that.
//
// The bounds of a quota's own period are known from the first call on that is held to
// it, or the first event if Limit gives it, and are kept in the directory. Of what was
// counted before, by hand or under another quota, the running window counts in the
// period; so does the rest of the running calendar month, if the period began no later
// than that; nothing else does, for it is not known when in the month it was. Used can
// tell of it.
//
// A nil quota is a panic of [Meter.Feature].
func Limit(quota func(ctx context.Context, subject string) (license.Quota, error)) FeatureOption {
	return featureOption(func(c *featureConfig) { c.limit, c.limitless, c.prepaid = quota, quota == nil, nil })
}

// limitOf asks limit. A panic is an error, for a bug there must not end connections.
func (f *Feature) limitOf(ctx context.Context, subject string) (q license.Quota, err error) {
	defer func() {
		if p := recover(); p != nil {
			q, err = license.Quota{}, &panicked{"function of Limit", p, debug.Stack()}
		}
	}()
	return f.limit(ctx, subject)
}

// quotaOf is the subject's quota: that of the verdict, or else of Limit.
func (f *Feature) quotaOf(ctx context.Context, subject string, given *license.Quota) (license.Quota, error) {
	switch {
	case given != nil:
		return *given, nil
	case f.limit != nil:
		return f.limitOf(ctx, subject)
	}
	return noQuota, nil
}

var noQuota = license.Quota{Limit: -1}

// reserve holds what the call may use of the subject's quota; over says that this is
// more than there is, of a soft one.
func (c *Call) reserve(ctx context.Context, cfg *callConfig, given *license.Quota) (over bool, refusal *RefusedError) {
	f := c.feature
	n := cfg.preset
	if cfg.holds {
		n = cfg.held
	}
	wants := n > 0 || cfg.holds
	if f.prepay != nil {
		return false, c.draw(ctx, n, wants)
	}
	q, err := f.quotaOf(ctx, c.subject, given)
	if err != nil {
		if f.meter.cfg.AllowUnknown {
			return false, nil
		}
		f.warn(ctx, refused, "Limit gave no quota", err)
		return false, f.refusal(license.Unavailable, c.subject, err)
	}
	if q.Limit < 0 && f.ledger.Tally(c.subject) == nil {
		return false, nil // there never was one
	}
	bounds := boundsOf(&q)
	t, admission, err := f.ledger.Reserve(c.tallyOfAccount(), c.subject, &bounds, n, wants)
	if err != nil {
		return false, f.refusal(license.Unavailable, c.subject, err)
	}
	if admission == ledger.Refused {
		return false, f.overQuota(c.subject, totalOf(t.Standing()))
	}
	c.reserved(t, n)
	return admission == ledger.Beyond, nil
}

// tallyOfAccount is the subject's tally, as far as it is remembered.
func (c *Call) tallyOfAccount() *ledger.Tally {
	if c.account == nil {
		return nil
	}
	return c.account.tally.Load()
}

// reserved notes that the call holds n.
func (c *Call) reserved(t *ledger.Tally, n int64) {
	if c.account != nil && c.account.tally.Load() != t {
		c.account.tally.Store(t)
	}
	c.tally = t
	c.held.Store(n)
}

func (f *Feature) overQuota(subject string, total Total) *RefusedError {
	refusal := f.refusal(license.OverQuota, subject, nil)
	refusal.Total = &total
	if !total.End.IsZero() && total.Held == 0 { // else the end of a call may help
		refusal.RetryAfter = max(time.Until(total.End), 0)
	}
	return refusal
}

// standing is how the call's subject stands with what the call was held to.
func (c *Call) standing() Total {
	if c.feature.prepay != nil {
		return c.feature.prepaidTotal(c.subject)
	}
	return totalOf(c.tally.Standing())
}

// boundsOf is a quota for the ledger.
func boundsOf(q *license.Quota) ledger.Quota {
	b := ledger.Quota{Limit: q.Limit, Used: q.Used, Soft: q.Soft}
	if !q.Start.IsZero() {
		b.Start = max(q.Start.Unix(), 1)
	}
	if !q.End.IsZero() {
		b.End = max(q.End.Unix(), 1)
	} else if !q.Start.IsZero() {
		b.End = b.Start // not known
	}
	return b
}

// countHeld counts n, and frees what the call holds: all of it if that ends it, else
// as much as was counted.
func (c *Call) countHeld(n int64, ends bool) error {
	var free int64
	for {
		held := c.held.Load()
		if free = held; !ends {
			free = min(held, max(n, 0))
		}
		if c.held.CompareAndSwap(held, held-free) {
			break
		}
	}
	series, err := c.tally.Series(), error(nil)
	if c.dims != nil {
		series, err = c.feature.series(c.subject, c.dims)
	}
	if err != nil {
		c.held.Add(free)
		if ends {
			c.release()
		}
		return err
	}
	return series.AddHeld(n, c.tally, free, ends)
}

// release ends the call's part in the quota, if it has one.
func (c *Call) release() {
	if c.tally != nil {
		c.tally.Release(c.held.Swap(0))
	}
}
