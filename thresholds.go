package meter

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/inprocess/meter/internal/ledger"
)

// Threshold says that a subject's use has reached a share of its quota.
//
// Concurrency: a plain value.
type Threshold struct {
	Feature, Subject string
	Percent          int
	Total            Total // as it was then; what the call has used is not held any more
}

type thresholds struct {
	hook     func(Threshold)
	percents []int
}

// Thresholds has hook called when what a subject has used (Quantity and Used of its
// [Total], not Held) reaches percents of its quota, such as 80 and 100; above 100 for
// soft quotas. It is called once for each subject, percent and period, on a goroutine
// of its own, so that nobody waits for it; the Logger is told if it panics. One set of
// thresholds holds for all declarations of a feature, the latest.
//
// A process remembers what it has told. After a restart, a subject's first call tells
// again of each threshold that was reached before, so a hook that must not repeat
// itself has to remember; and what a dying process had no time to tell is told then.
//
// No percents, one below 1, a nil hook, or [Prepaid], is a panic of [Meter.Feature].
func Thresholds(hook func(Threshold), percents ...int) FeatureOption {
	sorted := slices.Compact(slices.Sorted(slices.Values(percents)))
	return featureOption(func(c *featureConfig) { c.thresholds = &thresholds{hook, sorted} })
}

// watch has the thresholds told; nil: leaves them as they are.
func (f *Feature) watch(t *thresholds) {
	if t == nil {
		return
	}
	if t.hook == nil || len(t.percents) == 0 || t.percents[0] < 1 {
		panic(fmt.Sprintf("meter: feature %q: Thresholds needs a hook, and percents of at least 1", f.name))
	}
	f.ledger.Mark(t.percents, func(subject string, percent int, s ledger.Standing) {
		go f.reached(t.hook, Threshold{f.name, subject, percent, totalOf(s)})
	})
}

func (f *Feature) reached(hook func(Threshold), t Threshold) {
	defer func() {
		if p := recover(); p != nil {
			f.warn(context.Background(), untold, "the hook of Thresholds panicked", &panicked{"hook of Thresholds", p, debug.Stack()})
		}
	}()
	hook(t)
}
