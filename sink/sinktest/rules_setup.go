package sinktest

import (
	"context"
	"math"

	"github.com/inprocess/meter/sink"
)

var limitsRule = rule{
	name: "limits",
	why: "Limits must be what the biller keeps to: nothing below 0, Rate finite, and the same at every call; " +
		"Kinds must name at least one kind, and known ones only",
	check: func(tr *trial) {
		l := tr.limits
		for name, value := range map[string]int64{
			"MaxBatch": int64(l.MaxBatch), "Concurrency": int64(l.Concurrency), "MaxAge": int64(l.MaxAge),
			"MaxQuantity": l.MaxQuantity, "DedupeWindow": int64(l.DedupeWindow), "Timeout": int64(l.Timeout),
			"MinWindow": int64(l.MinWindow), "Confirm": int64(l.Confirm),
		} {
			if value < 0 {
				tr.failf("Limits.%s is %d, below 0", name, value)
			}
		}
		if l.Rate < 0 || math.IsNaN(l.Rate) || math.IsInf(l.Rate, 0) {
			tr.failf("Limits.Rate is %v: use records a second, or 0 for no limit", l.Rate)
		}
		if s, ok := tr.sink.(sink.Limiter); ok && s.Limits() != l {
			tr.failf("Limits changed from %+v to %+v", l, s.Limits())
		}
		if len(tr.kinds) == 0 {
			tr.failf("Kinds is empty: such a sink can bill nothing")
		}
		for _, kind := range tr.kinds {
			if kind > sink.Last {
				tr.failf("Kinds names kind %d, which does not exist", kind)
			}
		}
	},
}

var validateRule = rule{
	name: "validate",
	why:  "Validate must return nil for a sink that works: its error ends meter.Open",
	check: func(tr *trial) {
		if v, ok := tr.New(tr.t).(sink.Validator); !ok {
			tr.skip("the sink is no sink.Validator")
		} else if err := v.Validate(); err != nil {
			tr.failf("Validate: %w", err)
		}
	},
}

var prepareRule = rule{
	name: "prepare",
	why: "Prepare must be repeatable, and nil for features that the biller takes: " +
		"while it fails for a feature, nothing of the feature is billed",
	check: func(tr *trial) {
		p, ok := tr.sink.(sink.Preparer)
		if !ok {
			tr.skip("the sink is no sink.Preparer")
		}
		var features []sink.Feature
		for _, kind := range tr.kinds {
			features = append(features, sink.Feature{Name: tr.feature(kind), Unit: "unit", Kind: kind})
		}
		for i := range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), callTime)
			err := p.Prepare(ctx, features)
			cancel()
			if err != nil {
				tr.failf("Prepare, call %d: %w", i+1, err)
			}
		}
	},
}
