package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// customer names are as long as Stripe's.
func customer(i int) string { return fmt.Sprintf("cus_%014x", uint64(i+1)*0x9E3779B97F4A7C15>>8) }

func customers(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = customer(i)
	}
	return names
}

// traffic is who calls: an endless sequence of customers.
type traffic struct {
	name  string
	n     int
	order []uint32
}

const orderLength = 1 << 18

// uniform traffic comes from n customers, each as often as the other.
func uniform(n int) traffic {
	random := rand.New(rand.NewPCG(1, 2))
	return traffic{count(n) + " uniform", n, sequence(func() int { return random.IntN(n) })}
}

// zipf traffic comes from few of n customers most of the time: s = 1.1.
func zipf(n int) traffic {
	random := rand.New(rand.NewPCG(1, 2))
	z, who := rand.NewZipf(random, 1.1, 1, uint64(n-1)), random.Perm(n)
	return traffic{count(n) + " zipf", n, sequence(func() int { return who[z.Uint64()] })}
}

// oneCustomer calls all the time.
func oneCustomer() traffic { return traffic{"1", 1, sequence(func() int { return 0 })} }

func sequence(next func() int) []uint32 {
	order := make([]uint32, orderLength)
	for i := range order {
		order[i] = uint32(next())
	}
	return order
}

// count writes 1,000 as 1k and 1,000,000 as 1M.
func count(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// each has op done for the traffic by so many goroutines for so long, and returns the
// nanoseconds that one took: those of the clock, so that n goroutines on n processors
// take an n-th where nothing is in their way.
func each(t traffic, goroutines int, slice time.Duration, op func(i uint32)) float64 {
	const batch = 128
	var done atomic.Int64
	var over atomic.Bool
	var workers sync.WaitGroup
	began := time.Now()
	for g := range goroutines {
		workers.Go(func() {
			at, n := uint32(g)*0x61C88647, int64(0)
			for !over.Load() {
				for range batch {
					op(t.order[at%orderLength])
					at++
				}
				n += batch
				if time.Since(began) > slice {
					over.Store(true)
				}
			}
			done.Add(n)
		})
	}
	workers.Wait()
	return float64(time.Since(began)) / float64(done.Load())
}

// counting makes a turn of an operation.
func (s *stage) counting(t traffic, goroutines int, op func(i uint32)) turn {
	for i := range t.n { // what is new is not what is compared
		op(uint32(i))
	}
	// Among many, each one's turn comes seldom: a short turn would show the first use
	// after a while of rest, when the system has written pages back, and not the others.
	slice := s.slice * time.Duration(max(1, t.n/100_000))
	return func() []float64 { return []float64{each(t, goroutines, slice, op)} }
}

func timed(work func()) (nanoseconds float64) {
	began := time.Now()
	work()
	return float64(time.Since(began))
}
