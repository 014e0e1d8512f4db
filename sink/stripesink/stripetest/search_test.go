package stripetest_test

import (
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func (c *caller) search(query string, pairs ...string) []string {
	c.t.Helper()
	return ids(c.get("/v1/subscriptions/search", append(pairs, "query", query)...))
}

func TestSearch(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	p := c.AddPrice(stripetest.Price{}).ID
	add := func(status string, metadata map[string]string) string {
		return c.AddSubscription(stripetest.Subscription{
			Customer: "cus_1", Status: status, Metadata: metadata, Items: []stripetest.Item{{Price: p}},
		}).ID
	}
	a := add("", map[string]string{"key": "ABC", "team": "x"})
	b := add("canceled", map[string]string{"key": "abc"})
	odd := add("", map[string]string{"key's": `it's "\`})
	for query, want := range map[string][]string{
		`metadata['key']:'ABC'`:                              {b, a},
		`metadata["key"]:"abc"`:                              {b, a},
		`metadata['key']:'AB'`:                               nil,
		`metadata['key']:'abc' AND status:'active'`:          {a},
		`metadata['key']:'abc' and metadata['team']:'x'`:     {a},
		`metadata['team']:'x'   AND  status:"canceled"`:      nil,
		`metadata['none']:''`:                                nil,
		`metadata['key\'s']:'it\'s "\\'`:                     {odd},
		`metadata['key']:'x\' OR metadata[\'team\']:\'x'`:    nil, // all of it is the value
		`status:'active'`:                                    {odd, a},
		`metadata['key']:'abc' AND metadata['key']:'nobody'`: nil,
	} {
		require.Equal(t, want, c.search(query), query)
	}
	for _, query := range []string{
		"x", `metadata[key]:'abc'`, `metadata['key']`, `metadata['key']:abc`, `metadata['key']:'a'b'`,
		`metadata['key']:'abc' AND`, `metadata['key']:'abc' AND `, `AND metadata['key']:'abc'`,
		`metadata['key']:'a' OR metadata['key']:'b'`, `metadata['key']:'abc`, `price:'x'`,
	} {
		c.refused("GET", "/v1/subscriptions/search", 400, "unable to parse your search query", "query", query)
	}
	c.refused("GET", "/v1/subscriptions/search", 400, "Missing required param: query.")
}

func TestSearchPages(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	p := c.AddPrice(stripetest.Price{}).ID
	for range 23 {
		c.AddSubscription(stripetest.Subscription{
			Customer: "cus_1", Metadata: map[string]string{"k": "v"}, Items: []stripetest.Item{{Price: p}},
		})
	}
	var all []string
	pages, next := 0, []string(nil)
	for more := true; more; pages++ {
		o := c.get("/v1/subscriptions/search", append(next, "query", `metadata['k']:'v'`)...)
		all = append(all, ids(o)...)
		if more = o["has_more"].(bool); more {
			next = []string{"page", o["next_page"].(string)}
		} else {
			require.Nil(t, o["next_page"])
		}
	}
	require.Equal(t, 3, pages)
	require.Equal(t, c.search(`metadata['k']:'v'`, "limit", "100"), all)
	require.Len(t, all, 23)
	for _, bad := range [][]string{{"limit", "0"}, {"limit", "101"}, {"page", "x"}, {"page", "24"}, {"page", "-1"}} {
		c.refused("GET", "/v1/subscriptions/search", 400, "Invalid limit or page", append(bad, "query", `status:'active'`)...)
	}
}

// Search finds things by what they were some time ago.
func TestSearchLags(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.SearchLag = time.Minute
	p := c.AddPrice(stripetest.Price{}).ID
	sub := c.AddSubscription(stripetest.Subscription{
		Customer: "cus_1", Metadata: map[string]string{"k": "old"}, Items: []stripetest.Item{{Price: p}},
	})
	require.Empty(t, c.search(`metadata['k']:'old'`))
	c.clock.Advance(time.Minute - time.Second)
	require.Empty(t, c.search(`metadata['k']:'old'`))
	c.clock.Advance(time.Second)
	require.Equal(t, []string{sub.ID}, c.search(`metadata['k']:'old'`))

	c.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Metadata["k"] = "new" })
	require.Equal(t, []string{sub.ID}, c.search(`metadata['k']:'old'`), "found by what it was")
	found := c.get("/v1/subscriptions/search", "query", `metadata['k']:'old'`)["data"].([]any)[0].(object)
	require.Equal(t, object{"k": "new"}, found["metadata"], "and shown as it is")
	c.clock.Advance(time.Minute)
	require.Empty(t, c.search(`metadata['k']:'old'`))
	require.Equal(t, []string{sub.ID}, c.search(`metadata['k']:'new'`))
	c.do("DELETE", "/v1/subscriptions/"+sub.ID)
	require.NotEmpty(t, c.search(`status:'active'`))
	c.clock.Advance(time.Minute)
	require.Empty(t, c.search(`status:'active'`))
}
