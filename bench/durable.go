package main

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/inprocess/meter"
)

// eventSize is what a peer writes for a use: customer, feature, time, quantity.
const eventSize = 100

// stores keep events; peers of a meter that counts.
var stores = []struct {
	name string
	open func(s *stage, synced bool) (put func(i uint64) error)
}{
	{"peer: bbolt", openBolt},
}

func durableTables() []table {
	powerSafe := table{name: "power-safe count", what: "one use, acknowledged once the disk has it; columns are callers that wait", unit: "ns"}
	for _, n := range []int{1, 64, 1024} {
		h := heat{columns: []string{plural(n, "caller")}, contenders: []contender{
			{"meter: SyncAlways", ours, func(s *stage) turn {
				f, ctx := s.meter(meter.Config{Sync: meter.SyncAlways}).Feature(feature), context.Background()
				names := customers(1000)
				return waiting(s, n, func(i uint64) error { return f.Add(ctx, names[i%1000], 1) })
			}},
			{"limit: half a write and sync for all", limit, func(s *stage) turn { return syncs(s, n) }},
		}}
		for _, st := range stores {
			h.contenders = append(h.contenders, contender{st.name + ", synced", peer, func(s *stage) turn {
				return waiting(s, n, st.open(s, true))
			}})
		}
		powerSafe.heats = append(powerSafe.heats, h)
	}

	killSafe := table{name: "kill-safe count", what: "one use that outlives the process, made safe from power loss later; 1,000 customers, zipf, 2 goroutines", unit: "ns"}
	tr := zipf(1000)
	h := heat{columns: []string{"a use"}}
	for _, way := range []struct {
		name  string
		class class
		cfg   meter.Config
	}{
		{"meter: synced every second", ours, meter.Config{}},
		{"meter: synced every 10 ms", ours, meter.Config{Sync: 10 * time.Millisecond}},
		{"meter: in memory", ours, meter.Config{Dir: meter.InMemory}},
	} {
		h.contenders = append(h.contenders, contender{way.name, way.class, func(s *stage) turn {
			return s.counting(tr, 2, meterName(way.cfg)(s, customers(tr.n)))
		}})
	}
	for _, st := range stores {
		h.contenders = append(h.contenders, contender{st.name + ", never synced", peer, func(s *stage) turn {
			put := st.open(s, false)
			var n atomic.Uint64
			return s.counting(tr, 2, func(uint32) { must(put(n.Add(1))) })
		}})
	}
	killSafe.heats = []heat{h}
	return []table{killSafe, powerSafe}
}

// waiting has n callers each wait for one event after the other.
func waiting(s *stage, n int, put func(i uint64) error) turn {
	var next atomic.Uint64
	return func() []float64 {
		var callers sync.WaitGroup
		var done atomic.Int64
		began := time.Now()
		for range n {
			callers.Go(func() {
				for time.Since(began) < 10*s.slice {
					must(put(next.Add(1)))
					done.Add(1)
				}
			})
		}
		callers.Wait()
		return []float64{float64(time.Since(began)) / float64(done.Load())}
	}
}

// syncs writes and syncs in a file that has its room already. While one batch is on its
// way to the disk, the next one gathers, so nobody can do better than half of it for all.
func syncs(s *stage, n int) turn {
	const room = 1 << 20
	f := got(os.Create(filepath.Join(s.dir, "log")))
	s.defers(func() { must(f.Close()) })
	_, err := f.Write(make([]byte, room))
	must(err)
	must(f.Sync())
	event := make([]byte, eventSize)
	return func() []float64 {
		began, done := time.Now(), 0
		for ; time.Since(began) < 10*s.slice; done++ {
			_, err := f.WriteAt(event, int64(done*eventSize%(room-eventSize)))
			must(err)
			must(dataSync(f))
		}
		each := float64(time.Since(began)) / float64(done)
		if n > 1 {
			each = 2 * each / float64(n)
		}
		return []float64{each}
	}
}

// openBolt is faster than with bbolt's own settings: no sync of the freelist, and a
// batch waits 1 ms and not 10.
func openBolt(s *stage, synced bool) func(uint64) error {
	db := got(bolt.Open(filepath.Join(s.dir, "db"), 0o600, &bolt.Options{NoSync: !synced, NoFreelistSync: true, FreelistType: bolt.FreelistMapType}))
	s.defers(func() { must(db.Close()) })
	db.MaxBatchDelay = time.Millisecond
	bucket := []byte("events")
	must(db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	}))
	return func(i uint64) error {
		return db.Batch(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(eventKey(i), make([]byte, eventSize)) })
	}
}

func eventKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }
