package ledger

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// damageConfig has a route that remembers IDs for a day; the base directory is
// from the year 2000, so that nothing in doubt may ever be sent again.
func damageConfig(dir string) Config {
	return testConfig(dir, func(c *Config) {
		c.Routes[0].DedupeWindow = 24 * time.Hour
		c.Sync = SyncNever
	})
}

// baseFiles are the files of a killed process: by what they are.
type baseFiles struct {
	files                                        map[string][]byte
	mixed, waiting, active, journal, totals, log string
}

// newBase counts and delivers until every kind of file and outcome is there. The
// files do not say which inode they were written to, so that they can be laid
// down anywhere without being taken for copies.
func newBase(t *testing.T) *baseFiles {
	dir := t.TempDir()
	base := &baseFiles{files: make(map[string][]byte), totals: totalsFile, log: quarantineFile}
	synctest.Test(t, func(t *testing.T) {
		cfg := damageConfig(dir)
		cfg.Sync = time.Hour
		l, err := Open(cfg)
		require.NoError(t, err)
		synctest.Wait() // what Open tidies is tidy
		calls, peak := feature(t, l, "calls", sink.Sum), feature(t, l, "peak", sink.Max)
		window := func(counts map[string]int64) {
			for _, subject := range slices.Sorted(maps.Keys(counts)) {
				require.NoError(t, calls.Add(subject, counts[subject]))
			}
		}
		window(map[string]int64{"acme": 5})
		rotate(t, l)
		deliver(t, l, 0, sink.Delivered)
		require.NoError(t, l.foldSettled())

		window(map[string]int64{"acme": 7, "bolt": 11, "carl": 13, "dora": 17, "eve": 19})
		rotate(t, l)
		answer := map[string]sink.Outcome{"acme": sink.Pending, "bolt": sink.Rejected, "carl": sink.InDoubt, "dora": sink.Rejected, "eve": sink.Delivered}
		b, err := l.Take(0, 10, nil)
		require.NoError(t, err)
		results := make([]Result, len(b.Records))
		for i, r := range b.Records {
			results[i].Outcome, results[i].Reason = answer[r.Subject], "as told"
		}
		require.NoError(t, b.Resolve(results))
		for r := range l.Quarantine() {
			if r.Subject == "dora" {
				require.NoError(t, l.Settle(context.Background(), "main", r.ID, sink.Voided, "ticket 12"))
			}
		}
		base.mixed = filepath.Base(l.sealedNow()[0].path)

		window(map[string]int64{"acme": 23})
		require.NoError(t, peak.Set("bolt", 29))
		rotate(t, l)
		base.waiting = filepath.Base(l.sealedNow()[1].path)

		window(map[string]int64{"acme": 31, "bolt": 37})
		require.NoError(t, l.active.Load().journal.sync())
		window(map[string]int64{"bolt": 1})
		base.active = filepath.Base(l.active.Load().path)
		base.journal = filepath.Base(l.active.Load().journal.file.Name())
		abandon(l)
	})
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		if h, _, err := decodeHead(data); err == nil {
			if h.start == 0 {
				continue // the spare
			}
			h.identity = disk.Identity{}
			copy(data, h.encode())
		} else if strings.HasSuffix(e.Name(), journalSuffix) && e.Name() != base.journal {
			continue
		}
		base.files[e.Name()] = data
	}
	require.Len(t, base.files, 8, "%v", slices.Collect(maps.Keys(base.files)))
	return base
}

// observed is what a ledger makes of a directory.
type observed struct {
	taken, held map[string]sink.Record
	line        map[string]Line
	health      string
	kept        [][]byte // damaged files set aside
}

func observe(t *testing.T, files map[string][]byte) (*observed, error) {
	dir, err := os.MkdirTemp(quickDirs(t), "damage")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	l, err := openMode(damageConfig(dir), "heap")
	if err != nil {
		return nil, err
	}
	defer l.Close(context.Background())
	o := &observed{taken: make(map[string]sink.Record), held: make(map[string]sink.Record), line: make(map[string]Line)}
	for _, line := range l.Books() {
		o.line[line.Feature+line.Route] = line
		require.Equal(t, line.Accepted, line.Pending+line.Delivered+line.InDoubt+line.Rejected+line.Voided+line.Superseded+line.Damaged)
	}
	o.health = fmt.Sprint(l.Health())
	for _, r := range deliver(t, l, 0, sink.Delivered) {
		_, twice := o.taken[r.ID]
		require.False(t, twice)
		r.Attempt, r.Doubt, r.End = 0, false, time.Time{} // the end of a killed window is when it was recovered
		o.taken[r.ID] = r
	}
	for r := range l.Quarantine() {
		r.Attempt, r.Doubt, r.End = 0, false, time.Time{}
		o.held[r.ID] = r.Record
	}
	kept, _ := filepath.Glob(filepath.Join(dir, damagedDir, "*"))
	for _, path := range kept {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		o.kept = append(o.kept, data)
	}
	return o, nil
}

// same reports whether nothing that matters differs.
func (o *observed) same(other *observed) bool {
	equal := func(a, b sink.Record) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
	return maps.EqualFunc(o.taken, other.taken, equal) && maps.EqualFunc(o.held, other.held, equal) && maps.Equal(o.line, other.line)
}

// damageCase lays the files down with one of them damaged.
func damageCase(t *testing.T, base *baseFiles, whole *observed, name string, data []byte, mayLose int, what string) {
	files := maps.Clone(base.files)
	files[name] = data
	o, err := observe(t, files)
	if err != nil {
		require.ErrorContains(t, err, "meter:", what)
		return
	}
	unsealed := name == base.active
	for id, r := range o.taken {
		want, ok := whole.taken[id]
		require.True(t, ok, "%s: sent, and never was to be: %v", what, r)
		if unsealed && r.Quantity > want.Quantity {
			want.Quantity = r.Quantity // an unsealed count carries no checksum
		}
		if unsealed && r.Subject == "bolt" && want.Quantity == 38 && r.Quantity == 37 {
			want.Quantity = 37 // what the journal has
		}
		if name == base.active && r.Start != want.Start {
			want.Start = r.Start // the stamp is lost
		}
		require.Equal(t, want, r, what)
	}
	lost := 0
	for id := range whole.taken {
		_, sent := o.taken[id]
		if _, held := o.held[id]; !sent && !held {
			lost++
		}
	}
	require.LessOrEqual(t, lost, mayLose, "%s: damage cost more than what it hit", what)
	if o.same(whole) || unsealed && lost == 0 {
		return
	}
	require.Contains(t, o.health, "damaged", what)
	require.True(t, slices.ContainsFunc(o.kept, func(kept []byte) bool { return bytes.Equal(kept, data) }), "%s: the damaged file was not kept as it was", what)
}

// TestDamage spoils each file here and there, and with METER_DAMAGE=all everywhere.
func TestDamage(t *testing.T) {
	t.Parallel()
	base := newBase(t)
	whole, err := observe(t, base.files)
	require.NoError(t, err)
	require.Len(t, whole.taken, 5)
	require.Len(t, whole.held, 2, "bolt, rejected, and carl, in doubt for too long")
	require.NotContains(t, whole.health, "damaged")
	require.Equal(t, Line{Feature: "calls", Route: "main", Accepted: 5 + 67 + 23 + 69, Pending: 7 + 23 + 69, Delivered: 5 + 19, InDoubt: 13, Rejected: 11, Voided: 17}, whole.line["callsmain"])

	for what, name := range map[string]string{"mixed": base.mixed, "waiting": base.waiting, "active": base.active, "journal": base.journal, "totals": base.totals, "quarantine": base.log, "format": formatFile} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			original := base.files[name]
			used := len(bytes.TrimRight(original, "\x00"))
			isSegment := name == base.mixed || name == base.waiting || name == base.active
			slot := 0 // what one damaged spot may cost: one slot, or nothing where there is a second copy
			if isSegment {
				slot = 1
			}
			stride := 11
			if thorough() {
				stride = 1
			}
			for at := 0; at < used; at += stride {
				if at < headSize && used > headSize {
					at += 60 // heads and journals are mostly padding
				}
				data := bytes.Clone(original)
				data[at] ^= 1 << (at % 8)
				mayLose := slot
				if at < headSize {
					mayLose = 0
				}
				damageCase(t, base, whole, name, data, mayLose, fmt.Sprintf("%s: bit %d of byte %d flipped", what, at%8, at))
			}
			for _, size := range []int{sectorSize, 4096} {
				for at := 0; at < used; at += size {
					data := bytes.Clone(original)
					clear(data[at:min(at+size, len(data))])
					mayLose := 5 * slot
					if size == sectorSize && at < headSize {
						mayLose = 0
					}
					if name == base.active && at < headSize && size == 4096 {
						mayLose = 0 // the journal names the segment, too
					}
					damageCase(t, base, whole, name, data, mayLose, fmt.Sprintf("%s: %d bytes at %d zeroed", what, size, at))
				}
			}
			// A length of 0 is what a kill leaves of a file that was just made.
			for n := 1; n < used; n += stride*31 + 1 {
				damageCase(t, base, whole, name, original[:n], 5*slot, fmt.Sprintf("%s: cut short to %d of %d bytes", what, n, len(original)))
			}
		})
	}
}

// TestEveryBitOfASegment flips every bit of the slots, and some of every byte of
// the head: nothing is ever read as something else.
func TestEveryBitOfASegment(t *testing.T) {
	t.Parallel()
	for _, merged := range []bool{false, true} {
		s := newSample(merged)
		size := int(s.head.size())
		for at := range s.file {
			for bit := range 8 {
				if (at < size || testing.Short()) && bit != at%8 {
					continue
				}
				data := bytes.Clone(s.file)
				data[at] ^= 1 << bit
				if at < size {
					h, _, err := decodeHead(data)
					require.NoError(t, err, "no single flip costs the head: byte %d", at)
					require.Equal(t, s.head.end, h.end)
					checkHead(t, map[bool]*sample{s.head.merged: s}, data)
					continue
				}
				checkSlots(t, s, data[size:], true)
				checkSlots(t, s, data[size:], false)
				lost := 0
				scan(data[size:], s.head.uuid, true, func(sl slot) {
					lost--
					if sl.badWord {
						lost++
					}
				}, func(_, _ uint32) {})
				require.LessOrEqual(t, lost+len(s.slots), 1, "one flip costs one slot: byte %d", at)
			}
		}
	}
}

// TestFlippedOutcomesAreInDoubt flips every bit of a delivered record's outcome
// part: it is never sent again.
func TestFlippedOutcomesAreInDoubt(t *testing.T) {
	t.Parallel()
	s := newSample(false)
	now := time.Now()
	slotBytes := s.file[s.head.size():][:blockSize]
	o := outcomes{states: [MaxRoutes]state{delivered, inDoubt}, first: [MaxRoutes]uint32{uint32(now.Unix()), uint32(now.Add(-30 * time.Hour).Unix())}}
	o.put(slotBytes, s.head.uuid)
	route := &Route{DedupeWindow: 24 * time.Hour, Timeout: time.Second}
	for at := slotOutcome; at < blockSize; at++ {
		for bit := range 8 {
			b := bytes.Clone(slotBytes)
			b[at] ^= 1 << bit
			got, intact := getOutcomes(b, s.head.uuid)
			require.False(t, intact)
			for i := range got.states {
				require.Equal(t, inDoubt, got.states[i])
				require.False(t, mayResend(route, got.first[i], now, now))
			}
		}
	}
}

// TestDamageThatCantBeSetAside leaves a file where it is of which no copy can be
// kept: what is in it may still be read by somebody.
func TestDamageThatCantBeSetAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "mapped", dir)
	require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 3))
	require.NoError(t, l.Close(context.Background()))
	files := glob(t, dir, "*"+segmentSuffix)
	require.Len(t, files, 1)
	data, err := os.ReadFile(files[0])
	require.NoError(t, err)
	data[100] ^= 1
	data[mirrorAt+100] ^= 1
	require.NoError(t, os.WriteFile(files[0], data, 0o600))
	blocked := filepath.Join(dir, damagedDir)
	require.NoError(t, os.WriteFile(blocked, nil, 0o600))
	l = open(t, "mapped", dir)
	require.ErrorContains(t, l.Health(), "no copy of it could be kept")
	require.NoError(t, l.Close(context.Background()))
	after, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.Equal(t, data, after)

	require.NoError(t, os.Remove(blocked))
	l = open(t, "mapped", dir)
	kept := glob(t, dir, damagedDir+"/*")
	require.Len(t, kept, 1)
	require.ErrorContains(t, l.Health(), kept[0])
	require.NoFileExists(t, files[0])
	require.NoError(t, os.Remove(kept[0]))
	require.NoError(t, l.Health(), "an operator has dealt with it")
}

// TestBlankFiles are what a kill leaves that comes between reserving a file's room
// and its first write.
func TestBlankFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "mapped", dir)
	require.NoError(t, l.Close(context.Background()))
	for name, size := range map[string]int{"a" + journalSuffix: journalChunk, "b" + journalSuffix: 0, "c" + segmentSuffix: headSize} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600))
	}
	l = open(t, "mapped", dir)
	require.NoError(t, l.Health())
	for _, name := range []string{"a" + journalSuffix, "b" + journalSuffix, "c" + segmentSuffix} {
		require.NoFileExists(t, filepath.Join(dir, name))
	}
}

// thorough says that damage is looked for everywhere, and not here and there.
func thorough() bool { return os.Getenv("METER_DAMAGE") == "all" }
