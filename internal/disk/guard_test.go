package disk

import (
	"errors"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGuardLetsOtherPanicsGo(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	require.PanicsWithError(t, "boom", func() { _ = Guard(func() { panic(boom) }) })
	var nobody *struct{ n int }
	require.Panics(t, func() { _ = Guard(func() { nobody.n++ }) }, "a nil dereference is a bug, not a disk's fault")
	require.Panics(t, func() { _ = Guard(func() { _ = []int{}[len(t.Name())] }) })
	require.NoError(t, Guard(func() {}))
}

func TestGuardRestores(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		old := debug.SetPanicOnFault(before)
		require.NoError(t, Guard(func() {}))
		require.Equal(t, before, debug.SetPanicOnFault(before), "after success")
		require.Panics(t, func() { _ = Guard(func() { panic("other") }) })
		require.Equal(t, before, debug.SetPanicOnFault(old), "after a panic")
	}
}

func TestIsFault(t *testing.T) {
	t.Parallel()
	for _, v := range []any{nil, "fault", errors.New("fault"), &FaultError{Addr: 1}} {
		_, ok := IsFault(v)
		require.False(t, ok, "%v", v)
	}
	require.ErrorContains(t, &FaultError{Addr: 0xabc}, "0xabc")
}
