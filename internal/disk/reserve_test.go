package disk

import (
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	f := create(t, t.TempDir(), "file")
	require.NoError(t, Reserve(f, 0, 10_000))
	require.EqualValues(t, 10_000, sizeOf(t, f))
	_, err := f.WriteAt([]byte("counts"), 4_000)
	require.NoError(t, err)

	require.NoError(t, Reserve(f, 10_000, 300_000), "an extent after it")
	require.NoError(t, Reserve(f, 0, 50), "a part of it")
	require.EqualValues(t, 310_000, sizeOf(t, f))

	all, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	want := make([]byte, 310_000)
	copy(want[4_000:], "counts")
	require.Equal(t, want, all, "old bytes kept, new ones 0")
}

func TestReserveRefuses(t *testing.T) {
	t.Parallel()
	f := create(t, t.TempDir(), "file")
	for _, r := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}, {math.MaxInt64, 1}} {
		require.ErrorContains(t, Reserve(f, r[0], r[1]), "bad range")
	}
	require.Zero(t, sizeOf(t, f))
	require.NoError(t, f.Close())
	require.ErrorIs(t, Reserve(f, 0, 1), os.ErrClosed)
}

// rewrite serves the systems without fallocate; its effect is the same everywhere.
func TestRewriteKeepsContent(t *testing.T) {
	t.Parallel()
	f := create(t, t.TempDir(), "file")
	want := make([]byte, 3*rewriteChunk+17)
	for i := range want {
		want[i] = byte(i * 7)
	}
	_, err := f.WriteAt(want, 0)
	require.NoError(t, err)
	require.NoError(t, rewrite(f, 5, int64(len(want))))
	got, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Error(t, rewrite(f, 0, int64(len(want))+1), "past the end")
	require.EqualValues(t, len(want), sizeOf(t, f))
}
