//go:build pebble

package main

import "github.com/cockroachdb/pebble/v2"

// Pebble takes longer to compile than all else here together, so it is among the stores
// only if asked for.
func init() {
	stores = append(stores, struct {
		name string
		open func(s *stage, synced bool) (put func(i uint64) error)
	}{"peer: pebble", openPebble})
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(format)
}

func openPebble(s *stage, synced bool) func(uint64) error {
	db := got(pebble.Open(s.dir, &pebble.Options{Logger: silent{}}))
	s.defers(func() { must(db.Close()) })
	safe := pebble.NoSync
	if synced {
		safe = pebble.Sync
	}
	return func(i uint64) error { return db.Set(eventKey(i), make([]byte, eventSize), safe) }
}
