package signed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	var none Keys
	require.Equal(t, "offline:3646?", Address("offline", 3646, none, 0, Terms{}))
	full := Address("cryptolens", 77, none, time.Hour, Terms{
		Features: map[string]int{"a&b": 1, "c": 2}, FeatureTemplate: true, TimeLimited: Perpetual, Subject: func(License) string { return "" },
	})
	require.Equal(t, "cryptolens:77?FeatureTemplate=true&Features.a%26b=1&Features.c=2&MaxAge=1h0m0s&Subject=func&TimeLimited=-1", full)
}
