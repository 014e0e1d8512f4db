package metertest

import (
	"maps"
	"testing"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/internal/crash"
)

// Crash ends the meter as the death of its process would: nothing more is sealed, synced
// or delivered. It returns another meter on the same directory and with the same Config,
// as the process has it that is started next; what was billed before stays billed. It
// needs a Dir, which New is given by change, for what is in memory dies with the
// process.
//
// Get features anew from the new meter. What counts with the old one gets
// meter.ErrClosed. Where the system can't map files, counts are lost that Config.Sync has not
// made safe. Of a delivery that is under way the record is in doubt.
func (m *Meter) Crash(t testing.TB) *Meter {
	t.Helper()
	if m.cfg.Dir == meter.InMemory {
		t.Fatalf("metertest: Crash needs a Dir: New(t, func(c *meter.Config) { c.Dir = t.TempDir() })")
	}
	m.crashed = true
	crash.Meter(m.Meter)
	m.mu.Lock()
	next := &Meter{cfg: m.cfg, biller: m.biller, settled: maps.Clone(m.settled)}
	m.mu.Unlock()
	next.begin(t)
	return next
}
