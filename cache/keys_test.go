package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func (w world) hasKey(subject, key string) {
	w.Helper()
	k, err := w.Key(w.Context(), subject)
	require.NoError(w, err)
	require.Equal(w, license.NewKey(key), k)
}

func TestKeyIsTheLastAllowed(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		_, err := w.Key(w.Context(), "cus_1")
		require.ErrorIs(w, err, ErrNoKey)
		require.EqualError(w, err, `cache: no key was allowed for this subject: subject "cus_1": one is, once the customer calls again`)
		w.answer("old", license.Allowed)
		w.hasKey("cus_1", "old")
		w.answer("new", license.Allowed)
		w.hasKey("cus_1", "new")
		w.server.set(deny(license.Blocked), nil)
		w.answer("denied", license.Denied)
		w.hasKey("cus_1", "new")
	})
}

// Counts of before have to be billed, whatever becomes of the verdict.
func TestKeyOutlivesTheVerdict(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w world){
		"grace":       func(w world) { time.Sleep(100 * time.Hour) },
		"invalidated": func(w world) { w.Invalidate(license.NewKey("k")) },
		"subject":     func(w world) { w.InvalidateSubject("cus_1") },
		"all":         func(w world) { w.InvalidateAll() },
		"closed":      func(w world) { require.NoError(w, w.Close()) },
		"evicted":     func(w world) { w.server.set(allow("cus_2"), nil); w.answer("other", license.Allowed) },
		"revoked":     func(w world) { w.revoke("k") },
		"named by the query": func(w world) {
			w.server.set(allow(""), nil)
			w.byBoth("k2", "cus_1")
			w.hasKey("cus_1", "k2")
			w.byBoth("k", "cus_1")
		},
		"by subject alone": func(w world) {
			_, err := w.Check(w.Context(), license.Query{Subject: "cus_1"})
			require.NoError(w, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{Size: 1}, func(w world) {
				w.answer("k", license.Allowed)
				end(w)
				w.hasKey("cus_1", "k")
			})
		})
	}
}

func (w world) revoke(key string) {
	time.Sleep(time.Hour)
	w.server.set(deny(license.Blocked), nil)
	w.allowed(key)
	w.settle()
	w.answer(key, license.Denied)
}

func (w world) byBoth(key, subject string) {
	_, err := w.Check(w.Context(), license.Query{Key: license.NewKey(key), Subject: subject})
	require.NoError(w, err)
}

func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	c := New(Config{Checker: answers(allow("cus_1"), nil), Size: 10})
	for i := range minKeys + 10 {
		require.True(t, c.keep(fmt.Sprint(i), license.NewKey("k")))
	}
	require.Equal(t, minKeys, c.keys.Len())
	require.False(t, c.keep("11", license.NewKey("k")))
	require.False(t, c.keep("", license.NewKey("k")))
	require.False(t, c.keep("x", license.Key{}))
	require.NoError(t, c.Close())
}
