package cache

import (
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// settled is a Checker with settings.
type settled struct {
	license.Checker
	address string
}

func (s *settled) Address() string { return s.address }

func TestASnapshotForOtherSettingsIsNotBelieved(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		with := func(c license.Checker) world { h.cfg.Checker = c; return h.start() }
		w := with(&settled{h.server, "cryptolens:3646"})
		w.answer("k", license.Allowed)
		h.stop(w)
		w = with(&settled{h.server, "cryptolens:3646"})
		w.allowed("k")
		h.stop(w)
		require.Empty(h, h.log.String())
		good := h.file("")

		h.server.set(license.Verdict{}, errDown)
		w = with(&settled{h.server, "cryptolens:77"})
		w.unknown("k")
		_, err := w.Key(w.Context(), "cus_1")
		require.ErrorIs(h, err, ErrNoKey, "the key may open nothing there")
		require.ErrorContains(h, w.Health(), h.path+` was written for another Checker, or for other settings of it: "cryptolens:3646", and it is "cryptolens:77" now; the next snapshot puts it aside`)
		require.Contains(h, h.log.String(), "was written for another Checker")
		require.Equal(h, good, h.file(""), "nothing has taken its place")
		h.server.set(allow("cus_2"), nil)
		w.answer("k", license.Allowed)
		h.stop(w)
		require.NoError(h, w.Health())
		require.Equal(h, good, h.file(".unreadable"))
		require.Contains(h, h.log.String(), "File put aside")

		w = with(h.server) // without an Address
		_, err = w.Key(w.Context(), "cus_2")
		require.ErrorIs(h, err, ErrNoKey)
		h.stop(w)
		w = with(&settled{h.server, "cryptolens:77"})
		require.Equal(h, "cus_2", w.allowed("k").Subject)
		h.stop(w)
	})
}
