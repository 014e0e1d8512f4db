package meter

import (
	"context"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// TestDeliversByItselfOnARealClock waits for real, and not for long: the clock of
// testing/synctest stands still between two looks at it, and a real one does not.
func TestDeliversByItselfOnARealClock(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"memory": InMemory, "directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			attempts := make(chan sink.Record, 100)
			m := open(t, func(c *Config) {
				c.Dir, c.Window = dir, time.Second
				c.Sinks = []Route{{Name: "sink", Sink: sink.Func(func(_ context.Context, records []sink.Record) error {
					for _, r := range records {
						attempts <- r
					}
					if records[0].Attempt == 1 {
						return sink.ErrNotApplied // so that it takes a pause, too
					}
					return nil
				})}}
			})
			report := m.Feature("report")
			for range 2 { // windows
				require.NoError(t, report.Add(ctx, "acme", 3))
				for attempt := range 2 {
					select {
					case r := <-attempts:
						require.EqualValues(t, 3, r.Quantity)
						require.Equal(t, attempt+1, r.Attempt)
					case <-ctx.Done():
						require.Fail(t, "nothing was delivered", "health: %v", m.Health())
					}
				}
			}
		})
	}
}
