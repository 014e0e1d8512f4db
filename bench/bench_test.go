package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == childFlag {
		beKilled(os.Args[2], os.Args[3])
	}
	os.Exit(m.Run())
}

func runAll(t *testing.T) (seen []result) {
	t.Helper()
	r := &runner{dir: t.TempDir(), rounds: 1, slice: time.Millisecond, most: 1000}
	for _, table := range tables() {
		if table.name != "import" { // compiles for minutes
			seen = append(seen, r.run(table))
		}
	}
	return seen
}

// TestEveryTable runs each contender once, prints what it took, and draws it.
func TestEveryTable(t *testing.T) {
	seen := runAll(t)
	for _, res := range seen {
		reference, ok := res.reference()
		require.True(t, ok, res.name)
		for _, column := range res.columns {
			require.Len(t, reference.values[column], 1, "%s, %s", res.name, column)
			for _, r := range res.rows {
				for _, v := range r.values[column] {
					require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s, %s, %s", res.name, r.name, column)
				}
			}
		}
		var out bytes.Buffer
		res.print(&out)
		require.Contains(t, out.String(), reference.name)
	}

	var out bytes.Buffer
	printTargets(&out, seen)
	for _, want := range targets {
		i := slices.IndexFunc(seen, func(r result) bool { return r.name == want.table })
		require.GreaterOrEqual(t, i, 0, "a target about no table: %s", want.table)
		_, ok := seen[i].find(want.a)
		require.True(t, ok, "a target about no contender: %s", want.a)
		if _, ok := seen[i].find(want.b); !ok {
			require.Contains(t, want.b, "pebble", "a target about no contender")
		}
	}
	require.Contains(t, out.String(), "count by handle, 1 goroutine")

	picture := draw(seen)
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	for _, p := range panels {
		if !strings.HasPrefix(p.column, "100k") { // more than are counted here
			require.Contains(t, string(picture), p.title)
		}
	}
}

// What is compared is the median of the rounds' ratios: a round that the machine
// disturbed changes nothing.
func TestRatio(t *testing.T) {
	a := row{values: map[string][]float64{"x": {10, 2000, 30}}}
	b := row{values: map[string][]float64{"x": {5, 10, 15}}}
	require.InDelta(t, 2, ratio(a, b, "x"), 0)
	require.True(t, math.IsNaN(ratio(a, b, "y")))
}

// What a table has as its base is taken off all others, round by round.
func TestBase(t *testing.T) {
	taking := func(values ...float64) func(*stage) turn {
		return func(*stage) turn {
			i := -1
			return func() []float64 { i++; return []float64{values[i]} }
		}
	}
	r := &runner{dir: t.TempDir(), rounds: 3, slice: time.Millisecond}
	res := r.run(table{base: "bare", heats: []heat{{columns: []string{"x"}, contenders: []contender{
		{"meter", ours, taking(11, 22, 33)}, {"bare", limit, taking(1, 2, 3)}, {"other", peer, taking(21, 42, 63)},
	}}}})
	meter, _ := res.find("meter")
	require.Equal(t, []float64{10, 20, 30}, meter.values["x"])
	other, _ := res.find("other")
	require.InDelta(t, 2, ratio(other, meter, "x"), 0)
}

// Traffic that came from few customers would measure a small map.
func TestTraffic(t *testing.T) {
	for _, of := range []struct {
		traffic
		atLeast, busiest float64 // parts of the customers who call, and of the calls by the busiest one
	}{
		{oneCustomer(), 1, 1}, {uniform(1000), 0.99, 0.01}, {zipf(1000), 0.9, 0.3}, {uniform(100_000), 0.9, 0.001},
	} {
		calls := map[uint32]int{}
		for _, i := range of.order {
			calls[i]++
		}
		most := 0
		for _, n := range calls {
			most = max(most, n)
		}
		require.GreaterOrEqual(t, float64(len(calls)), of.atLeast*float64(of.n), of.name)
		require.LessOrEqual(t, float64(most), of.busiest*orderLength, of.name)
	}
}

// Allocations can be counted exactly, so a test holds them to the promise.
func TestMiddlewareAllocatesTwice(t *testing.T) {
	s := &stage{dir: t.TempDir(), slice: time.Millisecond}
	t.Cleanup(func() {
		for _, f := range s.done {
			f()
		}
	})
	allocations := map[string]float64{}
	for _, m := range middlewares {
		if m.name == "meter: count" { // the directory is the other one's
			continue
		}
		h, w, r := m.wrap(s, http.HandlerFunc(answer)), &writer{header: http.Header{}}, request(1)
		allocations[m.name] = testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
	}
	require.Zero(t, allocations[bareHandler])
	require.LessOrEqual(t, allocations["meter: check, rate, count"], 2.0)
	require.LessOrEqual(t, allocations["meter: count, in memory"], 2.0)
	require.Greater(t, allocations["peer: otelhttp, no-op providers"], 2.0, "the comparison measures something")
}
