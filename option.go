package meter

import (
	"errors"
	"fmt"
	"math"
	"net/http"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
	"golang.org/x/time/rate"
)

// FeatureOption configures [Meter.Feature].
//
// Concurrency: may be used for several features.
type FeatureOption interface{ applyFeature(*featureConfig) }

// Option configures a call site: [Middleware], [Wrap], [Do], [DoValue], [Seq],
// [Feature.Begin]. Given to [Meter.Feature] it is the default of its call sites.
// Options apply in order; a later one wins.
//
// Concurrency: may be used at several call sites.
type Option interface {
	FeatureOption
	applyCall(*callConfig)
}

type featureConfig struct {
	kind       sink.Kind
	unit       string
	limit      limitFunc
	limitless  bool // Limit was given none
	prepaid    *prepay
	thresholds *thresholds
	calls      callConfig
}

type callConfig struct {
	identify  Identify                                        // nil: Config.Identify
	countWhen func(Result) bool                               // nil: countsByDefault
	refuse    func(http.ResponseWriter, *http.Request, error) // nil: WriteProblem
	preset    int64                                           // counted unless the callee sets another
	held      int64                                           // reserved of the quota
	holds     bool                                            // by Hold; else preset is reserved
	rate      *allowance                                      // nil: any rate
	limiter   *limiter                                        // for rate, from the feature
	tellsRate bool                                            // Middleware answers with RateLimit fields
	keyed     bool                                            // Middleware counts the calls of one Idempotency-Key once
}

type featureOption func(*featureConfig)

func (o featureOption) applyFeature(c *featureConfig) { o(c) }

type callOption func(*callConfig)

func (o callOption) applyFeature(c *featureConfig) { o(&c.calls) }
func (o callOption) applyCall(c *callConfig)       { o(c) }

// Kind says how a feature's quantities combine. Default: sink.Sum.
func Kind(k sink.Kind) FeatureOption {
	return featureOption(func(c *featureConfig) { c.kind = k })
}

// Unit names what a feature is counted in, in the singular, such as "token", for
// sinks that want to know. Default: none.
func Unit(name string) FeatureOption {
	return featureOption(func(c *featureConfig) { c.unit = name })
}

// CountWhen decides by how a call ended whether it counts. By default it counts
// when Err is nil, Status is below 400, and it is neither Panicked nor Unseen. nil
// is the default. rule must be fast and safe for concurrent use.
func CountWhen(rule func(Result) bool) Option {
	return callOption(func(c *callConfig) { c.countWhen = rule })
}

// Quantity is counted by a call whose callee sets no other. Default: 1. 0 makes a
// call that is checked, and free. Negative is ErrQuantity, at wiring a panic.
func Quantity(n int64) Option {
	return callOption(func(c *callConfig) { c.preset, c.held, c.holds = n, 0, false })
}

// Hold is for calls whose quantity is known only while they run: it reserves n units
// of the subject's quota until the call ends, and counts only what the callee has set
// with SetQuantity or AddQuantity; if nothing, then nothing. The rest is free again in
// the same moment. n should be the most that is expected: more counts in full, and may
// take the subject past its limit. Hold(0) reserves nothing, and is refused once the
// quota is used up.
//
// A hold takes no room and no disk, and ends with the process. Without a quota there is
// nothing to reserve from. Hold and Quantity replace each other. Negative is
// ErrQuantity, at wiring a panic.
func Hold(n int64) Option {
	return callOption(func(c *callConfig) { c.preset, c.held, c.holds = 0, n, true })
}

// Rate lets each subject make l calls of the feature a second, and burst at once, as
// golang.org/x/time/rate counts, of which [rate.Limit] and [rate.Inf] are; beyond that they are refused as license.TooFast. rate.Inf: any rate. Call sites
// of one feature with the same l and burst share an allowance. A subject not seen
// for long may start over with a full one: 65,536 are remembered.
//
// A refused call takes nothing of the allowance, whatever it was refused for; one
// that fails has taken its part. [Middleware] tells clients how they stand, when a
// request was let through and when it came too fast, in the fields RateLimit-Policy
// and RateLimit of draft-ietf-httpapi-ratelimit-headers-11; with Rate(100.0/60, 100)
// for the feature "report":
//
//	RateLimit-Policy: "report";q=100;w=60
//	RateLimit: "report";r=99;t=1
//
// Under [Config.Shadow] it does not, for nobody needs to slow down.
//
// A negative l, and a burst below 1, which would never let a call through, are an
// error of Begin, at wiring a panic.
func Rate(l rate.Limit, burst int) Option {
	return callOption(func(c *callConfig) { c.rate = &allowance{l, burst} })
}

// Refuse answers instead of [WriteProblem] when [Middleware] refuses a request, or
// can't count it before anything was written. nil is WriteProblem.
func Refuse(answer func(http.ResponseWriter, *http.Request, error)) Option {
	return callOption(func(c *callConfig) { c.refuse = answer })
}

// wire checks the options and finds what they share within f.
func (c *callConfig) wire(f *Feature) error {
	if n := max(c.preset, c.held); min(c.preset, c.held) < 0 || n > ledger.MaxQuantity {
		return fmt.Errorf("%w: Quantity and Hold must be 0 to %d", ErrQuantity, int64(ledger.MaxQuantity))
	}
	c.limiter = nil
	if c.rate == nil || c.rate.limit == rate.Inf {
		return nil
	}
	if l := float64(c.rate.limit); math.IsNaN(l) || l < 0 {
		return fmt.Errorf("meter: Rate: the limit is %v: it must not be negative", l)
	}
	if c.rate.burst < 1 {
		return fmt.Errorf("meter: Rate: the burst is %d: below 1 it never lets a call through", c.rate.burst)
	}
	c.limiter = f.limiters.of(*c.rate)
	return nil
}

// with returns the feature's defaults under opts; the defaults themselves when
// there are none, which must not be changed.
func (f *Feature) with(opts []Option) (*callConfig, error) {
	if len(opts) == 0 {
		return &f.calls, nil
	}
	c := f.calls
	for _, o := range opts {
		if o == nil {
			return nil, errNilOption
		}
		o.applyCall(&c)
	}
	return &c, c.wire(f)
}

var errNilOption = errors.New("meter: a nil option; leave it out")

// mustWith is with for wiring, where mistakes panic.
func (f *Feature) mustWith(site string, opts []Option) *callConfig {
	if f == nil {
		panic(fmt.Sprintf("meter: %s of a nil feature; it comes from Meter.Feature", site))
	}
	c, err := f.with(opts)
	if err == nil && f.kind != sink.Sum {
		err = errNoSum
	}
	if err != nil {
		panic(fmt.Sprintf("meter: %s of feature %q: %v", site, f.name, err))
	}
	return c
}
