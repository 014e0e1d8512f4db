package stripeapi_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stretchr/testify/require"
)

func TestClean(t *testing.T) {
	t.Parallel()
	const secret = "sk_live_abc123"
	tests := map[string]string{
		"plain":                         "plain",
		"a " + secret + " b":            "a [key] b",
		"masked sk_test_****abcd here":  "masked [key] here",
		"another rk_live_zzz, too":      "another [key], too",
		"signed by whsec_aB+/9=":        "signed by [key]",
		"lines\r\nand\x00controls\x1b[": "lines  and controls [",
		"bad \xff utf8":                 "bad ? utf8",
		"":                              "",
	}
	for text, want := range tests {
		require.Equal(t, want, stripeapi.Clean(text, secret))
	}
	require.Equal(t, "no key here", stripeapi.Clean("no key here", ""))
	require.Equal(t, "odd [key]", stripeapi.Clean("odd whsec_1", "whsec_1"))

	long := stripeapi.Clean(strings.Repeat("x", 298)+"ü"+secret, secret)
	require.NotContains(t, long, "sk_")
	require.True(t, utf8.ValidString(long))
	require.Len(t, long, 300+len("…"))
	cut := stripeapi.Clean(strings.Repeat("x", 299)+"üü", "")
	require.Equal(t, strings.Repeat("x", 299)+"…", cut, "no half characters")
}
