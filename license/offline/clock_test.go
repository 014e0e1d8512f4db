package offline

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func TestTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		early := file(t, fields{"Expires": time.Now().Add(10 * day).Unix()})
		w.put("a.skm", early)
		c := w.open(nil)
		w.allowed(c)
		require.NoError(t, c.Close())

		// The state is from 20 days later than the clock that a bubble can't set back.
		setState := func(latest time.Time) {
			require.NoError(t, os.WriteFile(w.state, fmt.Appendf(nil, `{"latest":%d}`, latest.Unix()), 0o600))
		}
		setState(time.Now().Add(20 * day))
		c = w.open(nil)
		err := w.unknown(c, ErrClock)
		require.ErrorContains(t, err, "the clock of this machine is wrong: it shows 2000-01-01T00:00:00Z, and it is 2000-01-21T00:00:00Z or later")
		require.ErrorContains(t, err, "remove "+w.state)
		require.ErrorIs(t, c.Health(), ErrClock)

		time.Sleep(20*day - time.Hour) // within the skew: time stands still meanwhile
		w.denied(c, license.Query{Key: canary}, license.Expired)
		require.NoError(t, c.Health())
	})
}

// That a file was signed tomorrow proves that it is tomorrow.
func TestAFileFromTheFuture(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("a.skm", file(t, nil))
		c := w.open(nil)
		w.allowed(c)
		w.put("b.skm", file(t, fields{"Key": "other", "ID": 5, "SignDate": time.Now().Add(day).Unix()}))
		time.Sleep(time.Minute)
		w.unknown(c, ErrClock)
		require.NoError(t, os.Remove(filepath.Join(w.dir, "b.skm")))
		time.Sleep(time.Minute)
		w.unknown(c, ErrClock)
		require.NoError(t, c.Close())
		w.unknown(w.open(nil), ErrClock)
		time.Sleep(day - time.Hour)
		w.allowed(c)
		w.allowed(w.open(nil))
	})
}

func TestState(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("a.skm", file(t, nil))
		c := w.open(nil)
		w.allowed(c)
		read := func() string {
			data, err := os.ReadFile(w.state)
			require.NoError(t, err)
			return string(data)
		}
		require.Equal(t, fmt.Sprintf("{\"latest\":%d,\"signed\":{\"4\":%d}}\n", time.Now().Unix(), time.Now().Unix()), read())
		before := read()
		time.Sleep(59 * time.Second)
		w.allowed(c)
		require.Equal(t, before, read())
		time.Sleep(time.Second)
		w.allowed(c)
		require.NotEqual(t, before, read())

		// Another process that shares it goes on from what this one knew.
		other := w.open(nil)
		time.Sleep(time.Hour)
		w.allowed(c)
		require.NoError(t, c.Close())
		latest := read()
		require.NoError(t, other.Close()) // it has not looked at the time for an hour
		require.Equal(t, latest, read())

		info, err := os.Stat(w.state)
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			require.Equal(t, os.FileMode(0o600), info.Mode())
		}
		left, err := os.ReadDir(filepath.Dir(w.state))
		require.NoError(t, err)
		require.Len(t, left, 1, "no temporary file stays")
	})
}

// A newer license is remembered at once: nobody knows how soon the process is killed.
func TestANewerLicenseIsKeptAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		older := file(t, nil)
		w.put("a.skm", older)
		c := w.open(func(c *Config) { c.Reload = time.Second })
		w.allowed(c)
		time.Sleep(time.Second)
		w.put("a.skm", file(t, fields{"Block": true}))
		w.denied(c, license.Query{Key: canary}, license.Blocked)
		w.put("a.skm", older)
		w.unknown(w.open(nil), ErrReplayed)
	})
}

func TestADamagedStateIsNotForgotten(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("a.skm", file(t, nil))
		for _, text := range []string{"", "{", "{}", `{"latest":-1}`, `{"latest":"x"}`, "null"} {
			require.NoError(t, os.WriteFile(w.state, []byte(text), 0o600))
			c := New(w.open(func(c *Config) { c.State = "" }).cfg)
			c.clock.path = w.state
			require.ErrorIs(t, c.Validate(), errDamaged, text)
			w.unknown(c, errDamaged)
			require.NoError(t, c.Close())
			after, err := os.ReadFile(w.state)
			require.NoError(t, err)
			require.Equal(t, text, string(after))
		}
	})
}

// What can't be written is no reason to refuse customers, and the operator's to know.
func TestAStateThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("a.skm", file(t, nil))
		w.state = filepath.Join(w.dir, "missing", "state.json")
		c := w.open(nil)
		w.allowed(c)
		require.ErrorIs(t, c.Health(), fs.ErrNotExist)
		require.ErrorContains(t, c.Close(), "offline: writing the state")
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"latest":1,"signed":{"4":2}}`))
	f.Add([]byte(`{"latest":9223372036854775807,"signed":{"-1":-9223372036854775808}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			require.Zero(t, s)
			return
		}
		require.Positive(t, s.Latest)
	})
}
