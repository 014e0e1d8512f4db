package cache

import (
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

type faulty struct{ license.Checker }

func (faulty) Validate() error { return errDown }

func TestValidate(t *testing.T) {
	t.Parallel()
	ok := answers(allow("cus_1"), nil)
	for name, test := range map[string]struct {
		cfg  Config
		says string // "": no fault
	}{
		"defaults":         {Config{Checker: ok}, ""},
		"all":              {Config{Checker: ok, Fresh: 1, Grace: 1, Negative: 1, NegativeMax: 1, Rate: 0.1, Size: 1}, ""},
		"no grace":         {Config{Checker: ok, Grace: NoGrace}, ""},
		"no limit":         {Config{Checker: ok, Rate: math.Inf(1)}, ""},
		"no checker":       {Config{}, "cache: Config.Checker: required"},
		"nil function":     {Config{Checker: license.CheckerFunc(nil)}, "cache: Config.Checker: required"},
		"nil pointer":      {Config{Checker: (*server)(nil)}, "cache: Config.Checker: required"},
		"checker's own":    {Config{Checker: faulty{}}, "cache: Config.Checker: license server is down"},
		"fresh":            {Config{Checker: ok, Fresh: -1}, "cache: Config.Fresh: -1ns: must not be negative"},
		"grace":            {Config{Checker: ok, Grace: -2}, "cache: Config.Grace: -2ns: must not be negative, except for cache.NoGrace"},
		"grace < fresh":    {Config{Checker: ok, Grace: 1, Fresh: 2}, "cache: Config.Grace: 1ns: must be at least Fresh, 2ns, or cache.NoGrace"},
		"fresh over grace": {Config{Checker: ok, Fresh: 48 * time.Hour}, "cache: Config.Grace: 24h0m0s: must be at least Fresh, 48h0m0s, or cache.NoGrace"},
		"negative":         {Config{Checker: ok, Negative: -1}, "cache: Config.Negative: -1ns: must not be negative"},
		"negative max":     {Config{Checker: ok, NegativeMax: -1}, "cache: Config.NegativeMax: -1: must not be negative"},
		"rate":             {Config{Checker: ok, Rate: -1}, "cache: Config.Rate: -1: must be positive, in calls a second"},
		"no rate":          {Config{Checker: ok, Rate: math.NaN()}, "cache: Config.Rate: NaN: must be positive, in calls a second"},
		"size":             {Config{Checker: ok, Size: -1}, "cache: Config.Size: -1: must not be negative"},
		"secret, no file":  {Config{Checker: ok, Secret: make([]byte, 32)}, "cache: Config.Secret: without File there is nothing to encrypt"},
		"short secret":     {Config{Checker: ok, File: "x", Secret: []byte("short")}, "cache: Config.Secret: has 5 bytes: must have at least 16"},
		"no secret":        {Config{Checker: ok, File: "x", Secret: []byte{}}, "cache: Config.Secret: has 0 bytes: must have at least 16"},
		"several":          {Config{Size: -1, Rate: -1}, "cache: Config.Checker: required\ncache: Config.Rate: -1: must be positive, in calls a second\ncache: Config.Size: -1: must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := New(test.cfg)
			_, err := c.Check(t.Context(), ask("k"))
			if test.says == "" {
				require.NoError(t, c.Validate())
				require.NoError(t, err)
			} else {
				require.EqualError(t, c.Validate(), test.says)
				require.Equal(t, c.Validate(), err, "no check with a faulty Config")
			}
			c.Invalidate(license.NewKey("k"))
			c.InvalidateAll()
			require.NoError(t, c.Close())
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	require.Equal(t, Config{
		Fresh: 5 * time.Minute, Grace: 24 * time.Hour, Negative: 30 * time.Second,
		NegativeMax: 10_000, Rate: 20, Size: 100_000, Logger: slog.Default(),
	}, Config{}.withDefaults())
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	b := newBudget(math.Inf(1))
	require.Equal(t, rate.Inf, b.all.Limit())
	require.Equal(t, rate.Inf, b.strangers.Limit())
	for range 100 {
		require.True(t, b.take(time.Now(), false))
	}
}
