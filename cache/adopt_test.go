package cache

import (
	"log/slog"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// feature checks one, and lets what goes on behind it end.
func (w world) feature(key, name string) license.Status {
	v, _ := w.Check(w.Context(), license.Query{Key: license.NewKey(key), Feature: name})
	w.settle()
	return v.Status
}

// A rolling deploy: the old process learns something and writes it, the new one writes
// last, and the next one starts in an outage.
func TestWhatAnotherProcessLearnedLaterCounts(t *testing.T) {
	t.Parallel()
	blocked := func(w world) {
		w.server.set(deny(license.Blocked), nil)
		w.feature("k", "a") // refreshes
		require.Equal(w, license.Denied, w.feature("k", "a"))
	}
	allowedAgain := func(w world) {
		time.Sleep(time.Hour)
		w.server.set(allow("cus_1"), nil)
		require.Equal(w, license.Allowed, w.feature("k", "a"))
	}
	nothing := func(world) {}
	for name, test := range map[string]struct {
		before, old, young func(w world)
		a, b               license.Status // in the outage
	}{
		"nothing":   {nothing, nothing, nothing, license.Allowed, license.Allowed},
		"blocked":   {nothing, blocked, nothing, license.Denied, license.Denied},
		"blocked b": {nothing, func(w world) { w.server.set(deny(license.Blocked), nil); w.feature("k", "b") }, nothing, license.Denied, license.Denied},
		"not entitled": {nothing, func(w world) {
			w.server.set(deny(license.NotEntitled), nil)
			w.feature("k", "a")
		}, nothing, license.Denied, license.Allowed},
		"key":           {nothing, func(w world) { w.Invalidate(license.NewKey("k")) }, nothing, license.Unknown, license.Unknown},
		"subject":       {nothing, func(w world) { w.InvalidateSubject("cus_1") }, nothing, license.Unknown, license.Unknown},
		"all":           {nothing, func(w world) { w.InvalidateAll() }, nothing, license.Unknown, license.Unknown},
		"other key":     {nothing, func(w world) { w.Invalidate(license.NewKey("other")) }, nothing, license.Allowed, license.Allowed},
		"other subject": {nothing, func(w world) { w.InvalidateSubject("cus_2") }, nothing, license.Allowed, license.Allowed},

		"allowed after the block":    {nothing, blocked, allowedAgain, license.Allowed, license.Denied},
		"allowed after invalidation": {nothing, func(w world) { w.InvalidateAll() }, allowedAgain, license.Allowed, license.Unknown},
		"allowed again":              {blocked, allowedAgain, nothing, license.Allowed, license.Denied},
		"allowed again, invalidated": {blocked, allowedAgain, func(w world) { time.Sleep(time.Minute); w.InvalidateAll() }, license.Unknown, license.Unknown},
		"allowed again, blocked": {blocked, allowedAgain, func(w world) {
			time.Sleep(time.Minute)
			w.server.set(deny(license.Blocked), nil)
			w.feature("k", "a")
		}, license.Denied, license.Denied},
		"denied, and invalidated": {blocked, func(w world) { w.InvalidateSubject("cus_1"); w.Invalidate(license.NewKey("k")) }, nothing, license.Unknown, license.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHome(t, func(h *home) {
				write := func(w world) {
					h.server.set(allow("cus_3"), nil)
					w.feature("another", time.Now().String()) // something to write
					time.Sleep(soon + time.Minute)
					w.settle()
				}
				old := h.start()
				for _, feature := range []string{"a", "b"} {
					require.Equal(h, license.Allowed, old.feature("k", feature))
				}
				time.Sleep(time.Hour)
				test.before(old)
				write(old)
				young, third := h.start(), h.start()
				time.Sleep(time.Minute)
				test.old(old)
				write(old)
				h.kill(old)
				test.young(young)
				write(young)
				h.kill(young)
				write(third) // by way of the other
				h.server.set(license.Verdict{}, errDown)
				for name, w := range map[string]world{"young": young, "third": third} {
					require.Equal(h, test.a, w.feature("k", "a"), name)
					require.Equal(h, test.b, w.feature("k", "b"), name)
				}
				h.kill(third)
				w := h.start()
				require.Equal(h, test.a, w.feature("k", "a"))
				require.Equal(h, test.b, w.feature("k", "b"))
				w.hasKey("cus_1", "k")
				h.stop(w)
			})
		})
	}
}

// They have started together, when there was no file to have anything in common by.
func TestProcessesOfOneFileUnderstandEachOther(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		a, b := h.start(), h.start()
		require.Equal(h, a.identify(ask("k")), b.identify(ask("k")))
		h.cfg.File += "2"
		c := h.start()
		require.NotEqual(h, a.identify(ask("k")), c.identify(ask("k")))
		for _, w := range []world{a, b, c} {
			h.stop(w)
		}
	})
}

// By a clock that was set back, nobody knows what is the newest.
func TestNobodyIsPardonedFromTheFuture(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		w.answer("k", license.Allowed)
		h.stop(w)
		s, err := w.file.read()
		require.NoError(h, err)
		h.cfg.Logger = slog.New(slog.DiscardHandler)
		w = h.start()
		time.Sleep(time.Hour)
		h.server.set(deny(license.Blocked), nil)
		w.answer("k", license.Allowed)
		w.settle()
		w.answer("k", license.Denied)
		time.Sleep(time.Minute)
		s.Allowed[0].Verdict.At = time.Now().UnixNano()
		s.Wall = time.Now().Add(time.Second).UnixNano()
		w.adopt(s)
		h.server.set(license.Verdict{}, errDown)
		w.answer("k", license.Denied)
		s.Wall = time.Now().UnixNano()
		w.adopt(s)
		w.answer("k", license.Allowed)
		h.stop(w)
	})
}
