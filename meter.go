package meter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/internal/delivery"
	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/internal/prepaid"
	"github.com/inprocess/meter/sink"
)

// scope names this library to OpenTelemetry.
const scope = "github.com/inprocess/meter"

// Meter counts into one directory and delivers from it. Open it once per process.
//
// Concurrency: every method is safe for concurrent use.
type Meter struct {
	cfg       Config
	ledger    *ledger.Ledger
	delivery  *delivery.Delivery
	prepaid   *prepaid.Prepaid
	routes    []route
	home      home
	telemetry *telemetry
	start     time.Time

	mu       sync.Mutex
	features map[string]*Feature
	limited  map[string]*Feature // as declared last with a Limit

	closing atomic.Bool
	stopped chan struct{} // closed when Shutdown is through
	stopErr error         // written before stopped is closed

	warnNoChecker sync.Once
	warned        sync.Map // reason to *atomic.Int64: second of the last warning
}

// route is what Open learned of a sink by asking once.
type route struct {
	name   string
	sink   sink.Sink
	kinds  sink.Combiner // nil: takes every kind
	limits sink.Limits
}

// Open locks cfg.Dir, recovers what an earlier process left there, and starts to
// deliver it.
//
// Blocking: reads the directory; waits up to Config.LockWait for another process
// that owns it. No network.
// Errors: every fault of cfg at once, each by the name of its field; ErrLocked;
// ErrFormat; a route whose name was used for another destination; what the file
// system says.
func Open(cfg Config) (*Meter, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Meter{
		cfg:      cfg,
		start:    time.Now(),
		features: map[string]*Feature{},
		limited:  map[string]*Feature{},
		stopped:  make(chan struct{}),
	}
	ledgerRoutes := make([]ledger.Route, len(cfg.Sinks))
	deliveryRoutes := make([]delivery.Route, len(cfg.Sinks))
	var apart time.Duration // that windows must begin, for the most demanding sink
	for i, r := range cfg.Sinks {
		known, address, err := learn(r)
		if err != nil {
			return nil, err
		}
		m.routes = append(m.routes, known)
		ledgerRoutes[i] = ledger.Route{
			Name:         r.Name,
			Address:      address,
			Match:        r.Match,
			DedupeWindow: known.limits.DedupeWindow,
			MaxAge:       known.limits.MaxAge,
			MaxQuantity:  known.limits.MaxQuantity,
			Timeout:      known.limits.Timeout,
			Confirm:      known.limits.Confirm,
		}
		_, ledgerRoutes[i].Ends = r.Sink.(sink.Scheduler)
		_, ledgerRoutes[i].Verifies = r.Sink.(sink.Verifier)
		apart = max(apart, known.limits.MinWindow)
		deliveryRoutes[i] = delivery.Route{Name: r.Name, Sink: r.Sink, Limits: known.limits}
	}
	var err error
	if m.ledger, err = ledger.Open(cfg.forLedger(ledgerRoutes, apart)); err != nil {
		return nil, err
	}
	m.home = homeOf(cfg.Dir)
	if m.prepaid, err = prepaid.Open(cfg.forPrepaid()); err != nil {
		return nil, errors.Join(err, m.ledger.Close(context.Background()))
	}
	if m.telemetry, err = newTelemetry(m); err != nil {
		return nil, errors.Join(err, m.ledger.Close(context.Background()))
	}
	deliver := delivery.Config{
		Ledger:        delivery.FromLedger(m.ledger),
		Routes:        deliveryRoutes,
		Features:      m.declared,
		Logger:        cfg.Logger,
		MeterProvider: cfg.MeterProvider,
	}
	if cfg.TracerProvider != nil {
		deliver.Tracer = cfg.TracerProvider.Tracer(scope)
	}
	m.delivery = delivery.Start(deliver)
	return m, nil
}

// learn asks a sink what has to be known of it, once.
func learn(r Route) (known route, address string, err error) {
	known = route{name: r.Name, sink: r.Sink}
	known.kinds, _ = r.Sink.(sink.Combiner)
	err = asked("Limits", func() error { known.limits = delivery.LimitsOf(r.Sink); return nil })
	if a, ok := r.Sink.(sink.Addressed); ok && err == nil {
		err = asked("Address", func() error { address = a.Address(); return nil })
	}
	if err != nil {
		err = fmt.Errorf("meter: route %q: the sink's %w", r.Name, err)
	}
	return known, address, err
}

func (c *Config) forLedger(routes []ledger.Route, apart time.Duration) ledger.Config {
	dir := c.Dir
	if dir == InMemory {
		dir = ""
	}
	return ledger.Config{
		Dir:            dir,
		Adopt:          c.Adopt,
		Routes:         routes,
		Window:         c.Window,
		Sync:           c.Sync,
		Retain:         c.Retain,
		EventWindow:    c.EventWindow,
		LockWait:       max(c.LockWait, 0),
		MinWindow:      apart,
		Instance:       uint8(c.Instance),
		MaxDisk:        c.MaxDisk,
		RefuseWhenFull: c.RefuseWhenFull,
		Logger:         c.Logger,
	}
}

func (c *Config) forPrepaid() prepaid.Config {
	dir := c.Dir
	if dir == InMemory {
		dir = ""
	}
	return prepaid.Config{Dir: dir, Logger: c.Logger}
}

func (m *Meter) log() *slog.Logger { return m.cfg.Logger }

// declared lists the features declared so far, by name.
func (m *Meter) declared() []sink.Feature {
	known := m.declaredFeatures()
	all := make([]sink.Feature, 0, len(known))
	for _, f := range known {
		all = append(all, sink.Feature{Name: f.name, Unit: f.unit, Kind: f.kind})
	}
	slices.SortFunc(all, func(a, b sink.Feature) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

func (m *Meter) declaredFeatures() []*Feature {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.features))
}

// limitedFeatures are the declared ones, each with a Limit if any declaration has one.
func (m *Meter) limitedFeatures() []*Feature {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := maps.Clone(m.features)
	maps.Copy(all, m.limited)
	return slices.Collect(maps.Values(all))
}

// Prepare asks every sink that can tell whether it can bill the features declared
// so far: a meter that does not exist, or one that would sum a Max. Call it once
// all features are declared, to find that at start. Without the call, delivery asks
// before a feature's first record.
//
// It fails, too, while a sink can't be reached, which need not keep a service from
// starting: log the error and go on. Counts of a feature that its sink is not ready for
// stay pending, delivery asks again, and they are sent once it is.
//
// Blocking: uses the network, until ctx ends.
// Errors: what the sinks found, or why they could not be asked, joined; ErrClosed.
func (m *Meter) Prepare(ctx context.Context) error {
	mustHave(ctx, "Prepare")
	if m.closing.Load() {
		return ErrClosed
	}
	return m.delivery.Prepare(ctx, m.declared())
}

// mustHave panics where the mistake is: further on it would be on a goroutine of the
// meter's, and end the process.
func mustHave(ctx context.Context, site string) {
	if ctx == nil {
		panic(fmt.Sprintf("meter: %s with a nil context; use context.Background()", site))
	}
}

// Flush ends the running window and delivers everything that is open. Windows are
// whole seconds: with a directory, Flush may wait for the current one to end, and
// calls within it share one window.
//
// Guarantee: nil says that every record that a configured route owed at the call
// is final or in quarantine. Health tells of those that no route owes any more.
// Blocking: uses the network, until ctx ends or everything open was tried once.
// Errors: what the sinks said, when records stay open; ErrClosed; ctx's.
func (m *Meter) Flush(ctx context.Context) error {
	mustHave(ctx, "Flush")
	if m.closing.Load() {
		return ErrClosed
	}
	began := time.Now()
	err := m.ledger.Rotate(ctx)
	if err == nil {
		err = m.delivery.Flush(ctx)
	}
	m.telemetry.flushed(ctx, time.Since(began), err)
	return err
}

// Health says what is wrong right now, for alerting; not for readiness or liveness
// probes, for counting goes on.
//
// Errors: everything wrong with the directory, the routes and prepaid units, and what the Checker
// says if it has a Health() error, joined; ErrClosed after Shutdown.
func (m *Meter) Health() error {
	if m.closing.Load() {
		return ErrClosed
	}
	var checker error
	if c, ok := m.cfg.Checker.(interface{ Health() error }); ok {
		if checker = asked("Health", c.Health); checker != nil {
			checker = fmt.Errorf("meter: Checker: %w", checker)
		}
	}
	return errors.Join(m.ledger.Health(), m.delivery.Health(), m.prepaid.Health(), checker)
}

// Books shows, per feature and route, what was accepted and what became of it.
//
// Blocking: reads what is in memory; no network.
func (m *Meter) Books() Books {
	lines := m.ledger.Books()
	books := make(Books, len(lines))
	for i, l := range lines {
		books[i] = Line(l)
	}
	return books
}
