package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// target is what meter should take at most of what another contender takes.
type target struct {
	table, column string
	a, b          string // rows
	most          float64
}

var targets = []target{
	{"count by handle, 1 goroutine", "1", "meter: Counter.Add", "limit: atomic add in an array", 1.1},
	{"count by handle, 1 goroutine", "1", "meter: Counter.Add", "limit: compare-and-swap, guarded", 1.5},
	{"count by handle, 2 goroutines", "1", "meter: Counter.Add", "limit: atomic add in an array", 0.55},
	{"count by name, 1 goroutine", "1k zipf", "meter: Feature.Add", "peer: xsync.Map, atomic add", 0.75},
	{"count by name, 1 goroutine", "1k zipf", "meter: Feature.Add", "peer: otel, cached Set", 1. / 20},
	{"count by name, 1 goroutine", "1k zipf", "meter: Feature.Add", "peer: otel WithAttributes", 1. / 60},
	{"count by name, 1 goroutine", "1k zipf", "meter: Feature.Add", "peer: prometheus WithLabelValues", 1. / 14},
	{"middleware", "1 goroutine", "meter: count", "peer: prometheus per customer", 1. / 9},
	{"middleware", "1 goroutine", "meter: count", "peer: httprate by header", 1. / 10},
	{"middleware", "1 goroutine", "meter: count", "peer: otelhttp, no-op providers", 1. / 45},
	{"middleware", "1 goroutine", "meter: check, rate, count", "peer: golang-lru, x/time/rate, count", 0.55},
	{"middleware", "2 goroutines", "meter: check, rate, count", "peer: golang-lru, x/time/rate, count", 0.3},
	{"license check", "1k, 64 goroutines", "meter: cache.Check", "peer: otter, with TTL", 0.8},
	{"license check", "1k, 64 goroutines", "meter: cache.Check", "peer: golang-lru expirable", 1. / 10},
	{"license check", "1k, 64 goroutines", "meter: cache.Check", "peer: golang-lru", 1. / 15},
	{"power-safe count", "1024 callers", "meter: SyncAlways", "peer: pebble, synced", 1 / 3.5},
	{"power-safe count", "1024 callers", "meter: SyncAlways", "peer: bbolt, synced", 1. / 6},
	{"power-safe count", "1024 callers", "meter: SyncAlways", "limit: half a write and sync for all", 1 / 0.4},
	{"kill-safe count", "a use", "meter: synced every 10 ms", "meter: in memory", 1 / 0.9},
	{"kill-safe count", "a use", "meter: synced every 10 ms", "peer: pebble, never synced", 1. / 50},
	{"stalls", "100k max", "meter: Feature.Add", "limit: frozen map, atomic add", 2},
	{"stalls", "100k max", "meter: Feature.Add", "limit: the same beside busy goroutines", 2},
	{"memory", "1M", "meter: heap", "peer: prometheus WithLabelValues", 0.2},
	{"memory", "1M", "meter: heap", "peer: otel WithAttributes", 1. / 15},
	{"bill by Stripe", "requests", "meter: stripesink", "peer: meterevent.New for each use", 1. / 1000},
	{"bill by Stripe", "ns of processors", "meter: stripesink", "peer: meterevent.New for each use", 1. / 1000},
}

// printTargets says which targets are met.
func printTargets(w io.Writer, seen []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\ntarget\tof\tat most\tis\t")
	for _, want := range targets {
		i := slices.IndexFunc(seen, func(r result) bool { return r.name == want.table })
		if i < 0 {
			continue
		}
		a, okA := seen[i].find(want.a)
		b, okB := seen[i].find(want.b)
		if !okA || !okB || len(a.values[want.column]) == 0 {
			continue
		}
		is, verdict := ratio(a, b, want.column), "met"
		if is > want.most {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s, %s\t%s / %s\t%s\t%s\t%s\n", want.table, want.column, want.a, want.b, times(want.most), times(is), verdict)
	}
	must(t.Flush())
}
