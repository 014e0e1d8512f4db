package meter

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBooksCheck(t *testing.T) {
	t.Parallel()
	require.NoError(t, Books(nil).Check())
	whole := Line{Feature: "f", Route: "r", Accepted: 28, Pending: 1, Delivered: 2, InDoubt: 3, Rejected: 4, Voided: 5, Superseded: 6, Damaged: 7}
	require.NoError(t, Books{whole}.Check())
	for name, spoil := range map[string]func(*Line){
		"accepted":   func(l *Line) { l.Accepted++ },
		"pending":    func(l *Line) { l.Pending++ },
		"delivered":  func(l *Line) { l.Delivered++ },
		"in doubt":   func(l *Line) { l.InDoubt++ },
		"rejected":   func(l *Line) { l.Rejected++ },
		"voided":     func(l *Line) { l.Voided++ },
		"superseded": func(l *Line) { l.Superseded++ },
		"damaged":    func(l *Line) { l.Damaged++ },
	} {
		bad := whole
		spoil(&bad)
		require.ErrorContains(t, Books{whole, bad}.Check(), `feature "f" on route "r"`, name)
	}
}

func TestBooksString(t *testing.T) {
	t.Parallel()
	b := Books{
		{Feature: "tokens", Route: "stripe", Accepted: 1500, Delivered: 1400, Pending: 100},
		{Feature: "report", Route: "archive", Accepted: 3, Delivered: 3},
		{Feature: "report", Route: "stripe", Accepted: 3, Delivered: 1, InDoubt: 1},
	}
	require.Equal(t, `
  feature    route  accepted  pending  delivered  in doubt  rejected  voided  superseded  damaged
   report  archive         3        0          3         0         0       0           0        0
   report   stripe         3        0          1         1         0       0           0        0 off by 1
   tokens   stripe      1500      100       1400         0         0       0           0        0
    total   stripe      1503      100       1401         1         0       0           0        0 off by 1
`, "\n"+b.String())
	require.Equal(t, "tokens", b[0].Feature, "String sorts a copy")
}
