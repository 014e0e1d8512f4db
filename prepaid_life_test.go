package meter

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/license"
)

// What was drawn outlives the process, and goes back when one has the time for it.
func TestPrepaidAcrossRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		change := slow(t)
		v := newVendor()
		v.sell("s", 1000)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		used := 0
		for round := range 6 {
			m := open(t, change)
			f := m.Feature("f", Prepaid(v.balance(sole), 100))
			for range 30 {
				require.True(t, try(t, f, "s", 1))
				used++
			}
			require.EqualValues(t, used, f.Total("s").Quantity)
			if round%2 == 0 {
				require.NoError(t, m.Flush(t.Context()))
				require.ErrorContains(t, m.Shutdown(ended), "unused prepaid units, of 1 subject, were not returned")
				require.Less(t, v.left("s"), int64(1000-used))
			} else {
				require.NoError(t, m.Shutdown(t.Context()))
				require.EqualValues(t, 1000-used, v.left("s"))
			}
		}
	})
}

// A period of its own, and units counted before they were prepaid, don't take of them.
func TestPrepaidBeginsWhereItBegins(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{InMemory, t.TempDir()} {
		v := newVendor()
		v.sell("s", 10)
		m := open(t, inDir(dir))
		f := m.Feature("f")
		require.NoError(t, f.Add(t.Context(), "s", 500))
		f = m.Feature("f", Prepaid(v.balance(sole), 4))
		for range 10 {
			require.True(t, try(t, f, "s", 1))
		}
		require.False(t, try(t, f, "s", 1))
	}
}

// Neither a plan that the subject had before, nor one beside, changes what was bought.
func TestPrepaidBesidePeriods(t *testing.T) {
	t.Parallel()
	for _, beside := range []bool{true, false} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			v := newVendor()
			v.sell("s", 100)
			m := open(t, slow(t), inDir(dir))
			now := time.Now()
			plan := limited(license.Quota{Limit: 1000, Start: now.Add(-time.Hour), End: now.Add(48 * time.Hour)})
			f := m.Feature("f", plan)
			for range 50 {
				require.True(t, try(t, f, "s", 1))
			}
			require.NoError(t, m.Shutdown(t.Context()))
			m = open(t, slow(t), inDir(dir))
			pre := m.Feature("f", Prepaid(v.balance(sole), 100))
			used := 0
			use := func(f *Feature, n int) {
				for used < n && try(t, f, "s", 1) {
					used++
				}
			}
			use(pre, 90)
			if beside {
				f = m.Feature("f", plan)
				use(f, 95)
				require.EqualValues(t, 1000, f.Total("s").Limit)
			}
			time.Sleep(50 * time.Hour) // the plan's period ends
			require.NoError(t, m.Flush(t.Context()))
			use(pre, 2000)
			require.Equal(t, 100, used)
			require.Equal(t, Total{Quantity: 100, Limit: -1}, pre.Total("s"))
			require.NoError(t, m.Shutdown(t.Context()))
			require.Zero(t, v.left("s"))
		})
	}
}

// What is counted by hand while the process holds nothing, and what AllowUnknown and
// Shadow let through, is paid with what is drawn next, over restarts, too.
func TestPrepaidDebtsSurviveRestarts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"by hand":      func(*Config) {},
		"AllowUnknown": func(c *Config) { c.AllowUnknown = true },
		"Shadow":       func(c *Config) { c.Shadow = true },
	} {
		for _, anew := range []bool{true, false} { // the subject's first calls are those
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				v := newVendor()
				v.sell("s", 150)
				used := int64(0)
				m, f := bench{}, (*Feature)(nil)
				restart := func() {
					if m.Meter != nil {
						_ = m.Shutdown(t.Context())
					}
					m = open(t, slow(t), inDir(dir), change)
					f = m.Feature("f", Prepaid(v.balance(sole), 100))
				}
				restart()
				if !anew || name == "by hand" { // before there was an account they are free
					require.True(t, try(t, f, "s", 1))
					used++
					restart()
				}
				v.SetDown(name != "by hand")
				for range 60 {
					if name != "by hand" {
						require.True(t, try(t, f, "s", 1))
					} else {
						require.NoError(t, f.Add(t.Context(), "s", 1))
					}
					used++
				}
				require.EqualValues(t, used, f.Total("s").Quantity)
				restart()
				restart()
				require.EqualValues(t, used, f.Total("s").Quantity, name)
				v.SetDown(false)
				time.Sleep(time.Minute)
				require.True(t, try(t, f, "s", 1))
				used++
				require.NoError(t, m.Shutdown(t.Context()))
				require.EqualValues(t, 150-used, v.left("s"), name)
			})
		}
	}
}

// Units are used by the counts beside them, and by no others; once they are returned the
// directory may be adopted.
func TestPrepaidUnitsAreNotAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := t.TempDir()
		v := newVendor()
		v.sell("s", 100)
		run := func(ctx context.Context) {
			m := open(t, slow(t), inDir(filepath.Join(base, "one")))
			f := m.Feature("f", Prepaid(v.balance(sole), 10))
			require.True(t, try(t, f, "s", 1))
			_ = m.Shutdown(ctx)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		run(ended)
		require.EqualValues(t, 90, v.left("s"))
		adopting := func(c *Config) { c.Dir, c.Adopt = filepath.Join(base, "two"), filepath.Join(base, "*") }
		m := open(t, slow(t), adopting)
		require.ErrorContains(t, m.Health(), "it may hold prepaid units")
		require.Panics(t, func() { m.Feature("f", Prepaid(v.balance(sole), 10)) })
		require.NoError(t, m.Shutdown(t.Context()))
		run(t.Context())
		require.EqualValues(t, 98, v.left("s"))
		m = open(t, slow(t), adopting)
		require.NoError(t, m.Health())
		require.EqualValues(t, 2, m.Feature("f").Total("s").Quantity)
		require.NoError(t, m.Shutdown(t.Context()))
	})
}
