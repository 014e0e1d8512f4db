package cryptolenssink_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

func on(endpoint string, faults ...cryptolenstest.Fault) (all []cryptolenstest.Fault) {
	for _, f := range faults {
		f.On = endpoint
		all = append(all, f)
	}
	return all
}

var (
	lost    = cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true}
	dropped = cryptolenstest.Fault{Answer: cryptolenstest.Drop}
	fine    = cryptolenstest.Fault{}
)

// unanswered delivers a record whose increment gets no answer, and no reading either.
func unanswered(t *testing.T, v *vendor, s sink.Sink, r sink.Record, increment cryptolenstest.Fault) {
	t.Helper()
	v.Script(on("IncrementIntValue", increment)...)
	v.Script(on("ListDataObjects", fine, dropped)...)
	requireDoubt(t, s.Deliver(t.Context(), []sink.Record{r}))
}

func deliver(t *testing.T, s sink.Sink, records ...sink.Record) {
	t.Helper()
	require.NoError(t, s.Deliver(t.Context(), records))
}

// The next record, of a process that knows nothing of the first, must not hide what
// became of it.
func TestDoubtSurvivesRestartAndOtherRecords(t *testing.T) {
	t.Parallel()
	for name, increment := range map[string]cryptolenstest.Fault{"it was counted": lost, "it was not": dropped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVendor()
			unanswered(t, v, v.counters(), record(0, 3), increment)
			s := v.counters()
			deliver(t, s, record(1, 4), record(2, 5))
			deliver(t, s, again(record(0, 3)))
			deliver(t, v.counters(), again(record(0, 3)), again(record(1, 4)))
			require.EqualValues(t, 12, v.count(subject, object))
		})
	}
}

// An answer that was lost is made up for by reading, at once.
func TestLostAnswerIsRead(t *testing.T) {
	t.Parallel()
	v := newVendor()
	v.Script(on("IncrementIntValue", lost)...)
	deliver(t, v.counters(), record(0, 3))
	v.Script(on("SetStringValue", lost)...)
	deliver(t, v.counters(), record(1, 4))
	v.Script(on("SetStringValue", fine, lost)...)
	deliver(t, v.counters(), record(2, 5))
	require.Equal(t, 3, v.Fired())
	require.EqualValues(t, 12, v.count(subject, object))
}

// The API sets counters back at intervals.
func TestReset(t *testing.T) {
	t.Parallel()
	t.Run("between records", func(t *testing.T) {
		t.Parallel()
		for _, to := range []int64{0, 2, 3, 100} { // 0 and 3 are what the record leaves and finds
			v := newVendor()
			s := v.counters()
			deliver(t, s, record(0, 3))
			v.ResetDataObjects(product, object, to)
			deliver(t, s, record(1, 4), again(record(0, 3)))
			require.Equal(t, to+4, v.count(subject, object))
		}
	})
	t.Run("in doubt", func(t *testing.T) {
		t.Parallel()
		v := newVendor()
		s := v.counters()
		unanswered(t, v, s, record(0, 3), lost)
		v.ResetDataObjects(product, object, 2)
		deliver(t, s, record(1, 4))
		err := outcomes(t, s.Deliver(t.Context(), []sink.Record{again(record(0, 3))}), 1)[0]
		require.ErrorIs(t, err, sink.ErrRejected, "a person must decide")
		require.EqualValues(t, 6, v.count(subject, object))

		// The person has found that it was not counted, and queues it again.
		deliver(t, s, record(0, 3))
		deliver(t, s, again(record(0, 3)))
		require.EqualValues(t, 9, v.count(subject, object))
	})
	t.Run("in doubt, with nothing counted since", func(t *testing.T) {
		t.Parallel()
		v := newVendor()
		s := v.counters()
		unanswered(t, v, s, record(0, 3), lost)
		v.ResetDataObjects(product, object, 2)
		err := outcomes(t, s.Deliver(t.Context(), []sink.Record{again(record(0, 3))}), 1)[0]
		require.ErrorIs(t, err, sink.ErrRejected)
		require.EqualValues(t, 2, v.count(subject, object))
		v.ResetDataObjects(product, object, 0) // where the record had found it
		deliver(t, s, record(1, 4))
		require.EqualValues(t, 4, v.count(subject, object), "what a person decides about is not counted any more")
	})
	t.Run("while counting", func(t *testing.T) {
		t.Parallel()
		v := newVendor()
		s := v.counters()
		deliver(t, s, record(0, 3))
		v.Script(on("IncrementIntValue", refused("The bound would be passed."))...)
		errs := outcomes(t, s.Deliver(t.Context(), []sink.Record{record(1, 4)}), 1)
		v.ResetDataObjects(product, object, 100)
		require.ErrorIs(t, errs[0], sink.ErrNotApplied, "the API has answered, and nothing was counted")
		deliver(t, s, record(1, 4))
		require.EqualValues(t, 104, v.count(subject, object))
	})
}

// While an unanswered call may still arrive and overwrite what is written, the data
// object is left alone.
func TestRest(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]string{"text": "SetStringValue", "made": "AddDataObject"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := newVendor()
				s := v.counters()
				v.Script(on(endpoint, dropped)...)
				first := record(0, 3)
				if err := s.Deliver(t.Context(), []sink.Record{first}); endpoint == "AddDataObject" {
					require.ErrorIs(t, err, sink.ErrNotApplied, "nothing was noted")
				} else {
					requireDoubt(t, err)
					first = again(first)
				}
				before := v.Requests()
				err := outcomes(t, s.Deliver(t.Context(), []sink.Record{record(1, 4)}), 1)[0]
				require.ErrorIs(t, err, sink.ErrPostponed)
				require.Equal(t, time.Minute, sink.RetryDelay(err))
				require.Equal(t, before, v.Requests())
				other := record(1, 4)
				other.Subject = "other"
				deliver(t, s, other)
				time.Sleep(time.Minute)
				deliver(t, s, first, record(1, 4))
				require.EqualValues(t, 7, v.count(subject, object))
			})
		})
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	v := newVendor()
	s := v.counters()
	seats := func(n int, level int64) sink.Record {
		r := record(n, level)
		r.Feature, r.Kind = "seats", sink.Last
		return r
	}
	deliver(t, s, seats(0, 12))
	v.Script(on("SetIntValue", lost)...)
	requireDoubt(t, s.Deliver(t.Context(), []sink.Record{seats(1, 15)}))
	deliver(t, s, again(seats(1, 15)))
	require.EqualValues(t, 15, v.count(subject, "seats"))
	deliver(t, s, seats(2, 0))
	require.Zero(t, v.count(subject, "seats"))
	with := seats(3, 1)
	with.Dimensions = map[string]string{"region": "eu"}
	require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{with}), sink.ErrRejected)
}

func TestWhatACounterCannotTake(t *testing.T) {
	t.Parallel()
	v := newVendor()
	s := v.counters()
	key := v.keyText(subject)
	highest, peak, foreign := record(0, 3), record(1, 3), record(2, 3)
	highest.Kind, foreign.Feature = sink.Max, "unnamed"
	errs := outcomes(t, s.Deliver(t.Context(), []sink.Record{highest, foreign, peak}), 3)
	require.ErrorIs(t, errs[0], sink.ErrRejected)
	require.ErrorIs(t, errs[1], sink.ErrPostponed)
	require.NoError(t, errs[2])

	v.ResetDataObjects(product, object, math.MaxInt32-2)
	require.ErrorContains(t, s.Deliver(t.Context(), []sink.Record{record(3, 3)}), "is full")
	deliver(t, s, record(4, 2))
	require.EqualValues(t, math.MaxInt32, v.count(subject, object))

	v.AddDataObject(product, key, "", cryptolenstest.DataObject{Name: object})
	err := s.Deliver(t.Context(), []sink.Record{record(5, 1)})
	require.ErrorIs(t, err, sink.ErrPostponed)
	require.ErrorContains(t, err, "several data objects")

	other := record(6, 1)
	other.Subject = "other"
	v.AddDataObject(product, v.keyText("other"), "", cryptolenstest.DataObject{Name: object, String: "hand-made", Int: 7})
	v.AddDataObject(product, v.keyText("other"), "", cryptolenstest.DataObject{Name: "all " + object, Int: 9})
	err = s.Deliver(t.Context(), []sink.Record{other})
	require.ErrorIs(t, err, sink.ErrPostponed)
	require.ErrorContains(t, err, "not of this package")
	require.EqualValues(t, 7, v.count("other", object))
}

// A vendor may have made the data object, with a number in it.
func TestCounterThatIsThere(t *testing.T) {
	t.Parallel()
	v := newVendor()
	v.AddDataObject(product, v.keyText(subject), "", cryptolenstest.DataObject{Name: object, Int: -7})
	deliver(t, v.counters(), record(0, 3))
	require.EqualValues(t, -4, v.count(subject, object))
	require.Zero(t, v.RequestsTo("data/AddDataObjectToKey"))
}

// Each process has data objects of its own.
func TestInstances(t *testing.T) {
	t.Parallel()
	v := newVendor()
	s := v.counters()
	second := record(1, 4)
	second.Instance = 2
	deliver(t, s, record(0, 3), second)
	require.EqualValues(t, 3, v.count(subject, object))
	require.EqualValues(t, 4, v.count(subject, object+"-2"))
}

func TestValidateCounters(t *testing.T) {
	t.Parallel()
	require.NoError(t, newVendor().counters().Validate())
	err := cryptolenssink.NewCounters(cryptolenssink.CountersConfig{Objects: map[string]string{
		"": "x", "a": "", "b": strings.Repeat("x", 81), "c": "same", "d": "same"}}).Validate()
	for _, want := range []string{
		"CountersConfig.Token is empty", ".ProductID is 0", ".Key is nil", `.Objects[""] has an empty name`, `.Objects["a"] has 0 characters`,
		`.Objects["b"] has 81 characters`, `.Objects["d"] is "same", like that of feature "c"`,
	} {
		require.ErrorContains(t, err, want)
	}
	empty := cryptolenssink.NewCounters(cryptolenssink.CountersConfig{})
	require.ErrorContains(t, empty.Validate(), ".Objects is empty")
	require.ErrorIs(t, empty.Deliver(t.Context(), []sink.Record{record(0, 1)}), sink.ErrNotApplied)
	names := func(objects map[string]string) error {
		return newVendor().counters(func(c *cryptolenssink.CountersConfig) { c.Objects = objects }).Validate()
	}
	require.ErrorContains(t, names(map[string]string{"a": "reports", "b": "reports-1"}),
		`.Objects["b"] is "reports-1", as an instance of feature "a" would name its "reports"`)
	require.Error(t, names(map[string]string{"b": "x-1", "a": "x-1-12"}))
	require.NoError(t, names(map[string]string{"a": "reports", "b": "reports-", "c": "reports-x1", "d": "reports1", "e": "other-1", "f": "-1"}))

	s := newVendor().counters()
	require.NoError(t, s.Prepare(t.Context(), []sink.Feature{{Name: feature}, {Name: "seats"}}))
	require.ErrorContains(t, s.Prepare(t.Context(), []sink.Feature{{Name: feature}, {Name: "x"}}), `feature "x" has no data object`)
	require.Equal(t, "cryptolens:3646/data", fmt.Sprint(s))
}

// A license server that logs usage takes increments by ID for itself.
func TestIncrementsGoByName(t *testing.T) {
	t.Parallel()
	v, seen := newVendor(), 0
	s := v.counters(func(c *cryptolenssink.CountersConfig) {
		c.HTTPClient = &http.Client{Transport: watching{v.Client().Transport, func(path string, form url.Values) {
			if strings.HasSuffix(path, "/data/IncrementIntValueToKey") {
				seen++
				require.Empty(t, form.Get("Id"))
				require.Equal(t, object, form.Get("Name"))
				require.Equal(t, "true", form.Get("EnableBound"))
				require.Equal(t, "3", form.Get("Bound"))
			}
		}}}
	})
	deliver(t, s, record(0, 3))
	require.Equal(t, 1, seen)
}

type watching struct {
	to  http.RoundTripper
	see func(path string, form url.Values)
}

func (w watching) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, _ := url.ParseQuery(string(body))
	w.see(r.URL.Path, form)
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return w.to.RoundTrip(r)
}
