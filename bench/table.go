package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"
)

// class says what a contender is.
type class string

const (
	ours  class = "meter"
	limit class = "limit" // what the machine, or Go, takes at least
	peer  class = "peer"  // what a program would use instead
)

// table compares contenders that do the same work, in several heats.
type table struct {
	name, what string
	unit       string
	base       string // the contender whose value is taken off all others: only what they add counts
	rounds     int    // at most; 0: as many as asked for
	heats      []heat
}

// heat is one amount of work: a column, or several where one run shows several values.
type heat struct {
	columns    []string
	series     int // how many there are, for runner.most
	contenders []contender
}

// contender opens what it measures in a directory of its own. It closes what it opened
// by stage.defers.
type contender struct {
	name  string
	class class
	open  func(s *stage) turn
}

// turn does the work once more and returns a value for each column of its heat. Less is
// better.
type turn func() []float64

// stage is where one contender performs.
type stage struct {
	dir   string
	slice time.Duration
	done  []func()
}

func (s *stage) defers(f func()) { s.done = append(s.done, f) }

type runner struct {
	dir    string
	rounds int
	slice  time.Duration
	most   int
	stages int
}

// result has the values of every round: of a table, by row and column.
type result struct {
	table
	rows    []row
	columns []string
}

type row struct {
	name   string
	class  class
	values map[string][]float64 // by column; one per round
}

func (r *runner) run(t table) result {
	res, rounds := result{table: t}, r.rounds
	if t.rounds > 0 {
		rounds = min(rounds, t.rounds)
	}
	for _, h := range t.heats {
		if h.series <= r.most {
			if h.series >= 1_000_000 {
				r.heat(&res, h, min(rounds, 3)) // the garbage collector alone takes seconds each
			} else {
				r.heat(&res, h, rounds)
			}
		}
	}
	return res
}

// heat has every contender take its turn in every round, each time another one first.
func (r *runner) heat(res *result, h heat, rounds int) {
	res.columns = append(res.columns, h.columns...)
	stages, turns := make([]*stage, len(h.contenders)), make([]turn, len(h.contenders))
	for i, c := range h.contenders {
		r.stages++
		stages[i] = &stage{dir: filepath.Join(r.dir, strconv.Itoa(r.stages)), slice: r.slice}
		must(os.Mkdir(stages[i].dir, 0o700))
		turns[i] = c.open(stages[i])
	}
	base := -1
	for round := range rounds {
		values := make([][]float64, len(turns))
		for n := range turns {
			i := (n + round) % len(turns)
			collect()
			values[i] = turns[i]()
		}
		for i, c := range h.contenders {
			if c.name == res.base {
				base = i
			}
			for j, column := range h.columns {
				res.row(c).values[column] = append(res.row(c).values[column], values[i][j])
			}
		}
		if base < 0 {
			continue
		}
		for i, c := range h.contenders {
			if i == base {
				continue
			}
			for j, column := range h.columns {
				of := res.row(c).values[column]
				of[len(of)-1] = max(of[len(of)-1]-values[base][j], 0)
			}
		}
	}
	for _, s := range stages {
		for _, f := range slices.Backward(s.done) {
			f()
		}
		must(os.RemoveAll(s.dir))
	}
}

func (res *result) row(c contender) *row {
	i := slices.IndexFunc(res.rows, func(r row) bool { return r.name == c.name })
	if i < 0 {
		i = len(res.rows)
		res.rows = append(res.rows, row{c.name, c.class, map[string][]float64{}})
	}
	return &res.rows[i]
}

func (res *result) find(name string) (row, bool) {
	i := slices.IndexFunc(res.rows, func(r row) bool { return r.name == name })
	if i < 0 {
		return row{}, false
	}
	return res.rows[i], true
}

// reference is the row that the others are compared with.
func (res *result) reference() (row, bool) {
	i := slices.IndexFunc(res.rows, func(r row) bool { return r.class == ours })
	if i < 0 {
		return row{}, false
	}
	return res.rows[i], true
}

// ratio is the median of the rounds' ratios of a to b in a column; NaN if there is none.
func ratio(a, b row, column string) float64 {
	x, y := a.values[column], b.values[column]
	all := make([]float64, 0, len(x))
	for i := range min(len(x), len(y)) {
		all = append(all, x[i]/y[i])
	}
	return median(all)
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

var allocated = []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
var collectedAt uint64

// collect keeps the garbage of one contender from being swept up at another's expense.
func collect() {
	metrics.Read(allocated)
	if allocated[0].Value.Uint64()-collectedAt > 1<<20 {
		runtime.GC()
		metrics.Read(allocated)
		collectedAt = allocated[0].Value.Uint64()
	}
}

// must ends the comparison: nothing here can be compared after a failure.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func got[T any](v T, err error) T {
	must(err)
	return v
}
