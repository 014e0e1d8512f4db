package chaos

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An oracle that never objects proves nothing. Each of these must be found.
func TestOracleObjects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*order)
		rule   string
	}{
		"acknowledged before it was counted": {func(o *order) { o.Premature = true }, "lost"},
		"a record lost by the sink":          {func(o *order) { o.Fault = drops }, "lost"},
		"a record billed again":              {func(o *order) { o.Fault = repeats }, "extra"},
		"a record billed to somebody else":   {func(o *order) { o.Fault = reassigns }, "extra"},
		"a body changed between attempts":    {func(o *order) { o.Fault = inflates }, "body"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed(t))
			var found []violation
			for i := range uint64(10) {
				rng := rand.New(rand.NewPCG(w.seed, i))
				o := w.order(rng)
				// A shutdown delivers, and so has the sink do its harm in each round.
				o.Restarts = true
				c.change(&o)
				w.kill(o, moment{from: ready, wait: 150 * time.Millisecond})
				if found = append(found, w.settle()...); has(found, c.rule) {
					t.Logf("round %d: %v", i, found)
					return
				}
			}
			require.Fail(t, "not found", "seed %d; found were: %v", w.seed, found)
		})
	}
}

func has(found []violation, rule string) bool {
	for _, v := range found {
		if v.rule == rule {
			return true
		}
	}
	return false
}

func TestReachable(t *testing.T) {
	t.Parallel()
	maybe := []note{{kind: intent, n: 3}, {kind: intent, n: 5}}
	for sum, want := range map[int64]bool{0: true, 3: true, 5: true, 8: true, 1: false, 2: false, 4: false, 6: false, 7: false} {
		require.Equal(t, want, reachable(sum, maybe), sum)
	}
	maybe = append(maybe, note{kind: burst, n: 2})
	require.True(t, reachable(7, maybe))
	require.True(t, reachable(10, maybe))
	require.False(t, reachable(11, maybe))
}
