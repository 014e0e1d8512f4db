package ledger

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func retaining(c *Config) { c.Retain = 30 * 24 * time.Hour }

// TestRecords finds every record of a time once, wherever it is by now.
func TestRecords(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, minutely, retaining)
		f := feature(t, l, "calls", sink.Sum)
		began := time.Now()
		time.Sleep(30 * time.Second)
		outcomes := []sink.Outcome{sink.Delivered, sink.Rejected, sink.Delivered, sink.Pending, sink.Delivered}
		want := make(map[sink.Outcome]int64)
		for i, as := range outcomes {
			require.NoError(t, f.Add("acme", int64(1)<<i))
			require.NoError(t, f.Add("bolt", 100))
			time.Sleep(time.Minute)
			synctest.Wait()
			deliver(t, l, 0, as)
			want[as] += int64(1) << i
		}
		l.tidy()
		require.Less(t, len(l.sealedNow()), len(outcomes), "some are folded")
		collect := func(l *Ledger, from, to time.Time) map[sink.Outcome]int64 {
			records, err := l.Records("main", from, to)
			require.NoError(t, err)
			got, ids := make(map[sink.Outcome]int64), make(map[string]bool)
			for r, outcome := range records {
				require.False(t, ids[r.ID])
				ids[r.ID] = true
				if r.Subject == "acme" {
					got[outcome] += r.Quantity
				}
			}
			return got
		}
		require.Equal(t, want, collect(l, began, time.Now()))
		require.Equal(t, map[sink.Outcome]int64{sink.Rejected: 2, sink.Delivered: 4}, collect(l, began.Add(time.Minute), began.Add(3*time.Minute)))
		require.Equal(t, map[sink.Outcome]int64{sink.Rejected: 2, sink.Delivered: 4}, collect(l, began.Add(time.Minute-1), began.Add(2*time.Minute+1)), "parts of seconds")
		require.Equal(t, map[sink.Outcome]int64{sink.Delivered: 4}, collect(l, began.Add(time.Minute+1), began.Add(2*time.Minute+1)))
		shut(t, l)
		l = open(t, mode, dir, minutely, retaining)
		require.Equal(t, want, collect(l, began, time.Now()))
		synctest.Wait()

		// What goes takes the completeness with it.
		oldest := l.store.retained()[0].path
		require.NoError(t, os.Chtimes(oldest, began, began.AddDate(0, -2, 0)))
		l.tidy()
		require.NoFileExists(t, oldest)
		_, err := l.Records("main", began, time.Now())
		require.ErrorContains(t, err, "not retained any more")
		require.NotEmpty(t, collect(l, began.Add(time.Minute), time.Now()))
		shut(t, l)
		l = open(t, mode, dir, minutely, retaining)
		_, err = l.Records("main", began, time.Now())
		require.ErrorContains(t, err, "not retained any more", "also after a restart")
	})
}

// TestRecordsBeforeRetain knows that nothing was kept while Retain was 0.
func TestRecordsBeforeRetain(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		began := time.Now()
		l := open(t, mode, dir, retaining)
		f := feature(t, l, "calls", sink.Sum)
		settle := func() {
			require.NoError(t, f.Add("acme", 1))
			rotate(t, l)
			deliver(t, l, 0, sink.Delivered)
			time.Sleep(time.Minute)
			l.tidy()
		}
		settle()
		_, err := l.Records("main", began, time.Now())
		require.NoError(t, err)
		shut(t, l)
		l = open(t, mode, dir)
		f = feature(t, l, "calls", sink.Sum)
		_, err = l.Records("main", began, time.Now())
		require.ErrorContains(t, err, "Config.Retain")
		settle()
		shut(t, l)
		again := time.Now()
		l = open(t, mode, dir, retaining)
		f = feature(t, l, "calls", sink.Sum)
		settle()
		_, err = l.Records("main", began, time.Now())
		require.ErrorContains(t, err, "not retained any more")
		records, err := l.Records("main", again, time.Now())
		require.NoError(t, err)
		n := 0
		for range records {
			n++
		}
		require.Equal(t, 1, n)
	})
}

func TestAdoptionKeepsWhatIsRetained(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		theirs := open(t, "mapped", filepath.Join(base, "theirs"), retaining)
		require.NoError(t, feature(t, theirs, "calls", sink.Sum).Add("acme", 3))
		rotate(t, theirs)
		deliver(t, theirs, 0, sink.Delivered)
		theirs.tidy()
		abandon(theirs)
		time.Sleep(time.Minute)
		l := open(t, "mapped", filepath.Join(base, "own"), retaining, func(c *Config) { c.Adopt = filepath.Join(base, "t*") })
		records, err := l.Records("main", began, time.Now())
		require.NoError(t, err)
		for r, outcome := range records {
			require.EqualValues(t, 3, r.Quantity)
			require.Equal(t, sink.Delivered, outcome)
			return
		}
		require.Fail(t, "no record")
	})
}

// What Records leaves out, for its file is damaged, it says.
func TestRecordsOfDamagedFiles(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func([]byte) []byte{
		"head":  func(b []byte) []byte { clear(b[:headSize]); return b },
		"slots": func(b []byte) []byte { clear(b[headSize:]); return b },
		"cut":   func(b []byte) []byte { return b[:headSize] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, "mapped", dir, minutely, retaining)
				f := feature(t, l, "calls", sink.Sum)
				began := time.Now()
				require.NoError(t, f.Add("acme", 5))
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				deliver(t, l, 0, sink.Delivered)
				l.tidy()
				files := l.store.retained()
				require.Len(t, files, 1)
				data, err := os.ReadFile(files[0].path)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(files[0].path, harm(data), 0o600))
				records, err := l.Records("main", began.Add(-time.Minute), time.Now())
				require.NoError(t, err)
				n := int64(0)
				for r := range records {
					n += r.Quantity
				}
				if n != 5 && l.Health() == nil {
					t.Errorf("Records yields %d of 5, without an error, and Health is nil", n)
				}
			})
		})
	}
}

// An iteration that a merge overtakes loses no record.
func TestRecordsWhileMergesWait(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, minutely, retaining)
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		began := time.Now()
		for range 30 {
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		records, err := l.Records("main", began.Add(-time.Hour), began.Add(time.Hour))
		require.NoError(t, err)
		n := int64(0)
		first := true
		for r := range records {
			n += r.Quantity
			if first {
				first = false
				time.Sleep(90 * time.Minute)
				l.tidy()
			}
		}
		require.EqualValues(t, 30, n)
	})
}
