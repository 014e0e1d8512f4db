package stripeapi_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stretchr/testify/require"
)

func TestExchangeIs(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"object":"list"}`: true, `{"object":"lists"}`: false, `{}`: false, ``: false, `"list"`: false, `{"object":"list"`: false,
		`{"object":1}`: false, `<html>`: false, `null`: false,
	} {
		e := stripeapi.Exchange{Status: 200, Complete: true, Body: []byte(body)}
		require.Equal(t, want, e.Is("list"), body)
		e.Status = 302
		require.False(t, e.Is("list"), body)
		e.Status, e.Complete = 200, false
		require.False(t, e.Is("list"), body)
	}
	require.False(t, (&stripeapi.Exchange{}).Is(""))
}

func TestExchangeHTML(t *testing.T) {
	t.Parallel()
	require.True(t, (&stripeapi.Exchange{Body: []byte(" \n<html>")}).HTML())
	require.True(t, (&stripeapi.Exchange{Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}}).HTML())
	require.False(t, (&stripeapi.Exchange{Body: []byte(`{"a":"<html>"}`)}).HTML())
	require.False(t, (&stripeapi.Exchange{}).HTML())
}

func TestExchangeRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		for header, want := range map[string]time.Duration{
			"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "1.5": 0, "soon": 0, "3601": time.Hour, "99999999999999": 0,
			in(time.Minute): time.Minute, in(-time.Minute): 0, in(48 * time.Hour): time.Hour,
		} {
			e := stripeapi.Exchange{Header: http.Header{"Retry-After": {header}}}
			require.Equal(t, want, e.RetryAfter(), header)
		}
		require.Zero(t, (&stripeapi.Exchange{}).RetryAfter())
	})
}

func TestModes(t *testing.T) {
	t.Parallel()
	require.NoError(t, stripeapi.CheckMode("", "sk_live_1"))
	require.NoError(t, stripeapi.CheckMode("live", "rk_live_1"))
	require.NoError(t, stripeapi.CheckMode("live", "pk_test_1"), "the key's own fault says more")
	require.EqualError(t, stripeapi.CheckMode("test", "sk_live_1"), "is test, and Key is a live key: one of them is in the wrong place")
	require.ErrorContains(t, stripeapi.CheckMode("sk_live_1", "sk_live_1"), `is "[key]"`)

	require.NoError(t, stripeapi.CheckObject(true, "sk_live_1", ""))
	require.NoError(t, stripeapi.CheckObject(true, "sk_test_1", "http://localhost"))
	require.ErrorContains(t, stripeapi.CheckObject(true, "sk_test_1", ""), "it belongs to live mode, and the key to test mode")
	require.ErrorContains(t, stripeapi.CheckObject(false, "rk_live_1", "https://stripe.example"), "it belongs to test mode")
}

// Nothing in a search may mean more than itself.
func TestSearches(t *testing.T) {
	t.Parallel()
	require.NoError(t, stripeapi.CheckMetadata(""))
	require.NoError(t, stripeapi.CheckMetadata("skm_key-id.2"))
	for _, bad := range []string{"a b", "a'", `a"`, "a]", `a\`, "ä", "a\n", "01234567890123456789012345678901234567890"} {
		require.Error(t, stripeapi.CheckMetadata(bad), "%q", bad)
	}
	require.True(t, stripeapi.Searchable("Az09._:@+/=-"))
	for _, bad := range []string{"", "a b", "a'", `a"`, `a\`, "a*", "a~", "ä", "a\n", "a\x00"} {
		require.False(t, stripeapi.Searchable(bad), "%q", bad)
	}
	require.Equal(t, "metadata['key']:'LK-1'", stripeapi.MetadataQuery("key", "LK-1"))
}
