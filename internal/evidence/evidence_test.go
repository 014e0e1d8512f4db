package evidence

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplyIsBounded(t *testing.T) {
	t.Parallel()
	data, err := ReadReply(io.NopCloser(io.LimitReader(endless{}, maxReply)))
	require.NoError(t, err)
	require.Len(t, data, maxReply)
	_, err = ReadReply(io.NopCloser(endless{}))
	require.ErrorContains(t, err, "more than")
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestBodyTellsWhetherAnyOfItWasTaken(t *testing.T) {
	t.Parallel()
	b := NewBody([]byte("usage"))
	require.NoError(t, b.Close(), "as a transport does before it is done")
	require.False(t, b.Shut())
	n, err := b.Read(make([]byte, 10))
	require.Zero(t, n, "nothing leaves any more")
	require.ErrorIs(t, err, errShut)
	require.False(t, b.Shut())

	b = NewBody([]byte("usage"))
	data, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Equal(t, "usage", string(data))
	require.True(t, b.Shut())

	require.False(t, (&Body{}).Shut(), "an empty one")
}
