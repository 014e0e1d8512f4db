package stripesink_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

func TestKeyOfUsageRecordsStaysSecret(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	for name, leak := range leaks {
		// Where a customer is looked up, and where usage is recorded.
		early := httptest.NewServer(leak)
		defer early.Close()
		reads, _ := answering(t, func(c *stripesink.UsageRecordsConfig) { c.BaseURL = early.URL }, leak)
		writes, _ := answering(t, nil, leak)
		for _, err := range []error{
			reads.Deliver(t.Context(), []sink.Record{hourAgo(1)}),
			writes.Deliver(t.Context(), []sink.Record{hourAgo(1), hourAgo(2)}),
			reads.Prepare(t.Context(), []sink.Feature{{Name: feature}}),
			second(reads.Usage(t.Context(), feature, customer, start, start.Add(time.Hour))),
		} {
			require.Error(t, err, name)
			fmt.Fprintf(&said, "%v %+v %#v\n", err, err, fmt.Sprint(err))
		}
	}
	cfg := stripesink.UsageRecordsConfig{
		Key: testKey, Account: testKey, BaseURL: "https://" + testKey, SubjectMetadata: testKey,
		Prices: map[string][]string{feature: {testKey}}, HTTPClient: http.DefaultClient,
	}
	u := stripesink.NewUsageRecords(cfg)
	slog.New(slog.NewTextHandler(&said, nil)).Info("x", "sink", u, "config", cfg)
	slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "sink", u, "config", cfg)
	fmt.Fprintf(&said, "%v %+v %#v %s %q %d %v %+v %#v %v\n", u, u, u, u, u, u, cfg, cfg, &cfg, u.Validate())
	require.Equal(t, slog.KindString, slog.AnyValue(cfg).Resolve().Kind())
	require.Contains(t, said.String(), "[key]")
	require.NotContains(t, said.String(), canary[:4])
}

// A subject that is a key by mistake is no secret's place, and yet.
func TestKeyAsASubject(t *testing.T) {
	t.Parallel()
	b := newRegister(t, byLicense)
	r := usage(-5, 1)
	r.Subject = testKey
	_, err := b.deliver(t, r)
	require.ErrorIs(t, err, stripesink.ErrNotFound)
	require.NotContains(t, err.Error(), canary)
}
