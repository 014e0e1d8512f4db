package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"github.com/inprocess/meter"
)

// memoryTables say what a series takes, its name included.
func memoryTables() []table {
	t := table{name: "memory", rounds: 3, what: "heap for a customer that is counted, after garbage collection; columns are customers", unit: "bytes"}
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		h := heat{columns: []string{count(n)}, series: n}
		add := func(name string, class class, open counterOf, files bool) {
			h.contenders = append(h.contenders, contender{name, class, func(s *stage) turn {
				return func() []float64 { return []float64{heldBy(s, n, open, files)} }
			}})
		}
		add("meter: heap", ours, meterName(meter.Config{Window: meter.OnFlush}), false)
		add("meter: heap and mapped file", ours, meterName(meter.Config{Window: meter.OnFlush}), true)
		add("meter: in memory", ours, meterName(meter.Config{Dir: meter.InMemory, Window: meter.OnFlush}), false)
		for _, way := range byName[2:] {
			switch way.name {
			case "peer: map, RWMutex": // is a frozen map
			case "peer: VictoriaMetrics GetOrCreate", "peer: otel, cached Set": // hold more here than theirs
			default:
				add(way.name, way.class, way.open, false)
			}
		}
		t.heats = append(t.heats, h)
	}
	return []table{t}
}

// heldBy is what a contender keeps of n customers, for each.
func heldBy(s *stage, n int, open counterOf, files bool) float64 {
	own := &stage{dir: filepath.Join(s.dir, "counted"), slice: s.slice}
	must(os.MkdirAll(own.dir, 0o700))
	before := heap()
	names := customers(n)
	op := open(own, names)
	for i := range n {
		op(uint32(i))
	}
	clear(names) // who keeps a name pays for it
	held := float64(heap()) - float64(before) - float64(n)*float64(unsafe.Sizeof(""))
	if files {
		held += float64(diskUse(own.dir))
	}
	runtime.KeepAlive(op)
	for _, f := range own.done {
		f()
	}
	must(os.RemoveAll(own.dir))
	return max(held, 0) / float64(n)
}

func diskUse(dir string) (bytes int64) {
	must(filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		bytes += got(e.Info()).Size()
		return nil
	}))
	return bytes
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
