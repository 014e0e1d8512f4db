package cryptolenssink_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

// What each answer means for the record, and for the route.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	const (
		doubt     = "doubt"
		postponed = "postponed" // the others of the route go on
		waits     = "waits"     // the route does
	)
	for name, test := range map[string]struct {
		fault cryptolenstest.Fault
		want  string
	}{
		"dropped before":  {cryptolenstest.Fault{Answer: cryptolenstest.Drop}, doubt},
		"dropped after":   {cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true}, doubt},
		"empty 200":       {cryptolenstest.Fault{Answer: cryptolenstest.Empty, Applied: true}, doubt},
		"500":             {cryptolenstest.Fault{Answer: cryptolenstest.Error500}, doubt},
		"page":            {cryptolenstest.Fault{Answer: cryptolenstest.HTML502}, doubt},
		"no result":       {cryptolenstest.Fault{Answer: cryptolenstest.NoResult, Message: "Access denied."}, doubt},
		"redirect":        {cryptolenstest.Fault{Answer: cryptolenstest.Redirect}, doubt},
		"garbled":         {cryptolenstest.Fault{Answer: cryptolenstest.Garbled, Applied: true}, doubt},
		"truncated":       {cryptolenstest.Fault{Answer: cryptolenstest.Truncated, Applied: true}, doubt},
		"hang":            {cryptolenstest.Fault{Answer: cryptolenstest.Hang}, doubt},
		"counter":         {refused("Could not increment the usage counter."), doubt},
		"went wrong":      {refused("Something went wrong. Please contact support@cryptolens.io and we will try to fix it."), doubt},
		"unknown words":   {refused("Server busy."), doubt},
		"no words":        {refused(""), doubt},
		"no key":          {refused("Could not find the key."), postponed},
		"blocked":         {refused("The key is blocked and cannot be accessed."), postponed},
		"no subscription": {refused("The subscription item id could not be found."), postponed},
		"input":           {refused("The input parameters were incorrect."), postponed},
		"token":           {refused("Unable to authenticate."), waits},
		"permission":      {refused("Access denied."), waits},
		"product":         {refused("Could not find the product."), waits},
		"processor":       {refused("No Stripe payment processor was set up."), waits},
		"unpaid":          {refused("No active subscription found. Please contact support."), waits},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := newVendor()
				v.keyText(subject)
				v.Script(test.fault)
				err := v.sink().Deliver(t.Context(), []sink.Record{record(0, 3)})
				require.Equal(t, 1, v.Fired())
				_, batch := err.(*sink.BatchError)
				switch test.want {
				case doubt:
					requireDoubt(t, err)
					require.ErrorIs(t, err, cryptolens.ErrInDoubt)
				case postponed:
					require.ErrorIs(t, err, sink.ErrPostponed)
					require.True(t, batch, "it is the record's own trouble")
				case waits:
					require.ErrorIs(t, err, sink.ErrNotApplied)
					require.NotErrorIs(t, err, sink.ErrPostponed)
					require.False(t, batch)
					require.Equal(t, time.Minute, sink.RetryDelay(err))
				}
				applied := map[bool]int64{true: 3}[test.fault.Applied]
				require.Equal(t, applied, v.total(subject))
			})
		})
	}
}

func refused(message string) cryptolenstest.Fault {
	return cryptolenstest.Fault{Answer: cryptolenstest.Refused, Message: message}
}

// A doubt costs one record, not a batch of them.
func TestDoubtLeavesTheRestForLater(t *testing.T) {
	t.Parallel()
	v := newVendor()
	v.keyText(subject)
	v.Script(cryptolenstest.Fault{}, cryptolenstest.Fault{Answer: cryptolenstest.HTML502})
	errs := outcomes(t, v.sink().Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 2), record(2, 4), record(3, 8)}), 4)
	require.NoError(t, errs[0])
	requireDoubt(t, errs[1])
	for _, err := range errs[2:] {
		require.ErrorIs(t, err, sink.ErrNotApplied)
		require.NotErrorIs(t, err, cryptolens.ErrInDoubt, "the doubt is another record's")
	}
	require.Equal(t, 2, v.Requests())

	v.Script(refused("Could not increment the usage counter."))
	errs = outcomes(t, v.sink().Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 2)}), 2)
	requireDoubt(t, errs[0])
	require.NoError(t, errs[1], "Stripe's trouble with one item is not the others'")
}

// A call that the end of the batch would cut off is not begun.
func TestNoCallWithoutTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVendor()
		v.keyText(subject)
		s := v.sink()
		slow := cryptolenstest.Fault{Delay: 15 * time.Second}
		v.Script(slow, slow, slow, slow, slow)
		ctx, cancel := context.WithTimeout(t.Context(), s.Limits().Timeout)
		defer cancel()
		errs := outcomes(t, s.Deliver(ctx, []sink.Record{record(0, 1), record(1, 2), record(2, 4), record(3, 8)}), 4)
		require.NoError(t, errors.Join(errs[:3]...))
		require.ErrorIs(t, errs[3], sink.ErrNotApplied)
		require.EqualValues(t, 7, v.total(subject))
	})
}

func TestBadRecordsAreNotSent(t *testing.T) {
	t.Parallel()
	v := newVendor()
	other, zero, negative, most, big := record(0, 1), record(1, 0), record(2, -5), record(3, math.MaxInt32), record(4, math.MaxInt32+1)
	other.Kind = sink.Last
	errs := outcomes(t, v.sink().Deliver(t.Context(), []sink.Record{other, zero, negative, most, big}), 5)
	for _, i := range []int{0, 1, 2, 4} {
		require.ErrorIs(t, errs[i], sink.ErrRejected)
	}
	require.NoError(t, errs[3])
	require.Equal(t, 1, v.Requests())
	require.EqualValues(t, math.MaxInt32, v.sink().Limits().MaxQuantity)
}

// Usage that is reported for a month that is over must not be billed in this one.
func TestUsageOfAMonthThatIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(40 * 24 * time.Hour)
		over, running, late := record(0, 1), record(1, 2), record(2, 4)
		over.Start = time.Now().AddDate(0, -1, 0)
		over.End = over.Start.Add(time.Minute)
		late.Start, late.End = over.Start, over.End // counted in time, and delivered late
		running.Start = time.Now().Add(-time.Hour)
		running.End = running.Start.Add(time.Minute)
		over.Backdated, running.Backdated = true, true
		for _, s := range []sink.Sink{newVendor().sink(), newVendor().counters()} {
			errs := outcomes(t, s.Deliver(t.Context(), []sink.Record{over, running, late}), 3)
			require.ErrorIs(t, errs[0], sink.ErrRejected)
			require.ErrorContains(t, errs[0], "January 2000")
			require.NoError(t, errs[1])
			require.NoError(t, errs[2])
		}
	})
}

// Whoever has no key yet keeps nobody waiting.
func TestSubjectWithoutKey(t *testing.T) {
	t.Parallel()
	v := newVendor()
	s := v.sink(func(c *cryptolenssink.Config) {
		c.Key = func(ctx context.Context, subject string) (license.Key, error) {
			switch subject {
			case "nobody":
				return license.Key{}, nil
			case "trouble":
				return license.Key{}, errors.Join(sink.ErrRejected, errors.New("no snapshot"))
			}
			return v.key(ctx, subject)
		}
	})
	nobody, trouble, somebody := record(0, 1), record(1, 1), record(2, 1)
	nobody.Subject, trouble.Subject = "nobody", "trouble"
	errs := outcomes(t, s.Deliver(t.Context(), []sink.Record{nobody, trouble, somebody}), 3)
	for _, err := range errs[:2] {
		require.ErrorIs(t, err, sink.ErrPostponed)
		require.NotErrorIs(t, err, sink.ErrRejected, "what the function wraps is no outcome of the record")
	}
	require.ErrorContains(t, errs[0], "nobody")
	require.ErrorContains(t, errs[1], "no snapshot")
	require.NoError(t, errs[2])

	ctx, cancel := context.WithCancel(t.Context())
	waiting := v.sink(func(c *cryptolenssink.Config) {
		c.Key = func(ctx context.Context, _ string) (license.Key, error) { cancel(); return license.Key{}, ctx.Err() }
	})
	err := waiting.Deliver(ctx, []sink.Record{record(3, 1)})
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorIs(t, err, context.Canceled)
}

// Two subjects may lead to one key, whose calls must not overlap.
func TestOneCallAtATimeForAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVendor()
		one := v.keyText(subject)
		s := v.sink(func(c *cryptolenssink.Config) {
			c.Key = func(context.Context, string) (license.Key, error) { return license.NewKey(one), nil }
		})
		for range 3 {
			v.Script(cryptolenstest.Fault{Delay: time.Second})
		}
		done := make(chan error)
		for _, subject := range []string{"a", "b", "c"} {
			go func() {
				r := record(0, 1)
				r.Subject = subject
				done <- s.Deliver(t.Context(), []sink.Record{r})
			}()
		}
		begun := time.Now()
		for range 3 {
			require.NoError(t, <-done)
		}
		require.Equal(t, 3*time.Second, time.Since(begun))
		require.Zero(t, v.Overlaps())
	})
}

func TestDoubtAsTold(t *testing.T) {
	t.Parallel()
	for doubt, want := range map[cryptolenssink.Doubt]struct {
		window        time.Duration
		first, second bool // answered nil
		total         int64
	}{
		cryptolenssink.Quarantine: {0, false, true, 6}, // meter would not have sent it again
		cryptolenssink.Resend:     {365 * 24 * time.Hour, false, true, 6},
		cryptolenssink.Assume:     {365 * 24 * time.Hour, true, true, 3},
	} {
		v := newVendor()
		v.keyText(subject)
		s := v.sink(func(c *cryptolenssink.Config) { c.Doubt = doubt })
		require.Equal(t, want.window, s.Limits().DedupeWindow)
		v.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true})
		require.Equal(t, want.first, s.Deliver(t.Context(), []sink.Record{record(0, 3)}) == nil, doubt)
		require.Equal(t, want.second, s.Deliver(t.Context(), []sink.Record{again(record(0, 3))}) == nil, doubt)
		require.Equal(t, want.total, v.total(subject), doubt)
	}
}
