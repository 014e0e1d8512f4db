package cryptolenssink_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

// whole is a meter that bills through Cryptolens, from the count to the bill.
func whole(t *testing.T, dir string, s sink.Sink) *meter.Meter {
	t.Helper()
	m, err := meter.Open(meter.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Sinks: []meter.Route{{Name: "cryptolens", Sink: s}}})
	require.NoError(t, err)
	return m
}

func line(m *meter.Meter) meter.Line { return m.Books()[0] }

// Usage in doubt goes where the vendor has said, and nowhere else.
func TestDoubtInTheBooks(t *testing.T) {
	t.Parallel()
	for doubt, want := range map[cryptolenssink.Doubt]struct{ delivered, inDoubt, billed int64 }{
		cryptolenssink.Quarantine: {5, 3, 8}, // billed, and a person will find out
		cryptolenssink.Resend:     {8, 0, 11},
		cryptolenssink.Assume:     {8, 0, 8},
	} {
		t.Run(doubt.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := newVendor()
				m := whole(t, t.TempDir(), v.sink(func(c *cryptolenssink.Config) { c.Doubt = doubt }))
				report := m.Feature(feature)
				v.keyText(subject)
				v.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true})
				require.NoError(t, report.Add(t.Context(), subject, 3))
				time.Sleep(10 * time.Minute)
				require.NoError(t, report.Add(t.Context(), subject, 5))
				time.Sleep(10 * time.Minute)
				require.Equal(t, want.delivered, line(m).Delivered)
				require.Equal(t, want.inDoubt, line(m).InDoubt)
				require.Equal(t, want.billed, v.total(subject))
				held := 0
				for range m.Quarantine() {
					held++
				}
				require.Equal(t, map[bool]int{true: 1}[want.inDoubt > 0], held)
				require.NoError(t, m.Books().Check())
				require.NoError(t, m.Shutdown(t.Context()))
			})
		})
	}
}

// What was never sent is never assumed to be recorded.
func TestAssumeBillsWhatWasNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, calls := newVendor(), atomic.Int64{}
		m := whole(t, t.TempDir(), v.sink(func(c *cryptolenssink.Config) {
			c.Doubt = cryptolenssink.Assume
			c.Key = func(ctx context.Context, subject string) (license.Key, error) {
				if calls.Add(1) == 1 {
					panic("a bug of the vendor's database code")
				}
				return v.key(ctx, subject)
			}
		}))
		report := m.Feature(feature)
		for _, subject := range []string{"a", "b", "c"} {
			require.NoError(t, report.Add(t.Context(), subject, 10))
		}
		time.Sleep(10 * time.Minute)
		require.EqualValues(t, 30, v.total("a")+v.total("b")+v.total("c"))
		require.EqualValues(t, 30, line(m).Delivered)
		require.NoError(t, m.Shutdown(t.Context()))
	})
}

// A feature that is not named is never billed as another, whichever comes first.
func TestSecondFeatureAfterRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, dir := newVendor(), t.TempDir()
		v.keyText(subject)
		for _, reports := range []int64{2, 1, 0} {
			m := whole(t, dir, v.sink())
			tokens, report := m.Feature("tokens"), m.Feature(feature)
			if reports > 0 {
				require.NoError(t, report.Add(t.Context(), subject, reports))
				require.NoError(t, tokens.Add(t.Context(), subject, 5000))
			}
			time.Sleep(10 * time.Minute)
			require.ErrorContains(t, m.Health(), `"tokens" is not in Config.Features`)
			require.NoError(t, m.Books().Check())
			_ = m.Shutdown(t.Context())
		}
		require.EqualValues(t, 3, v.total(subject))
	})
}

// An outage of hours, and a subject whose key comes late, lose nothing.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVendor()
		m := whole(t, t.TempDir(), v.sink())
		report := m.Feature(feature)
		v.SetDown(true)
		for range 100 {
			require.NoError(t, report.Add(t.Context(), subject, 2))
			require.NoError(t, report.Add(t.Context(), "other", 1))
			time.Sleep(3 * time.Minute)
		}
		require.EqualValues(t, 300, line(m).Pending)
		require.NotNil(t, m.Health())
		v.SetDown(false)
		time.Sleep(time.Hour)
		require.EqualValues(t, 300, line(m).Delivered)
		require.EqualValues(t, 200, v.total(subject))
		require.EqualValues(t, 100, v.total("other"))
		require.NoError(t, m.Shutdown(t.Context()))
	})
}

// A counter's record in doubt is settled by the next process.
func TestCountersAcrossRestart(t *testing.T) {
	t.Parallel()
	for name, increment := range map[string]cryptolenstest.Fault{"counted": lost, "not counted": dropped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v, dir := newVendor(), t.TempDir()
				m := whole(t, dir, v.counters(func(c *cryptolenssink.CountersConfig) {
					c.HTTPClient = &http.Client{Transport: lastCall{v, "/data/IncrementIntValueToKey"}}
				}))
				v.keyText(subject)
				v.Script(on("IncrementIntValue", increment)...)
				require.NoError(t, m.Feature(feature).Add(t.Context(), subject, 3))
				time.Sleep(5 * time.Minute)
				require.EqualValues(t, 3, line(m).InDoubt)
				require.Equal(t, 1, v.Fired())
				_ = m.Shutdown(t.Context())
				v.SetDown(false)

				m = whole(t, dir, v.counters())
				require.NoError(t, m.Feature(feature).Add(t.Context(), subject, 4))
				time.Sleep(15 * time.Minute)
				require.EqualValues(t, 7, line(m).Delivered)
				require.EqualValues(t, 7, v.count(subject, object))
				require.NoError(t, m.Books().Check())
				require.NoError(t, m.Shutdown(t.Context()))
			})
		})
	}
}

// A customer with two keys, an increment that is refused while one of them is the last
// that was allowed, and usage on the other.
func TestCountersOfTwoKeysInTheBooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newTwoKeys()
		m := whole(t, t.TempDir(), k.open())
		report := m.Feature(feature)
		use := func(n int64, key string) {
			k.use(key)
			require.NoError(t, report.Add(t.Context(), subject, n))
			time.Sleep(10 * time.Minute)
		}
		use(1, "old")
		k.Script(on("IncrementIntValue", passed)...)
		require.NoError(t, report.Add(t.Context(), subject, 100))
		require.Error(t, m.Flush(t.Context()))
		require.Equal(t, 1, k.Fired())
		use(1, "new")
		use(1, "old")
		require.EqualValues(t, 103, line(m).Delivered)
		k.requireCounts(t, 2, 101)
		require.NoError(t, m.Shutdown(t.Context()))
	})
}

// What waits in a copy of the directory, and may have been sent by the original, is
// neither sent nor assumed by itself.
func TestCopyWaitsForAPerson(t *testing.T) {
	t.Parallel()
	for _, doubt := range []cryptolenssink.Doubt{cryptolenssink.Quarantine, cryptolenssink.Resend, cryptolenssink.Assume} {
		t.Run(doubt.String(), func(t *testing.T) {
			t.Parallel()
			v, dir, copied := newVendor(), t.TempDir(), filepath.Join(t.TempDir(), "copy")
			asTold := func(c *cryptolenssink.Config) { c.Doubt = doubt }
			synctest.Test(t, func(t *testing.T) {
				v.SetDown(true)
				m := whole(t, dir, v.sink(asTold))
				require.NoError(t, m.Feature(feature).Add(t.Context(), subject, 3))
				_ = m.Shutdown(t.Context())
				require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
				v.SetDown(false)
				m = whole(t, copied, v.sink(asTold))
				m.Feature(feature)
				time.Sleep(time.Hour)
				require.Zero(t, v.Requests())
				require.EqualValues(t, 3, line(m).InDoubt)
				require.NoError(t, m.Shutdown(t.Context()))
			})
		})
	}
}

// lastCall takes the vendor away after the first call of a method.
type lastCall struct {
	*vendor
	method string
}

func (l lastCall) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.Client().Transport.RoundTrip(r)
	if strings.HasSuffix(r.URL.Path, l.method) {
		l.SetDown(true)
	}
	return resp, err
}
