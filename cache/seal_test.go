package cache

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

var testSealer = &sealer{[]byte("0123456789abcdef")}

func encoded(t testing.TB, s snapshot) []byte {
	var text bytes.Buffer
	require.NoError(t, gob.NewEncoder(&text).Encode(s))
	return text.Bytes()
}

func sealed(t testing.TB, plain []byte) []byte {
	out, err := testSealer.seal(plain)
	require.NoError(t, err)
	return out
}

// sample is a snapshot with one of each.
func sample() snapshot {
	now := time.Now()
	return snapshot{
		Wall:    now.UnixNano(),
		Allowed: []savedEntry{{Key: "canary", Feature: "api", Verdict: savedVerdict{At: now.UnixNano(), Subject: "cus_1"}}},
		Revoked: []savedDenial{{Query: make([]byte, 32), Key: make([]byte, 32), Verdict: savedVerdict{Reason: license.Blocked}}},
		Invalid: []savedInvalid{{What: make([]byte, 32), At: now.UnixNano()}},
		Keys:    []savedKey{{"cus_1", "canary"}},
	}
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	want := sample()
	a, b := sealed(t, encoded(t, want)), sealed(t, encoded(t, want))
	require.NotEqual(t, a, b, "each has a key of its own")
	require.NotContains(t, string(a), "canary")
	got, err := testSealer.open(a)
	require.NoError(t, err)
	require.Equal(t, want, *got)
	_, err = (&sealer{[]byte("0123456789abcdeg")}).open(a)
	require.ErrorIs(t, err, errUnreadable)
}

func TestNothingThatWasTamperedWithIsBelieved(t *testing.T) {
	t.Parallel()
	good := sealed(t, encoded(t, sample()))
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			bad := slices.Clone(good)
			bad[i] ^= bit
			s, err := testSealer.open(bad)
			require.Error(t, err)
			require.Nil(t, s)
		}
		s, err := testSealer.open(good[:i])
		require.Error(t, err)
		require.Nil(t, s)
	}
	_, err := testSealer.open(append(slices.Clone(good), 0))
	require.ErrorIs(t, err, errUnreadable)
	_, err = testSealer.open(sealed(t, []byte("not gob")))
	require.ErrorIs(t, err, errUnreadable)
}

func TestAnUnreadableFileIsPutAsideAndNobodyElsesIsTouched(t *testing.T) {
	t.Parallel()
	var good []byte
	for name, test := range map[string]struct {
		content func() []byte
		foreign bool
	}{
		"tampered with": {func() []byte { b := slices.Clone(good); b[len(b)-1] ^= 1; return b }, false},
		"torn":          {func() []byte { return good[:len(good)/2] }, false},
		"only magic":    {func() []byte { return []byte(magic) }, false},
		"empty":         {func() []byte { return nil }, false},
		"zeros":         {func() []byte { return make([]byte, 4096) }, false},
		"of the host":   {func() []byte { return []byte("the only copy of something") }, true},
		"short":         {func() []byte { return []byte("x") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inHome(t, func(h *home) {
				w := h.start()
				w.answer("k", license.Allowed)
				h.stop(w)
				good = h.file("")
				content := test.content()
				require.NoError(h, os.WriteFile(h.path, content, 0o600))

				h.server.set(license.Verdict{}, errDown)
				w = h.start()
				w.unknown("k")
				_, err := w.Key(w.Context(), "cus_1")
				require.ErrorIs(h, err, ErrNoKey)
				require.ErrorContains(h, w.Health(), "going on without the verdicts on disk")
				require.Contains(h, h.log.String(), "going on without")
				h.server.set(allow("cus_2"), nil)
				w.answer("k", license.Allowed)
				if test.foreign {
					require.ErrorIs(h, w.Close(), errForeign)
					require.ErrorIs(h, w.Health(), errForeign)
					require.Equal(h, content, h.file(""))
					return
				}
				h.stop(w)
				require.NoError(h, w.Health())
				require.True(h, bytes.Equal(content, h.file(".unreadable")))
				w = h.start()
				require.Equal(h, "cus_2", w.allowed("k").Subject)
				h.stop(w)
			})
		})
	}
}

// restored is a cache that has taken over s.
func restored(t *testing.T, s *snapshot) *Cache {
	c := New(Config{Checker: answers(license.Verdict{}, errDown), Size: 100, NegativeMax: 100, Logger: slog.New(slog.DiscardHandler)})
	_ = c.restore(s)
	return c
}

func FuzzOpen(f *testing.F) {
	good := sealed(f, encoded(f, sample()))
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := testSealer.open(b)
		if err != nil {
			require.Nil(t, s)
			return
		}
		require.Equal(t, "canary", s.Keys[0].Key, "only what was sealed")
	})
}

// Whoever has the secret may write anything, also another version of this package.
func FuzzRestore(f *testing.F) {
	f.Add(encoded(f, sample()))
	f.Add([]byte("x"))
	odd := sample()
	odd.Wall = -1 << 63
	f.Add(encoded(f, odd))
	odd = sample()
	odd.Allowed[0].Verdict.Age, odd.Allowed[0].Verdict.At = -1<<63, 1<<63-1
	odd.Revoked[0].Verdict.Age, odd.Revoked[0].Query = 1<<63-1, nil
	f.Add(encoded(f, odd))
	f.Fuzz(func(t *testing.T, plain []byte) {
		s, err := decode(plain)
		if err != nil {
			require.ErrorIs(t, err, errUnreadable)
			return
		}
		c := restored(t, s)
		now := c.clock.now()
		for _, e := range c.allowed.Values() {
			require.NotEqual(t, fresh, e.age(now, &c.cfg))
			require.Equal(t, license.Allowed, e.verdict.Status)
			require.True(t, e.verdict.Subject != "" || e.query.Subject != "")
			if e.age(now, &c.cfg) != spent {
				require.Less(t, now.since(e.at), c.cfg.Grace)
			}
		}
		again, err := c.encode()
		require.NoError(t, err)
		_, err = decode(again)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
}

func TestNoSecretAndNoKeyIsPrinted(t *testing.T) {
	t.Parallel()
	r := &reader{}
	inHome(t, func(h *home) {
		const secret = "canary-secret-0123456789"
		h.cfg.Secret, h.cfg.MeterProvider = []byte(secret), r
		var said []string
		say := func(err error) { require.Error(h, err); said = append(said, err.Error()) }
		w := h.start()
		w.answer("canary-1", license.Allowed)
		time.Sleep(time.Hour)
		h.server.set(deny(license.Blocked), nil)
		w.allowed("canary-1")
		w.settle()
		w.answer("canary-1", license.Denied)
		h.server.set(allow("cus_2"), nil)
		w.answer("canary-2", license.Allowed)
		w.down()
		say(w.unknown("canary-3"))
		say(w.Health())
		_, err := w.Key(w.Context(), "cus_3")
		say(err)
		w.settle()
		h.stop(w)
		say(w.unknown("canary-4"))
		good := h.file("")
		require.NoError(h, os.WriteFile(h.path, []byte("canary-5"), 0o600))
		w = h.start()
		w.InvalidateAll()
		say(w.Close())
		for _, x := range []any{w.Cache, h.cfg, &h.cfg, []Config{h.cfg}} {
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
				said = append(said, fmt.Sprintf(format, x))
			}
		}
		inside := struct{ Cache Config }{Config{File: "x", Secret: h.cfg.Secret}}
		encoded, err := json.Marshal(inside)
		require.NoError(h, err)
		said = append(said, string(encoded), fmt.Sprintf("%+v", inside))
		slog.New(slog.NewJSONHandler(&h.log, nil)).Info("x", "config", h.cfg, "inside", inside, "cache", w.Cache)
		said = append(said, h.log.String(), string(good))
		for name := range r.collect(h.T) {
			said = append(said, name)
		}
		for _, text := range said {
			require.NotContains(h, text, "canary")
			require.NotContains(h, text, "Y2FuYXJ5")     // in base64
			require.NotContains(h, text, "63616e617279") // in hex
			require.NotContains(h, text, "99 97 110 97 114 121")
			require.NotContains(h, text, "0x63, 0x61, 0x6e, 0x61, 0x72, 0x79")
		}
	})
}
