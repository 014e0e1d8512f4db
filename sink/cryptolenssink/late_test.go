package cryptolenssink_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

func lateRecord() sink.Record {
	r := record(0, 3)
	r.Start = time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	r.End, r.Backdated = r.Start.Add(time.Minute), true
	return r
}

// What is in doubt when its month ends may have been counted: that it is late must not
// have it billed by hand.
func TestDoubtOverTheEndOfTheMonth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2000, 1, 31, 23, 59, 0, 0, time.UTC)))
		v := newVendor()
		s := v.sink(func(c *cryptolenssink.Config) { c.Doubt = cryptolenssink.Assume })
		r := lateRecord()
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{r}))
		require.EqualValues(t, 3, v.total(subject))
		time.Sleep(2 * time.Minute)
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{again(r)}), "what is in doubt is taken for recorded")
	})
}

func TestCountersFindOutOverTheEndOfTheMonth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2000, 1, 31, 23, 59, 0, 0, time.UTC)))
		v := newVendor()
		s := v.counters()
		r := lateRecord()
		unanswered(t, v, s, r, lost)
		time.Sleep(2 * time.Minute)
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{again(r)}), "it was counted, and the sink can find that out")
	})
}
