package cryptolenssink_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

// twoKeys is a subject whose key changes.
type twoKeys struct {
	*vendor
	now atomic.Value // string
}

func newTwoKeys() *twoKeys {
	k := &twoKeys{vendor: newVendor()}
	k.use("old")
	return k
}

func (k *twoKeys) use(key string) { k.now.Store(key) }

// open is a process.
func (k *twoKeys) open() *cryptolenssink.Counters {
	return k.counters(func(c *cryptolenssink.CountersConfig) {
		c.Key = func(ctx context.Context, _ string) (license.Key, error) { return k.key(ctx, k.now.Load().(string)) }
	})
}

func (k *twoKeys) requireCounts(t *testing.T, before, after int64) {
	t.Helper()
	require.Equal(t, before, k.count("old", object), "on the old key")
	require.Equal(t, after, k.count("new", object), "on the new key")
}

func requireRejected(t *testing.T, s sink.Sink, r sink.Record) {
	t.Helper()
	require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{r}), sink.ErrRejected)
}

// retried is the next attempt after one that surely failed.
func retried(r sink.Record) sink.Record {
	r.Attempt++
	return r
}

var (
	passed = refused("The bound would be passed.")
	denied = refused("Access denied.")
)

// A record in doubt is not counted on another key, too.
func TestKeyThatChanged(t *testing.T) {
	t.Parallel()
	k := newTwoKeys()
	s := k.open()
	unanswered(t, k.vendor, s, record(0, 3), lost)
	k.use("new")
	requireRejected(t, s, again(record(0, 3)))
	deliver(t, s, record(1, 4))
	k.requireCounts(t, 3, 4)
}

// What surely was not counted on one key is counted on the next, and not on the first
// when something else comes there.
func TestRefusedIncrementLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]cryptolenstest.Fault{"in known words": denied, "in others": passed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTwoKeys()
			s := k.open()
			deliver(t, s, record(0, 1))
			k.Script(on("IncrementIntValue", refusal)...)
			require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{record(1, 100)}), sink.ErrNotApplied)
			k.use("new")
			deliver(t, s, retried(record(1, 100)))
			k.use("old")
			deliver(t, s, record(2, 1))
			k.requireCounts(t, 2, 100)
		})
	}
}

// Where a record stays noted, it will be counted: that is doubt, whatever was refused.
func TestNotedIsInDoubt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		faults []cryptolenstest.Fault
		fired  int
		noted  bool
	}{
		"refused, and not taken back": {append(on("SetStringValue", fine, dropped), on("IncrementIntValue", passed)...), 2, true},
		"taken back without an answer": {append(append(on("SetStringValue", fine, lost), on("IncrementIntValue", denied)...),
			on("ListDataObjects", fine, dropped)...), 3, false},
		"noted without an answer":      {append(on("SetStringValue", lost), on("ListDataObjects", fine, dropped)...), 2, true},
		"not noted, without an answer": {append(on("SetStringValue", dropped), on("ListDataObjects", fine, dropped)...), 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTwoKeys()
			s := k.open()
			deliver(t, s, record(0, 1))
			k.Script(test.faults...)
			requireDoubt(t, s.Deliver(t.Context(), []sink.Record{record(1, 100)}))
			require.Equal(t, test.fired, k.Fired())
			k.use("new")
			requireRejected(t, s, again(record(1, 100)))
			k.use("old")
			deliver(t, k.open(), record(2, 1)) // of a process that doesn't wait
			if test.noted {
				k.requireCounts(t, 102, 0)
			} else {
				k.requireCounts(t, 2, 0)
			}
		})
	}
}

// A process that knows nothing of a record in doubt believes the data object alone.
func TestDoubtAfterRestart(t *testing.T) {
	t.Parallel()
	t.Run("and another key", func(t *testing.T) {
		t.Parallel()
		k := newTwoKeys()
		unanswered(t, k.vendor, k.open(), record(0, 3), lost)
		k.use("new")
		s := k.open()
		requireRejected(t, s, again(record(0, 3)))
		deliver(t, s, record(1, 4))
		requireRejected(t, s, again(record(0, 3)))
		k.use("old")
		deliver(t, k.open(), again(record(0, 3)))
		k.requireCounts(t, 3, 4)
	})
	t.Run("and no trace", func(t *testing.T) {
		t.Parallel()
		k := newTwoKeys() // killed between taking the record and noting it, perhaps on another key
		s := k.open()
		deliver(t, s, record(0, 3))
		requireRejected(t, s, again(record(1, 4)))
		deliver(t, s, retried(record(1, 4))) // a person has decided
		k.requireCounts(t, 7, 0)
	})
}

// A data object forgets records, but knows which ones it can't tell any more.
func TestForgottenRecords(t *testing.T) {
	t.Parallel()
	t.Run("in another process", func(t *testing.T) {
		t.Parallel()
		v := newVendor()
		s := v.counters()
		for n := range 230 {
			deliver(t, s, record(n, 1))
		}
		text := v.DataObjects(product, v.keyText(subject), "")[0].String
		require.Less(t, len(text), 10_000)
		require.EqualValues(t, 230, v.count(subject, object))
		for n := range 230 {
			if n < 30 {
				requireRejected(t, s, again(record(n, 1)))
			} else {
				deliver(t, s, again(record(n, 1)))
			}
		}
		require.EqualValues(t, 230, v.count(subject, object))
		deliver(t, s, record(230, 1), record(-1, 1))
		require.EqualValues(t, 232, v.count(subject, object), "what is new counts, also late")
	})
	for name, test := range map[string]struct {
		faults  []cryptolenstest.Fault
		doubt   bool
		counted int64
	}{
		"in doubt":      {append(on("IncrementIntValue", lost), on("ListDataObjects", fine, dropped)...), true, 1201},
		"still noted":   {append(on("IncrementIntValue", passed), on("SetStringValue", fine, denied)...), true, 1201},
		"surely failed": {on("IncrementIntValue", passed), false, 201},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVendor()
			s := v.counters()
			v.keyText(subject)
			v.Script(test.faults...)
			err := outcomes(t, s.Deliver(t.Context(), []sink.Record{record(0, 1000)}), 1)[0]
			for n := range 201 {
				deliver(t, s, record(n+1, 1))
			}
			require.Equal(t, test.counted, v.count(subject, object))
			if test.doubt {
				requireDoubt(t, err)
				requireRejected(t, s, again(record(0, 1000)))
			} else {
				require.ErrorIs(t, err, sink.ErrPostponed)
				deliver(t, s, retried(record(0, 1000)))
			}
			require.EqualValues(t, 1201, v.count(subject, object))
		})
	}
}

// A token that may not count leaves no doubt.
func TestRefusedIncrement(t *testing.T) {
	t.Parallel()
	v := newVendor()
	v.AddToken("weak", "ListDataObject", "AddDataObject", "SetStringValue")
	weak := v.counters(func(c *cryptolenssink.CountersConfig) { c.Token = "weak" })
	err := outcomes(t, weak.Deliver(t.Context(), []sink.Record{record(0, 3)}), 1)[0]
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.Zero(t, v.count(subject, object))
	deliver(t, v.counters(), record(0, 3))
	require.EqualValues(t, 3, v.count(subject, object))
}
