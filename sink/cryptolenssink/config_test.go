package cryptolenssink_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	require.NoError(t, newVendor().sink().Validate())
	for name, test := range map[string]struct {
		cfg  cryptolenssink.Config
		want []string
	}{
		"empty": {cryptolenssink.Config{}, []string{"Config.Token is empty", "Config.ProductID is 0", "Config.Key is nil", "Config.Features is empty"}},
		"all": {
			cryptolenssink.Config{Token: "a\n", ProductID: -1, BaseURL: "http://example.com", Doubt: 3, Features: []string{}, Rate: math.NaN()},
			[]string{".Token holds", ".ProductID is -1", ".BaseURL starts with http://", ".Doubt is 3", ".Features is empty", ".Rate is NaN"},
		},
		"more": {cryptolenssink.Config{Features: []string{"a", ""}, Rate: math.Inf(1)}, []string{".Features has an empty name", ".Rate is +Inf"}},
		"rate": {cryptolenssink.Config{Rate: -1}, []string{".Rate is -1"}},
	} {
		s := cryptolenssink.New(test.cfg)
		for _, want := range test.want {
			require.ErrorContains(t, s.Validate(), want, name)
			require.ErrorContains(t, s.Prepare(t.Context(), nil), want, name)
		}
		err := s.Deliver(t.Context(), []sink.Record{record(0, 1)})
		require.ErrorIs(t, err, sink.ErrNotApplied)
		require.ErrorIs(t, err, s.Validate())
	}
}

// Cryptolens has one number for a key: what adds up on it must be meant to.
func TestFeaturesAddUpOnlyIfNamed(t *testing.T) {
	t.Parallel()
	v := newVendor()
	a, b := sink.Feature{Name: "a"}, sink.Feature{Name: "b"}
	s := v.sink(func(c *cryptolenssink.Config) { c.Features = []string{"a", feature} })
	require.NoError(t, s.Prepare(t.Context(), []sink.Feature{a, {Name: feature}}))
	batch, ok := errors.AsType[*sink.BatchError](s.Prepare(t.Context(), []sink.Feature{b, a}))
	require.True(t, ok)
	require.ErrorContains(t, batch.Errs[0], `"b" is not in Config.Features`)
	require.NoError(t, batch.Errs[1])
	other := record(0, 1)
	other.Feature = "b"
	errs := outcomes(t, s.Deliver(t.Context(), []sink.Record{other, record(1, 2)}), 2)
	require.ErrorIs(t, errs[0], sink.ErrPostponed)
	require.NoError(t, errs[1])
}

func TestAddress(t *testing.T) {
	t.Parallel()
	require.Equal(t, "cryptolens:3646", newVendor().sink().Address())
}

// echo answers with all that it was sent.
type echo struct{ status int }

func (e echo) RoundTrip(r *http.Request) (*http.Response, error) {
	form, _ := io.ReadAll(r.Body)
	if e.status == 0 {
		return nil, fmt.Errorf("can't send %s", form)
	}
	body, _ := json.Marshal(map[string]any{"result": 1, "message": string(form)})
	return &http.Response{StatusCode: e.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	v := newVendor()
	for _, status := range []int{0, 200, 500} {
		cfg := v.config()
		cfg.HTTPClient = &http.Client{Transport: echo{status}}
		counters := v.countersConfig()
		counters.HTTPClient = cfg.HTTPClient
		for _, s := range []sink.Sink{cryptolenssink.New(cfg), cryptolenssink.NewCounters(counters)} {
			err := s.Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 1)})
			require.Error(t, err)
			fmt.Fprintf(&said, "%v %+v %q\n%v %+v %#v\n", err, err, err, s, s, s)
			slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "err", err, "sink", s, "config", cfg, "counters", counters)
		}
		fmt.Fprintf(&said, "%v %+v %#v %v %+v %#v\n", cfg, cfg, cfg, counters, counters, counters)
	}
	for _, cfg := range []any{cryptolenssink.Config{Token: token}, cryptolenssink.CountersConfig{Token: token}} {
		encoded, err := json.Marshal(cfg)
		require.NoError(t, err)
		said.Write(encoded)
	}
	require.Contains(t, said.String(), "[secret]")
	require.NotContains(t, said.String(), "canary")
	require.NotContains(t, said.String(), "CANARY")
}
