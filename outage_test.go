package meter

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// TestLicenseServerDownLongerThanGrace has the process restarted in the middle of an
// outage: customers notice nothing while the grace lasts, then the declared mode applies,
// and who was let through is what is billed.
func TestLicenseServerDownLongerThanGrace(t *testing.T) {
	t.Parallel()
	for mode, allowUnknown := range map[string]bool{"refuse": false, "let through": true} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var down error
				start := func() bench {
					return open(t, func(c *Config) {
						c.Dir, c.AllowUnknown = filepath.Join(dir, "counts"), allowUnknown
						c.Checker = cache.New(cache.Config{
							File: filepath.Join(dir, "verdicts"), Logger: c.Logger,
							Checker: license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
								return allowed("cus_ada"), down
							}),
						})
					})
				}
				// The host has authenticated her, too: without a verdict a key names nobody.
				ada := Caller{Key: license.NewKey("ada"), Subject: "cus_ada"}
				used := int64(0)
				use := func(m bench) error {
					_, call, err := m.Feature("report").Begin(WithCaller(t.Context(), ada))
					if err == nil {
						used++
						require.NoError(t, call.Commit())
					}
					return err
				}
				m := start()
				require.NoError(t, use(m))
				down = errors.New("connection refused")
				for hour := range 23 {
					time.Sleep(time.Hour)
					if hour == 10 {
						require.NoError(t, m.Shutdown(t.Context()))
						require.EqualValues(t, used, m.sink.Total("report", "cus_ada"))
						m = start()
					}
					require.NoError(t, use(m), "after %d hours", hour+1)
				}
				time.Sleep(2 * time.Hour)
				err := use(m)
				if allowUnknown {
					require.NoError(t, err)
				} else {
					require.Equal(t, license.Unavailable, asRefused(t, err).Reason)
				}
				require.EqualValues(t, used, m.Feature("report").Total("cus_ada").Quantity)
				require.NoError(t, m.Books().Check())
				down = nil
				time.Sleep(time.Minute) // the pause of the cache
				require.NoError(t, use(m))
				require.EqualValues(t, used, m.Feature("report").Total("cus_ada").Quantity)
				require.NoError(t, m.Shutdown(t.Context()))
			})
		})
	}
}
