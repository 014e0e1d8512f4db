package meter

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

type faulty struct{ *memsink.Sink }

func (faulty) Validate() error {
	return errors.Join(errors.New("Key: required"), errors.New("Meters: empty"))
}

type faultyChecker struct{ license.CheckerFunc }

func (faultyChecker) Validate() error { return errors.New("ProductID: required") }

// panicky panics where a meter that opens asks it something.
type panicky struct {
	*memsink.Sink
	license.CheckerFunc
	in string
}

func (p panicky) Validate() error     { p.bug("Validate"); return nil }
func (p panicky) Limits() sink.Limits { p.bug("Limits"); return sink.Limits{} }
func (p panicky) Address() string     { p.bug("Address"); return "" }

func (p panicky) bug(in string) {
	if p.in == in {
		panic("a bug in " + in)
	}
}

func TestOpenRefusesBadConfigs(t *testing.T) {
	t.Parallel()
	route := func(name string) Route { return Route{Name: name, Sink: memsink.New()} }
	var nilSink *memsink.Sink
	for name, test := range map[string]struct {
		cfg  Config
		says []string
	}{
		"no directory":       {Config{}, []string{"Config.Dir: required", "InMemory"}},
		"nine routes":        {Config{Dir: InMemory, Sinks: []Route{route("1"), route("2"), route("3"), route("4"), route("5"), route("6"), route("7"), route("8"), route("9")}}, []string{"Config.Sinks: 9 routes, at most 8"}},
		"nameless route":     {Config{Dir: InMemory, Sinks: []Route{route("a"), route("")}}, []string{"Config.Sinks[1].Name: empty"}},
		"two of one name":    {Config{Dir: InMemory, Sinks: []Route{route("a"), route("b"), route("a")}}, []string{"Config.Sinks[2].Name", `"a"`, "Sinks[0]"}},
		"oversized name":     {Config{Dir: InMemory, Sinks: []Route{route(strings.Repeat("r", 65))}}, []string{"Sinks[0].Name", "65 bytes"}},
		"name with control":  {Config{Dir: InMemory, Sinks: []Route{route("a\x00")}}, []string{"Sinks[0].Name", "print"}},
		"no sink":            {Config{Dir: InMemory, Sinks: []Route{{Name: "a"}}}, []string{`Sinks[0] ("a"): Sink: required`}},
		"nil pointer":        {Config{Dir: InMemory, Sinks: []Route{{Name: "a", Sink: nilSink}}}, []string{"Sink: required"}},
		"nil function":       {Config{Dir: InMemory, Sinks: []Route{{Name: "a", Sink: sink.Func(nil)}}}, []string{"Sink: required"}},
		"sink finds faults":  {Config{Dir: InMemory, Sinks: []Route{{Name: "stripe", Sink: faulty{memsink.New()}}}}, []string{`Config.Sinks[0] ("stripe"):`, "Key: required", "Meters: empty"}},
		"validate panics":    {Config{Dir: InMemory, Sinks: []Route{{Name: "v", Sink: panicky{Sink: memsink.New(), in: "Validate"}}}}, []string{`Config.Sinks[0] ("v"): Validate panicked: a bug in Validate`}},
		"limits panics":      {Config{Dir: InMemory, Sinks: []Route{{Name: "l", Sink: panicky{Sink: memsink.New(), in: "Limits"}}}}, []string{`route "l"`, "Limits panicked: a bug in Limits"}},
		"address panics":     {Config{Dir: InMemory, Sinks: []Route{{Name: "a", Sink: panicky{Sink: memsink.New(), in: "Address"}}}}, []string{`route "a"`, "Address panicked: a bug in Address"}},
		"checker panics":     {Config{Dir: InMemory, Checker: panicky{in: "Validate"}}, []string{"Config.Checker: Validate panicked"}},
		"checker":            {Config{Dir: InMemory, Checker: faultyChecker{}}, []string{"Config.Checker: ProductID: required"}},
		"no such instance":   {Config{Dir: InMemory, Instance: 60}, []string{"Config.Instance: 60"}},
		"negative disk":      {Config{Dir: InMemory, MaxDisk: -1}, []string{"Config.MaxDisk"}},
		"negative retain":    {Config{Dir: InMemory, Retain: -1}, []string{"Config.Retain: -1ns: must not be negative"}},
		"negative window":    {Config{Dir: InMemory, Window: -2}, []string{"Config.Window: -2ns: must not be negative, except meter.OnFlush"}},
		"window too short":   {Config{Dir: InMemory, Window: time.Millisecond}, []string{"Config.Window: 1ms"}},
		"negative sync":      {Config{Dir: InMemory, Sync: -3}, []string{"Config.Sync: -3ns: must not be negative, except meter.SyncAlways and meter.SyncNever"}},
		"negative lock wait": {Config{Dir: InMemory, LockWait: -2}, []string{"Config.LockWait: -2ns: must not be negative, except meter.NoWait"}},
		"bad glob":           {Config{Dir: "d", Adopt: "[a"}, []string{"Config.Adopt"}},
		"adopt in memory":    {Config{Dir: InMemory, Adopt: "a*"}, []string{"Config.Adopt"}},
		"bad event window":   {Config{Dir: InMemory, EventWindow: -1}, []string{"Config.EventWindow: -1ns: must not be negative"}},
		"all at once": {Config{MaxDisk: -1, Retain: -1, Window: -2, Sync: -3, LockWait: -4, Sinks: []Route{{}, {Name: "a"}, route("a")}},
			[]string{"Config.Dir", "MaxDisk", "Retain", "Window", "Sync", "LockWait", "Sinks[0].Name", "Sinks[0]", "Sinks[1]", "Sinks[2].Name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := Open(test.cfg)
			require.Nil(t, m)
			require.Error(t, err)
			for _, word := range test.says {
				require.Contains(t, err.Error(), word)
			}
		})
	}
}

func TestNamedValuesAreAccepted(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"SyncAlways":   func(c *Config) { c.Sync = SyncAlways },
		"SyncNever":    func(c *Config) { c.Sync = SyncNever },
		"OnFlush":      func(c *Config) { c.Window = OnFlush },
		"NoWait":       func(c *Config) { c.LockWait = NoWait },
		"eight routes": func(c *Config) { c.Sinks = eightRoutes() },
		"no routes":    func(c *Config) { c.Sinks = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, change)
			f := m.Feature("f")
			require.NoError(t, f.Add(t.Context(), "s", 2))
			require.NoError(t, m.Flush(t.Context()))
			require.EqualValues(t, 2, f.Total("s").Quantity)
			require.NoError(t, m.Shutdown(t.Context()))
		})
	}
}

func eightRoutes() []Route {
	routes := make([]Route, 8)
	for i := range routes {
		routes[i] = Route{Name: string(rune('a' + i)), Sink: memsink.New()}
	}
	return routes
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := Config{Dir: InMemory}.withDefaults()
	require.NotNil(t, c.Logger)
	c.Logger = nil
	require.Equal(t, Config{
		Dir:         InMemory,
		EventWindow: 24 * time.Hour,
		LockWait:    30 * time.Second,
		MaxDisk:     1 << 30,
		Sync:        time.Second,
		Window:      time.Minute,
	}, c)
}

func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	routes := []Route{{Name: "a", Sink: memsink.New()}}
	m := open(t, func(c *Config) { c.Sinks = routes })
	routes[0] = Route{}
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 1))
	require.NoError(t, m.Flush(t.Context()))
}

// askedOnce counts how often its optional interfaces are asked.
type askedOnce struct {
	*memsink.Sink
	limits, validate, address int
}

func (a *askedOnce) Limits() sink.Limits { a.limits++; return a.Sink.Limits() }
func (a *askedOnce) Validate() error     { a.validate++; return nil }
func (a *askedOnce) Address() string     { a.address++; return "acct_1" }

func TestSinksAreAskedOnce(t *testing.T) {
	t.Parallel()
	asked := &askedOnce{Sink: memsink.New()}
	m := open(t, func(c *Config) { c.Sinks = []Route{{Name: "a", Sink: asked}} })
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 1))
	require.NoError(t, m.Flush(t.Context()))
	require.Equal(t, [3]int{1, 1, 1}, [3]int{asked.limits, asked.validate, asked.address})
}

// A route's name stands for one destination for good.
func TestRouteLeadsElsewhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(address string) (*Meter, error) {
		return Open(Config{Dir: dir, Sinks: []Route{{Name: "biller", Sink: addressed{memsink.New(), address}}}})
	}
	m, err := open("acct_1")
	require.NoError(t, err)
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, m.Shutdown(ended), "usage is still owed to acct_1")
	_, err = open("acct_2")
	require.ErrorContains(t, err, `"biller"`)
	m, err = open("acct_1")
	require.NoError(t, err)
	require.NoError(t, m.Shutdown(context.Background()))
}

type addressed struct {
	*memsink.Sink
	address string
}

func (a addressed) Address() string { return a.address }

// preparer refuses a feature.
type preparer struct{ *memsink.Sink }

func (preparer) Prepare(_ context.Context, features []sink.Feature) error {
	errs := make([]error, len(features))
	for i, f := range features {
		if f.Name == "unknown" {
			errs[i] = errors.New("no such meter")
		}
	}
	if len(features) == 0 {
		return nil
	}
	return &sink.BatchError{Errs: errs}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Sinks = []Route{{Name: "r", Sink: preparer{memsink.New()}}} })
	m.Feature("known", Unit("token"))
	require.NoError(t, m.Prepare(t.Context()))
	m.Feature("unknown")
	require.ErrorContains(t, m.Prepare(t.Context()), "no such meter")
	require.Equal(t, []sink.Feature{{Name: "known", Unit: "token"}, {Name: "unknown"}}, m.declared())
}
