package meter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/internal/prepaid"
	"github.com/inprocess/meter/sink"
)

// Feature is what is counted and sold. Get one from [Meter.Feature] and keep it.
//
// Concurrency: every method is safe for concurrent use.
type Feature struct {
	meter      *Meter
	name, unit string
	kind       sink.Kind
	ledger     *ledger.Feature
	calls      callConfig // defaults of the call sites
	limiters   *limiters
	limit      limitFunc // nil: only verdicts have quotas
	prepay     *prepay   // nil: no prepaid units
	prepaid    *prepaid.Feature
	quotaName  string     // of the policy that tells clients of quotas
	decisions  *decisions // nil without Config.MeterProvider
}

// Feature declares a feature, at wiring. name is at most 100 bytes that print; by
// default the kind is sink.Sum. Options of a call site are defaults here.
//
// The same name and kind again gives an equal feature. Given options, it has them
// on top of those of the first declaration.
//
// Feature panics, as [net/http.ServeMux.Handle] does, when the name is bad, an
// option is, or the name is declared as another kind or unit, and when the sink of
// a route can't bill the kind. Don't call it at request time with names from
// outside: count such things as dimensions.
func (m *Meter) Feature(name string, opts ...FeatureOption) *Feature {
	cfg := featureConfig{calls: callConfig{preset: 1}}
	if why := badLabel(name, maxFeature); why != "" {
		panic(fmt.Sprintf("meter: bad feature name: %s", why))
	}
	if slices.Contains(opts, nil) {
		panic(fmt.Sprintf("meter: feature %q: %v", name, errNilOption))
	}
	unfit := m.unfit(name, opts)
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.features[name]
	if known != nil {
		cfg.calls, cfg.limit, cfg.prepaid = known.calls, known.limit, known.prepay
	}
	for _, o := range opts {
		o.applyFeature(&cfg)
	}
	if known == nil {
		f := m.declare(name, cfg, unfit)
		m.features[name] = f
		m.noteLimit(f)
		return f
	}
	if known.kind != cfg.kind {
		panic(fmt.Sprintf("meter: feature %q was declared as %v and now as %v; use one kind in every declaration, or another name",
			name, known.kind, cfg.kind))
	}
	if cfg.unit != "" && cfg.unit != known.unit {
		panic(fmt.Sprintf("meter: feature %q was declared in the unit %q and now in %q; use one unit, or another name",
			name, known.unit, cfg.unit))
	}
	if len(opts) == 0 {
		return known
	}
	if why := cfg.unlimitable(); why != "" {
		panic(fmt.Sprintf("meter: feature %q: %s", name, why))
	}
	f := *known
	f.calls, f.limit = cfg.calls, cfg.limit
	if err := f.calls.wire(&f); err != nil {
		panic(fmt.Sprintf("meter: feature %q: %v", name, err))
	}
	if err := f.prepare(cfg.prepaid); err != nil {
		panic(fmt.Sprintf("meter: feature %q: %v", name, err))
	}
	f.watch(cfg.thresholds)
	m.noteLimit(&f)
	return &f
}

// noteLimit remembers the declaration if it has a Limit or Prepaid. The caller holds mu.
func (m *Meter) noteLimit(f *Feature) {
	if f.limit != nil || f.prepay != nil {
		m.limited[f.name] = f
	}
}

// declare panics for the reasons that Feature documents.
func (m *Meter) declare(name string, cfg featureConfig, unfit string) *Feature {
	if cfg.kind > sink.Last {
		panic(fmt.Sprintf("meter: feature %q: no such kind: %d", name, cfg.kind))
	}
	if unfit != "" {
		panic(unfit)
	}
	if cfg.unit != "" {
		if why := badLabel(cfg.unit, maxFeature); why != "" {
			panic(fmt.Sprintf("meter: feature %q: bad unit: %s", name, why))
		}
	}
	if why := cfg.unlimitable(); why != "" {
		panic(fmt.Sprintf("meter: feature %q: %s", name, why))
	}
	counted, err := m.ledger.Feature(name, cfg.kind)
	if err != nil {
		panic(fmt.Sprintf("meter: feature %q: %v", name, err))
	}
	f := &Feature{meter: m, name: name, unit: cfg.unit, kind: cfg.kind, ledger: counted, calls: cfg.calls, limiters: &limiters{feature: name},
		limit: cfg.limit, quotaName: quoted(name + "-quota")}
	if m.telemetry != nil {
		f.decisions = &decisions{}
	}
	if err := f.calls.wire(f); err != nil {
		panic(fmt.Sprintf("meter: feature %q: %v", name, err))
	}
	if err := f.prepare(cfg.prepaid); err != nil {
		panic(fmt.Sprintf("meter: feature %q: %v", name, err))
	}
	f.watch(cfg.thresholds)
	return f
}

// unlimitable says why a quota would bound nothing, or thresholds be shares of nothing.
func (c *featureConfig) unlimitable() string {
	if c.limitless {
		return "Limit needs a function; leave it out where there is none"
	}
	if c.prepaid != nil && c.thresholds != nil {
		return "Thresholds are shares of a quota, and what is bought by Prepaid is none: look at what the balance has"
	}
	option := "Limit"
	if c.limit == nil {
		option = "Thresholds"
	}
	if c.kind == sink.Sum || c.limit == nil && c.thresholds == nil {
		return ""
	}
	return fmt.Sprintf("%s on a feature of kind %v, whose levels no call adds to; quotas bound features of kind sum", option, c.kind)
}

// unfit says which route's sink can't bill the kind, "" if all can. It asks the
// sinks, so it is called without a lock.
func (m *Meter) unfit(name string, opts []FeatureOption) string {
	var cfg featureConfig
	for _, o := range opts {
		o.applyFeature(&cfg)
	}
	for _, r := range m.routes {
		if r.kinds == nil {
			continue
		}
		var kinds []sink.Kind
		if err := asked("Kinds", func() error { kinds = r.kinds.Kinds(); return nil }); err != nil {
			return fmt.Sprintf("meter: feature %q: the sink of route %q: %v", name, r.name, err)
		}
		if !slices.Contains(kinds, cfg.kind) {
			return fmt.Sprintf("meter: feature %q is of kind %v, which the sink of route %q can't bill; it takes: %s",
				name, cfg.kind, r.name, listed(kinds))
		}
	}
	return ""
}

func listed(kinds []sink.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.String()
	}
	return strings.Join(names, ", ")
}

// Add counts n units of a Sum for subject, at most 256 bytes of UTF-8 without
// control characters, under the dimensions of ctx. 0 does nothing. ctx never
// cancels the count.
//
// Guarantee: nil says that the count is in the ledger: the end of the process
// loses nothing, and a power cut at most Config.Sync.
// Blocking: no, but for a power-safe count under SyncAlways, and when n would take
// the window's record past what a sink takes (sink.Limits.MaxQuantity, at most
// 2^53-1): then the window ends early, at most once a second, and Add waits for that.
// Errors: ErrName, ErrQuantity, ErrKind, ErrFull, ErrClosed: not counted.
// ErrUnsynced: counted.
func (f *Feature) Add(ctx context.Context, subject string, n int64) error {
	if d := dimensionsOf(ctx); d != nil {
		s, err := f.series(subject, d)
		if err != nil {
			return err
		}
		return s.Add(n)
	}
	return f.ledger.Add(subject, n)
}

// Set counts a level of a Max or Last for subject, under the dimensions of ctx: the
// highest or the latest level of the window is billed. 0 counts: seats may fall to
// none. subject is as for Add.
//
// Guarantee, Blocking: as for Add.
// Errors: as for Add.
func (f *Feature) Set(ctx context.Context, subject string, level int64) error {
	s, err := f.series(subject, dimensionsOf(ctx))
	if err != nil {
		return err
	}
	return s.Set(level)
}

func (f *Feature) series(subject string, d *dimensions) (*ledger.Series, error) {
	if d == nil {
		return f.ledger.Series(subject, nil)
	}
	if d.err != nil {
		return nil, d.err
	}
	return f.ledger.Series(subject, d.values)
}

// Counter returns the fastest way to count a Sum for one subject, without
// dimensions. Keep it as long as the subject is busy. A bad subject shows in Add.
func (f *Feature) Counter(subject string) *Counter {
	s, err := f.ledger.Series(subject, nil)
	return &Counter{s, err}
}

// Counter counts one feature for one subject, in a few nanoseconds.
//
// Concurrency: safe for concurrent use.
type Counter struct {
	series *ledger.Series
	fault  error // of the subject; then series is nil
}

// Add counts n units. It ignores the dimensions of ctx; otherwise it is
// [Feature.Add].
//
// Guarantee, Blocking: as for Feature.Add.
// Errors: as for Feature.Add.
func (c *Counter) Add(_ context.Context, n int64) error {
	if c.fault != nil {
		return c.fault
	}
	return c.series.Add(n)
}

var errNoSum = errors.New("a call adds, so its feature must be of kind sum; use Set for max and last")
