package static

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func key(text string) license.Key { return license.NewKey(text) }

func TestAddress(t *testing.T) {
	t.Parallel()
	require.Equal(t, "static", New(Config{}).Address())
}

func TestCheck(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(time.Hour)
	quota := license.Quota{Limit: 5}
	c := New(Config{
		Keys: map[license.Key]Grant{
			key("all"):     {Subject: "cus_all"},
			key("some"):    {Subject: "cus_some", Features: []string{"a", "b"}, Machines: []string{"m1"}, Until: end, Quotas: map[string]license.Quota{"a": quota}},
			key("nothing"): {Subject: "cus_nothing", Features: []string{}},
			key("unpaid"):  {Subject: "cus_unpaid", Denied: license.Unpaid, Until: time.Unix(1, 0)},
			key("ended"):   {Subject: "cus_ended", Until: time.Unix(1, 0), Features: []string{}},
		},
		Subjects: map[string]Grant{"cus_1": {}, "cus_2": {Subject: "acct_2"}},
	})
	require.NoError(t, c.Validate())
	allowed := func(subject string, until time.Time, q *license.Quota) license.Verdict {
		return license.Verdict{Status: license.Allowed, Subject: subject, Until: until, Quota: q}
	}
	denied := func(subject string, why license.Reason) license.Verdict {
		return license.Verdict{Status: license.Denied, Subject: subject, Reason: why}
	}
	for _, test := range []struct {
		query license.Query
		want  license.Verdict
	}{
		{license.Query{Key: key("all"), Feature: "x", Machine: "m"}, allowed("cus_all", time.Time{}, nil)},
		{license.Query{Key: key("all"), Subject: "cus_1"}, allowed("cus_all", time.Time{}, nil)},
		{license.Query{Key: key("some"), Feature: "a", Machine: "m1"}, allowed("cus_some", end, &quota)},
		{license.Query{Key: key("some"), Feature: "b"}, allowed("cus_some", end, nil)},
		{license.Query{Key: key("some")}, allowed("cus_some", end, nil)},
		{license.Query{Key: key("some"), Feature: "c"}, denied("cus_some", license.NotEntitled)},
		{license.Query{Key: key("some"), Feature: "a", Machine: "m2"}, denied("cus_some", license.NotEntitled)},
		{license.Query{Key: key("nothing"), Feature: "a"}, denied("cus_nothing", license.NotEntitled)},
		{license.Query{Key: key("unpaid")}, denied("cus_unpaid", license.Unpaid)},
		{license.Query{Key: key("ended"), Feature: "a"}, denied("cus_ended", license.Expired)},
		{license.Query{Key: key("ALL")}, denied("", license.NotFound)},
		{license.Query{Key: key("none"), Subject: "cus_1"}, denied("", license.NotFound)},
		{license.Query{Subject: "cus_1", Feature: "a"}, allowed("cus_1", time.Time{}, nil)},
		{license.Query{Subject: "cus_2"}, allowed("acct_2", time.Time{}, nil)},
		{license.Query{Subject: "acct_2"}, denied("", license.NotFound)},
		{license.Query{Feature: "a"}, denied("", license.NoKey)},
	} {
		v, err := c.Check(t.Context(), test.query)
		require.NoError(t, err)
		require.Equal(t, test.want, v, "%+v", test.query)
	}
}

func TestUntil(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Subjects: map[string]Grant{"s": {Until: time.Now().Add(time.Hour)}}})
		check := func() license.Verdict {
			v, err := c.Check(t.Context(), license.Query{Subject: "s"})
			require.NoError(t, err)
			return v
		}
		time.Sleep(time.Hour - 1)
		require.Equal(t, license.Allowed, check().Status)
		time.Sleep(1)
		require.Equal(t, license.Expired, check().Reason)
	})
}

// The table is the checker's own.
func TestNewCopies(t *testing.T) {
	t.Parallel()
	features, quotas := []string{"a"}, map[string]license.Quota{"a": {Limit: 1}}
	cfg := Config{Keys: map[license.Key]Grant{key("k"): {Subject: "s", Features: features, Machines: features, Quotas: quotas}}, Subjects: map[string]Grant{"s": {}}}
	c := New(cfg)
	require.Empty(t, cfg.Subjects["s"].Subject)
	features[0] = "b"
	delete(quotas, "a")
	delete(cfg.Keys, key("k"))
	v, err := c.Check(t.Context(), license.Query{Key: key("k"), Feature: "a", Machine: "a"})
	require.NoError(t, err)
	require.EqualValues(t, 1, v.Quota.Limit)
	v.Quota.Limit = 9
	v, err = c.Check(t.Context(), license.Query{Key: key("k"), Feature: "a", Machine: "a"})
	require.NoError(t, err)
	require.EqualValues(t, 1, v.Quota.Limit)
}

func TestValidateNamesEveryFaultAndNoKey(t *testing.T) {
	t.Parallel()
	c := New(Config{
		Keys: map[license.Key]Grant{
			{}:              {Subject: "s0"},
			key("CANARY-1"): {},
			key("CANARY-2"): {Subject: "CANARY-2"},
			key("CANARY-3"): {Subject: "s3", Features: []string{"a", ""}, Machines: []string{""}},
		},
		Subjects: map[string]Grant{
			"": {Subject: "x"},
			"q": {Quotas: map[string]license.Quota{
				"": {}, "a": {Limit: -1}, "b": {Used: -1}, "c": {Start: time.Unix(9, 0), End: time.Unix(9, 0)}, "d": {End: time.Unix(9, 0)},
			}},
		},
	})
	err := c.Validate()
	for _, want := range []string{
		`static: Config.Keys has an entry without a key, for subject "s0"`, "Keys has 1 without a Subject", "Subject is its key",
		`Keys (subject "s3").Features has an empty name`, `Keys (subject "s3").Machines has an empty name`,
		"Subjects has an entry without a subject", `Subjects["q"].Quotas has an entry without a feature`,
		`Subjects["q"].Quotas["a"]: limit -1`, `Subjects["q"].Quotas["b"]: limit 0, used -1`, `Subjects["q"].Quotas["c"]: starts at`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "CANARY")
	require.NotContains(t, err.Error(), `["d"]`)
	v, checked := c.Check(t.Context(), license.Query{Subject: "q"})
	require.Equal(t, err, checked)
	require.Equal(t, license.Unknown, v.Status)
	require.ErrorContains(t, New(Config{}).Validate(), "everybody would be denied")
}

// What is printed of a table or its checker holds no key.
func TestNothingPrintsAKey(t *testing.T) {
	t.Parallel()
	cfg := Config{Keys: map[license.Key]Grant{key("CANARY"): {Subject: "s"}}}
	for _, text := range []string{fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", New(cfg)), fmt.Sprint(*New(cfg))} {
		require.NotContains(t, text, "CANARY")
	}
}

func TestChecksDoNotAllocate(t *testing.T) {
	c := New(Config{Keys: map[license.Key]Grant{key("k"): {Subject: "s", Features: []string{"a"}}}})
	q := license.Query{Key: key("k"), Feature: "a"}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if v, err := c.Check(context.Background(), q); err != nil || v.Status != license.Allowed {
			panic(errors.Join(errors.New("not allowed"), err))
		}
	}))
}
