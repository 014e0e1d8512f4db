package meter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// secondThoughts takes records and can take them back.
type secondThoughts struct {
	answer error // of Deliver
	refuse error // of Void
	got    []sink.Record
	voided []string
	during func() // of Void; nil: nothing
}

func (s *secondThoughts) Limits() sink.Limits { return sink.Limits{Confirm: time.Hour} }

func (s *secondThoughts) Deliver(_ context.Context, records []sink.Record) error {
	s.got = append(s.got, records...)
	return s.answer
}

func (s *secondThoughts) Void(_ context.Context, r sink.Record) error {
	if s.during != nil {
		s.during()
	}
	if s.refuse == nil {
		s.voided = append(s.voided, r.ID)
	}
	return s.refuse
}

// billOne counts and delivers one record.
func billOne(t *testing.T, s sink.Sink) *Meter {
	t.Helper()
	m := open(t, func(c *Config) {
		c.Dir, c.Retain, c.Instance, c.Window = t.TempDir(), 24*time.Hour, 7, OnFlush
		c.Sinks = []Route{{Name: "biller", Sink: s}}
	})
	require.NoError(t, m.Feature("calls").Add(t.Context(), "acme", 5))
	_ = m.Flush(t.Context())
	return m.Meter
}

func TestReopen(t *testing.T) {
	t.Parallel()
	s := &secondThoughts{}
	m := billOne(t, s)
	id := s.got[0].ID
	require.Equal(t, 7, s.got[0].Instance)
	require.ErrorContains(t, m.Reopen(t.Context(), "billing", id, "?"), `no route "billing"`)
	require.ErrorIs(t, m.Reopen(t.Context(), "biller", "no-such-record", "?"), sink.ErrUnknownRecord)
	require.NoError(t, m.Reopen(t.Context(), "biller", id, "no such customer"))
	for q, outcome := range m.Quarantine() {
		require.Equal(t, sink.Rejected, outcome)
		require.Equal(t, "no such customer", q.Reason)
	}
	require.NoError(t, m.Settle(t.Context(), "biller", id, sink.Pending, "created the customer"))
	require.NoError(t, m.Flush(t.Context()))
	require.Len(t, s.got, 2)
	require.Equal(t, id+"-2", s.got[1].ID)
	require.Equal(t, Line{Feature: "calls", Route: "biller", Accepted: 5, Delivered: 5}, m.Books()[0])
}

func TestVoidAsksTheSink(t *testing.T) {
	t.Parallel()
	lost := errors.New("connection lost")
	for name, c := range map[string]struct {
		answer, refuse error
		asked          bool
	}{
		"delivered":           {asked: true},
		"in doubt":            {answer: lost, asked: true},
		"rejected":            {answer: sink.ErrRejected},
		"can't be taken back": {refuse: errors.New("older than a day"), asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &secondThoughts{answer: c.answer, refuse: c.refuse}
			m := billOne(t, s)
			id := s.got[0].ID
			err := m.Settle(t.Context(), "biller", id, sink.Voided, "a gift")
			line := m.Books()[0]
			if c.refuse != nil {
				require.ErrorIs(t, err, c.refuse)
				require.EqualValues(t, 5, line.Delivered, "nothing has changed")
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.asked, len(s.voided) == 1)
			require.EqualValues(t, 5, line.Voided)
			require.NoError(t, m.Books().Check())
		})
	}
}

func TestVoidWithoutVoider(t *testing.T) {
	t.Parallel()
	var got []sink.Record
	m := billOne(t, sink.Func(func(_ context.Context, records []sink.Record) error {
		got = records
		return nil
	}))
	err := m.Settle(t.Context(), "biller", got[0].ID, sink.Voided, "a gift")
	require.ErrorContains(t, err, "can't take record")
	require.EqualValues(t, 5, m.Books()[0].Delivered)
}

func TestRecords(t *testing.T) {
	t.Parallel()
	began := time.Now().Add(-time.Minute)
	m := billOne(t, &secondThoughts{})
	_, err := m.Records("billing", began, time.Now())
	require.ErrorContains(t, err, `no route "billing"`)
	records, err := m.Records("biller", began, time.Now().Add(time.Minute))
	require.NoError(t, err)
	n := 0
	for r, outcome := range records {
		n++
		require.EqualValues(t, 5, r.Quantity)
		require.Equal(t, sink.Delivered, outcome)
	}
	require.Equal(t, 1, n)

	_, err = open(t, func(c *Config) { c.Dir = t.TempDir() }).Records("memory", began, time.Now())
	require.ErrorContains(t, err, "Config.Retain")
}

// While a biller is asked to take a doubt back, somebody else may settle it.
func TestVoidNoticesWhatChangesMeanwhile(t *testing.T) {
	t.Parallel()
	s := &secondThoughts{answer: errors.New("no answer")}
	m := billOne(t, s)
	id := s.got[0].ID
	s.answer = nil
	s.during = func() {
		require.NoError(t, m.Settle(t.Context(), "biller", id, sink.Pending, "it does not have it"))
		require.NoError(t, m.Flush(t.Context()))
	}
	require.ErrorContains(t, m.Settle(t.Context(), "biller", id, sink.Voided, "a gift"), "has become delivered meanwhile")
	require.EqualValues(t, 5, m.Books()[0].Delivered)
}
