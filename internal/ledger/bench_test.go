package ledger

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/sink"
)

func BenchmarkSeriesAdd(b *testing.B) {
	b.Run("limit=atomic", func(b *testing.B) {
		var n atomic.Int64
		for b.Loop() {
			n.Add(1)
		}
	})
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			l := open(b, mode, b.TempDir())
			s, _ := feature(b, l, "calls", sink.Sum).Series("acme", nil)
			b.ReportAllocs()
			for b.Loop() {
				_ = s.Add(1)
			}
		})
	}
	b.Run("parallel/limit=atomic", func(b *testing.B) {
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				n.Add(1)
			}
		})
	})
	for _, mode := range modes {
		b.Run("parallel/"+mode, func(b *testing.B) {
			l := open(b, mode, b.TempDir())
			s, _ := feature(b, l, "calls", sink.Sum).Series("acme", nil)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_ = s.Add(1)
				}
			})
		})
	}
}

func BenchmarkFeatureAdd(b *testing.B) {
	const n = 100_000
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("cus_%07d", i)
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(n) // not the order in which they lie in memory
	b.Run("limit=syncmap", func(b *testing.B) {
		var m sync.Map
		for _, name := range names {
			m.Store(strings.Clone(name), new(atomic.Int64)) // a request brings its own copy of a name
		}
		i := 0
		for b.Loop() {
			v, _ := m.Load(names[order[i%n]])
			v.(*atomic.Int64).Add(1)
			i++
		}
	})
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			l := open(b, mode, b.TempDir())
			f := feature(b, l, "calls", sink.Sum)
			for _, name := range names {
				_ = f.Add(name, 1)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				_ = f.Add(names[order[i%n]], 1)
				i++
			}
		})
	}
}
