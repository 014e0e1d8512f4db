package meter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
)

// vendor sells credits through Cryptolens.
type vendor struct {
	*cryptolenstest.Server
	mu   sync.Mutex
	keys map[string]string
}

func newVendor() *vendor { return &vendor{Server: cryptolenstest.New(), keys: map[string]string{}} }

// sell gives a subject a key with n credits, or sets what it has.
func (v *vendor) sell(subject string, n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys[subject] = "KEYCANARY-" + subject
	v.AddKey(cryptolenstest.Key{ProductID: 1, Key: v.keys[subject]})
	v.AddDataObject(1, v.keys[subject], "", cryptolenstest.DataObject{Name: "credits", Int: n})
}

func (v *vendor) owner(subject string) cryptolens.Owner {
	return cryptolens.Owner{ProductID: 1, Key: license.NewKey(v.keys[subject])}
}

func (v *vendor) buy(t *testing.T, subject string, n int64) {
	c := cryptolens.NewClient(cryptolens.ClientConfig{Token: "t", BaseURL: cryptolenstest.URL, HTTPClient: v.Client()})
	require.NoError(t, c.Increment(t.Context(), v.owner(subject), cryptolens.Ref{Name: "credits"}, n))
}

func (v *vendor) left(subject string) int64 {
	for _, o := range v.DataObjects(1, v.keys[subject], "") {
		return o.Int
	}
	return 0
}

func (v *vendor) balance(change ...func(*cryptolens.BalanceConfig)) *cryptolens.Balance {
	cfg := cryptolens.BalanceConfig{Token: "TOKENCANARY", ProductID: 1, Object: "credits", BaseURL: cryptolenstest.URL, HTTPClient: v.Client(),
		Key: func(_ context.Context, subject string) (license.Key, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			return license.NewKey(v.keys[subject]), nil
		}}
	for _, c := range change {
		c(&cfg)
	}
	return cryptolens.NewBalance(cfg)
}

func sole(c *cryptolens.BalanceConfig) { c.Sole = true }

func inDir(dir string) func(*Config) { return func(c *Config) { c.Dir = dir } }

// 64 goroutines against 10,000 units in blocks: in one meter exactly as many calls are
// let through, and in two on one balance, too, together.
func TestPrepaidAdmitsExactlyWhatWasBought(t *testing.T) {
	t.Parallel()
	const bought = 10_000
	for _, meters := range []int{1, 2} {
		for _, option := range []Option{Quantity(1), Hold(4)} {
			v := newVendor()
			v.sell("s", bought)
			var features []*Feature
			var all []bench
			for range meters {
				m := open(t, inDir(t.TempDir()))
				all = append(all, m)
				features = append(features, m.Feature("f", Prepaid(v.balance(func(c *cryptolens.BalanceConfig) { c.Sole = meters == 1 }), 300), option))
			}
			var let atomic.Int64
			var done sync.WaitGroup
			for i := range 64 {
				done.Go(func() {
					for try(t, features[i%meters], "s", 1) {
						let.Add(1)
						if _, call, err := features[i%meters].Begin(as("s")); err == nil {
							call.Cancel()
						}
					}
				})
			}
			done.Wait()
			used := int64(0)
			for i, m := range all {
				used += features[i].Total("s").Quantity
				require.NoError(t, m.Shutdown(t.Context()))
			}
			require.Equal(t, let.Load(), used)
			require.EqualValues(t, bought, used+v.left("s"))
			if meters == 1 && option != nil {
				require.LessOrEqual(t, v.left("s"), int64(64*4), "what others had reserved")
			}
		}
	}
}

func TestPrepaidRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVendor()
		v.sell("s", 3)
		m := open(t)
		f := m.Feature("f", Prepaid(v.balance(sole), 10))
		for range 3 {
			require.True(t, try(t, f, "s", 1))
		}
		_, _, err := f.Begin(as("s"))
		refused := asRefused(t, err)
		require.Equal(t, license.OverQuota, refused.Reason)
		require.Equal(t, Total{Quantity: 3, Limit: -1}, *refused.Total)
		require.Zero(t, refused.RetryAfter, "nobody knows when more is bought")
		w := httptest.NewRecorder()
		WriteProblem(w, httptest.NewRequest("GET", "/", nil), err)
		require.Equal(t, 402, w.Code)
		require.Contains(t, w.Body.String(), `"used":3,"drawn":0`)
		require.NotContains(t, w.Body.String(), "limit", "that of what was bought is in the balance")
		require.Contains(t, w.Body.String(), "What was bought is used up.")
		_, free, err := f.Begin(as("s"), Quantity(0))
		require.NoError(t, err, "free")
		free.Cancel()

		v.buy(t, "s", 100)
		time.Sleep(5 * time.Second)
		_, call, err := f.Begin(as("s"), Hold(50))
		require.NoError(t, err)
		require.Equal(t, []int64{3, 50, 50}, []int64{f.Total("s").Quantity, f.Total("s").Held, f.Total("s").Drawn})
		require.NoError(t, errors.Join(call.SetQuantity(20), call.Commit()))
		require.False(t, try(t, f, "s", 1, Hold(1000)))

		v.SetDown(true)
		let := 0
		for ; ; let++ {
			if _, c, e := f.Begin(as("s")); e == nil {
				require.NoError(t, c.Commit())
			} else {
				err = e
				break
			}
			synctest.Wait()
		}
		require.GreaterOrEqual(t, let, 30, "what was drawn is used up")
		refused = asRefused(t, err)
		require.Equal(t, license.Unavailable, refused.Reason)
		require.Equal(t, 503, refused.Status())
		require.Positive(t, refused.RetryAfter)
		require.Contains(t, describe(refused).Detail, "can't be known right now")
		require.ErrorContains(t, m.Health(), "can't be drawn")
		v.SetDown(false)
		time.Sleep(2 * time.Minute)
		require.True(t, try(t, f, "s", 1))
		require.NoError(t, m.Health())
		used := f.Total("s").Quantity
		require.NoError(t, m.Shutdown(t.Context()))
		require.EqualValues(t, 103, used+v.left("s"))
		_, _, err = f.Begin(as("s"))
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, m.SettlePrepaid(t.Context(), "id", true, ""), ErrClosed)
	})
}

// Whoever is let through without units is counted, and pays with what is drawn next.
func TestPrepaidLetsThroughByConfig(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"AllowUnknown": func(c *Config) { c.AllowUnknown = true },
		"Shadow":       func(c *Config) { c.Shadow = true },
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newVendor()
			v.sell("s", 10)
			m := open(t, change)
			f := m.Feature("f", Prepaid(v.balance(sole), 4))
			v.SetDown(true)
			start := time.Now()
			for range 3 {
				require.True(t, try(t, f, "s", 1), name)
			}
			require.Equal(t, start, time.Now(), "nobody waits in vain")
			v.SetDown(false)
			time.Sleep(time.Minute)
			require.True(t, try(t, f, "s", 1))
			require.EqualValues(t, 4, f.Total("s").Quantity)
			require.NoError(t, m.Shutdown(t.Context()))
			require.EqualValues(t, 6, v.left("s"), name)
		})
	}
}

// A call waits for units no longer than its context, and at most 5 s.
func TestPrepaidWaitIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVendor()
		v.sell("s", 10)
		v.Script(cryptolenstest.Fault{Answer: cryptolenstest.Hang}, cryptolenstest.Fault{Answer: cryptolenstest.Hang})
		m := open(t)
		f := m.Feature("f", Prepaid(v.balance(sole), 4))
		start := time.Now()
		ctx, cancel := context.WithTimeout(as("s"), time.Second)
		defer cancel()
		_, _, err := f.Begin(ctx)
		require.ErrorIs(t, asRefused(t, err), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		_, _, err = f.Begin(as("s"))
		require.Equal(t, license.Unavailable, asRefused(t, err).Reason)
		require.Equal(t, maxPrepaidWait+time.Second, time.Since(start))
		end, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		require.NoError(t, m.Shutdown(end), "nothing is left of it")
		require.Equal(t, maxPrepaidWait+2*time.Second, time.Since(start))
	})
}

// Clients are told of no limit, for they have bought more than was drawn; and always in
// the same way, over restarts, too.
func TestPrepaidIsToldAsItIs(t *testing.T) {
	t.Parallel()
	v := newVendor()
	v.sell("s", 100)
	m := open(t, inDir(t.TempDir()), func(c *Config) { c.Identify = bySubject })
	f := m.Feature("f", Prepaid(v.balance(), 10))
	serve := func(h http.Handler) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Subject", "s")
		h.ServeHTTP(w, r)
		return w
	}
	require.JSONEq(t, `{"subject":"s","usage":[{"feature":"f","kind":"sum","quantity":0,"drawn":0}]}`, serve(m.Usage(nil)).Body.String())
	h := Middleware(f)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") }))
	answer := serve(h)
	require.Equal(t, 200, answer.Code)
	require.Empty(t, answer.Header().Values("RateLimit"))
	require.Empty(t, answer.Header().Values("RateLimit-Policy"))
	want := `{"subject":"s","usage":[{"feature":"f","kind":"sum","quantity":1,"drawn":9}]}`
	require.JSONEq(t, want, serve(m.Usage(nil)).Body.String())
	require.Equal(t, Total{Quantity: 1, Limit: -1, Drawn: 9}, f.Total("s"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, m.Shutdown(ended), "9 unused prepaid units, of 1 subject")
	m = open(t, inDir(m.cfg.Dir), func(c *Config) { c.Identify = bySubject })
	f = m.Feature("f", Prepaid(v.balance(), 10))
	require.JSONEq(t, want, serve(m.Usage(nil)).Body.String())
	require.NoError(t, f.Add(t.Context(), "s", 12))
	require.Equal(t, Total{Quantity: 13, Limit: -1, Drawn: -3}, f.Total("s"), "a debt")
	for subject, total := range f.Totals() {
		require.Equal(t, "s", subject)
		require.Equal(t, f.Total("s"), total)
	}
}

func TestPrepaidWiring(t *testing.T) {
	t.Parallel()
	m := open(t)
	v := newVendor()
	v.sell("s", 10)
	b := v.balance()
	for want, opts := range map[string][]FeatureOption{
		"needs a balance":                 {Prepaid(nil, 1)},
		"the block is 0":                  {Prepaid(b, 0)},
		"the block is 2147483648":         {Prepaid(b, 1<<31)},
		"BalanceConfig.Object":            {Prepaid(v.balance(func(c *cryptolens.BalanceConfig) { c.Object = "" }), 1)},
		"so its feature must be of kind":  {Prepaid(b, 1), Kind(sink.Max)},
		"is none: look at what":           {Prepaid(b, 1), Thresholds(func(Threshold) {}, 80)},
		"needs a balance\x00 of no value": {Prepaid((*cryptolens.Balance)(nil), 1)},
	} {
		want, _, _ = strings.Cut(want, "\x00")
		require.PanicsWithError(t, "", func() {
			defer func() { p := recover(); require.Contains(t, fmt.Sprint(p), want); panic(errors.New("")) }()
			m.Feature("f"+want, opts...)
		})
	}
	f := m.Feature("f", Prepaid(b, 5))
	require.Same(t, f.prepaid, m.Feature("f", Prepaid(b, 5)).prepaid)
	require.Panics(t, func() { m.Feature("f", Prepaid(b, 6)) })
	require.Panics(t, func() { m.Feature("f", Prepaid(v.balance(), 5)) })
	require.Nil(t, m.Feature("f", limited(license.Quota{Limit: 1})).prepaid)
	require.NotNil(t, m.Feature("f").prepaid)
	require.True(t, try(t, m.Feature("f"), "s", 1))
}

// Neither keys nor tokens get into the file, the log or Health, also when units are in
// doubt; and a person settles them.
func TestPrepaidDoubtAndSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		v := newVendor()
		v.sell("s", 1000)
		m := open(t, slow(t), inDir(dir))
		f := m.Feature("f", Prepaid(v.balance(), 100)) // others may draw: it can't be read
		v.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true, On: "Decrement"})
		_, _, err := f.Begin(as("s"))
		require.Equal(t, license.Unavailable, asRefused(t, err).Reason)
		time.Sleep(time.Minute)
		require.True(t, try(t, f, "s", 1))
		require.EqualValues(t, 800, v.left("s"))
		health := m.Health()
		require.ErrorContains(t, health, "100 prepaid units are in doubt")
		_, after, _ := strings.Cut(health.Error(), "one: ")
		id, _, _ := strings.Cut(after, " ")
		require.NoError(t, m.SettlePrepaid(t.Context(), id, true, "the log of the API has it"))
		require.ErrorIs(t, m.SettlePrepaid(t.Context(), id, true, ""), ErrNotInDoubt)
		require.NoError(t, m.Health())
		require.EqualValues(t, 199, f.Total("s").Drawn)
		require.NoError(t, m.Shutdown(t.Context()))
		require.EqualValues(t, 999, v.left("s"))
		file, err := os.ReadFile(filepath.Join(dir, "prepaid"))
		require.NoError(t, err)
		require.Contains(t, string(file), "the log of the API has it")
		all := string(file) + fmt.Sprint(health, err, m.logs.all())
		require.NotContains(t, all, "KEYCANARY")
		require.NotContains(t, all, "TOKENCANARY")
	})
}
