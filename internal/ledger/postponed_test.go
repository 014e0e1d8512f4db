package ledger

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestPostponed shows in Health what waits because of what it is, and lets an operator
// write it off.
func TestPostponed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("nobody", 3))
		require.NoError(t, f.Add("acme", 4))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		try := func() (id string) {
			b, err := l.Take(0, 10, nil)
			require.NoError(t, err)
			results := make([]Result, len(b.Records))
			for i, r := range b.Records {
				results[i].Outcome = sink.Delivered
				if r.Subject == "nobody" {
					results[i] = Result{Outcome: sink.Pending, NotBefore: time.Now().Add(time.Minute), Reason: "no subscription", Postponed: true}
					id = r.ID
				}
			}
			require.NoError(t, b.Resolve(results))
			return id
		}
		id := try()
		require.ErrorContains(t, l.Health(), `route "main": 1 record is postponed`)
		require.ErrorContains(t, l.Health(), `one of them, of subject "nobody": no subscription`)
		require.Equal(t, 1, l.Postponed(0))
		time.Sleep(2 * time.Minute)
		require.Zero(t, l.Postponed(0), "its time has come")
		require.Equal(t, id, try())
		require.ErrorContains(t, l.Settle(context.Background(), "main", id, sink.Pending, "?"), "not in quarantine", "it is pending as it is")
		require.NoError(t, l.Settle(context.Background(), "main", id, sink.Voided, "the customer has left"))
		require.NoError(t, l.Health())
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 7, Delivered: 4, Voided: 3}}, l.Books())
	})
}
