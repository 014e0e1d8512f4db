package cryptolenssink

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What can be read is what was written, and it never grows beyond what the API keeps.
func FuzzJournal(f *testing.F) {
	for _, seed := range []string{
		"", "meter/1 0 -", "meter/1 k3x 0:3:abc:k3x", "meter/1 0 -2147483648:2147483647:abc:-1 d:1! e:2", "meter/1", "meter/1 0 3:3:a:1", "meter/2 0 -", "x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		j, err := parseJournal(text)
		if err != nil {
			require.ErrorIs(t, err, errForeign)
			return
		}
		require.LessOrEqual(t, len(j.past), maxPast)
		again, err := parseJournal(j.String())
		require.NoError(t, err)
		require.Equal(t, j, again)
	})
}

func TestJournalFitsTheDataObject(t *testing.T) {
	t.Parallel()
	widest := entry{id: strings.Repeat("x", 12), end: 253402300799, lost: true} // in the year 9999
	j := journal{floor: widest.end, intent: &intent{entry{id: widest.id, end: widest.end}, -1 << 31, 1<<31 - 1}}
	for range maxPast {
		j.past = append(j.past, widest)
	}
	require.Less(t, len(j.String()), 10_000)
	_, err := parseJournal(j.String() + " x:1")
	require.ErrorIs(t, err, errForeign)
}
