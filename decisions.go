package meter

import (
	"context"
	"runtime/debug"
	"sync/atomic"

	"github.com/inprocess/meter/license"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// outcomes of decisions, as labels. Reasons that a Checker makes up are the last
// one, so that it can't make up labels.
var outcomes = [...]string{
	"allowed",
	string(license.NoKey), string(license.NotFound), string(license.Expired), string(license.Blocked),
	string(license.NotEntitled), string(license.Unpaid), string(license.OverQuota), string(license.TooFast),
	string(license.Unavailable),
	"other",
}

// decisions counts those of one feature. A nil one doesn't: nobody collects.
type decisions struct {
	by       [len(outcomes)]atomic.Int64
	unbilled atomic.Int64 // units
}

func (d *decisions) note(refusal *RefusedError) {
	if d == nil {
		return
	}
	i := 0
	if refusal != nil {
		for i = 1; i < len(outcomes)-1 && outcomes[i] != string(refusal.Reason); i++ {
		}
	}
	d.by[i].Add(1)
}

// tell calls OnDecision. Its panic is not the caller's: the call goes on as
// decided. Where it ends the goroutine nobody else can end the call.
func (f *Feature) tell(ctx context.Context, c *Call, d Decision) {
	returned := false
	defer func() {
		if !returned {
			c.Cancel()
		}
	}()
	func() {
		defer func() {
			if p := recover(); p != nil {
				f.warn(ctx, unheard, "OnDecision panicked", &panicked{"OnDecision", p, debug.Stack()})
			}
		}()
		f.meter.cfg.OnDecision(ctx, d)
	}()
	returned = true
}

// giveAway notes n units of a call that leaves nobody to bill.
func (f *Feature) giveAway(n int64) {
	if f.decisions != nil {
		f.decisions.unbilled.Add(n)
	}
	f.warn(context.Background(), unbilled, "Config.Shadow lets callers through of whom no Subject is known", nil)
}

// decisionMetrics are observed when a reader collects, so that a call pays an
// atomic add.
type decisionMetrics struct {
	decided, unbilled, over metric.Int64ObservableCounter
}

func (in *instruments) decisions() {
	if in.err == nil {
		in.decided, in.err = in.meter.Int64ObservableCounter("meter.decisions",
			metric.WithUnit("{call}"), metric.WithDescription("Calls by what was decided about the caller: allowed, or the reason against."))
	}
	if in.err == nil {
		in.unbilled, in.err = in.meter.Int64ObservableCounter("meter.unbilled",
			metric.WithDescription("Units of calls that Config.Shadow let through with nobody to bill."))
	}
	if in.err == nil {
		in.over, in.err = in.meter.Int64ObservableCounter("meter.overage",
			metric.WithDescription("Units counted beyond a subject's quota."))
	}
	in.observables = append(in.observables, in.decided, in.unbilled, in.over)
}

func (in *decisionMetrics) observe(o metric.Observer, shadow bool, all []*Feature) {
	for _, f := range all {
		name := attribute.String("meter.feature", f.name)
		for i := range outcomes {
			if n := f.decisions.by[i].Load(); n > 0 {
				o.ObserveInt64(in.decided, n, metric.WithAttributeSet(attribute.NewSet(
					name, attribute.String("meter.decision", outcomes[i]), attribute.Bool("meter.shadow", shadow))))
			}
		}
		if n := f.ledger.Over(); n > 0 {
			o.ObserveInt64(in.over, n, metric.WithAttributeSet(attribute.NewSet(name)))
		}
		if n := f.decisions.unbilled.Load(); n > 0 {
			o.ObserveInt64(in.unbilled, n, metric.WithAttributeSet(attribute.NewSet(name)))
		}
	}
}
