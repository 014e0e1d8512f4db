package license_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

var errDown = errors.New("license server is down")

// checker answers the same always, and counts how often.
type checker struct {
	v     license.Verdict
	err   error
	panic any
	asked int
}

func (c *checker) Check(context.Context, license.Query) (license.Verdict, error) {
	c.asked++
	if c.panic != nil {
		panic(c.panic)
	}
	return c.v, c.err
}

func allow(subject string) *checker {
	return &checker{v: license.Verdict{Status: license.Allowed, Subject: subject}}
}

func deny(why license.Reason) *checker {
	return &checker{v: license.Verdict{Status: license.Denied, Reason: why}}
}

func down() *checker { return &checker{err: errDown} }

func checkers(list []*checker) (all []license.Checker) {
	for _, c := range list {
		all = append(all, c)
	}
	return all
}

type combination func(...license.Checker) license.Checker

func TestCombinations(t *testing.T) {
	t.Parallel()
	type list = []*checker
	allowed := license.Verdict{Status: license.Allowed, Subject: "cus_1"}
	denied := func(why license.Reason) license.Verdict {
		return license.Verdict{Status: license.Denied, Reason: why}
	}
	for name, test := range map[string]struct {
		of    combination
		list  list
		want  license.Verdict
		err   string
		asked []int
	}{
		"any: first allows":          {license.AnyOf, list{allow("cus_1"), allow("cus_2"), down()}, allowed, "", []int{1, 0, 0}},
		"any: last allows":           {license.AnyOf, list{deny(license.NotFound), down(), allow("cus_1")}, allowed, "", []int{1, 1, 1}},
		"any: unknown beats denied":  {license.AnyOf, list{deny(license.Blocked), down(), deny(license.Expired)}, license.Verdict{}, "license: AnyOf[1]: license server is down", []int{1, 1, 1}},
		"any: all unknown":           {license.AnyOf, list{down(), down()}, license.Verdict{}, "license: AnyOf[0]: license server is down\nlicense: AnyOf[1]: license server is down", []int{1, 1}},
		"any: all deny":              {license.AnyOf, list{deny(license.NotFound), deny(license.Expired), deny(license.Blocked)}, denied(license.Expired), "", []int{1, 1, 1}},
		"any: reason by default":     {license.AnyOf, list{deny(license.NotFound), deny("")}, denied(""), "", []int{1, 1}},
		"any: not found says more":   {license.AnyOf, list{deny(license.NoKey), deny(license.NotFound)}, denied(license.NotFound), "", []int{1, 1}},
		"any: no key":                {license.AnyOf, list{deny(license.NoKey), deny(license.NoKey)}, denied(license.NoKey), "", []int{1, 1}},
		"any: none":                  {license.AnyOf, nil, license.Verdict{}, "license: AnyOf: no checkers", nil},
		"all: all allow":             {license.AllOf, list{allow("cus_1"), allow("cus_1")}, allowed, "", []int{1, 1}},
		"all: first denies":          {license.AllOf, list{deny(license.Unpaid), allow("cus_1"), down()}, denied(license.Unpaid), "", []int{1, 0, 0}},
		"all: denied beats unknown":  {license.AllOf, list{down(), allow("cus_1"), deny(license.Blocked)}, denied(license.Blocked), "", []int{1, 1, 1}},
		"all: denied beats subjects": {license.AllOf, list{allow("cus_1"), allow("cus_2"), deny(license.Blocked)}, denied(license.Blocked), "", []int{1, 1, 1}},
		"all: one unknown":           {license.AllOf, list{allow("cus_1"), down()}, license.Verdict{}, "license: AllOf[1]: license server is down", []int{1, 1}},
		"all: several subjects":      {license.AllOf, list{allow("cus_1"), allow("cus_2"), allow("cus_1")}, license.Verdict{}, "license: AllOf: the checkers name different Subjects to bill", []int{1, 1, 1}},
		"all: none":                  {license.AllOf, nil, license.Verdict{}, "license: AllOf: no checkers", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := test.of(checkers(test.list)...).Check(t.Context(), license.Query{Feature: "f"})
			if test.err != "" {
				require.EqualError(t, err, test.err)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, test.want, v)
			for i, c := range test.list {
				require.Equal(t, test.asked[i], c.asked, "checker %d", i)
			}
		})
	}
}

// What is no verdict is unknown, and lets the others decide where they can.
func TestNonsenseIsUnknown(t *testing.T) {
	t.Parallel()
	ended := time.Now().Add(-time.Second)
	for name, test := range map[string]struct {
		bad  *checker
		says string
	}{
		"no status":       {&checker{}, "neither allowed nor denied"},
		"no such status":  {&checker{v: license.Verdict{Status: 9, Subject: "cus_1"}}, "neither allowed nor denied"},
		"nobody to bill":  {allow(""), "without a Subject"},
		"allowed before":  {&checker{v: license.Verdict{Status: license.Allowed, Subject: "cus_1", Until: ended}}, "ended before"},
		"denied before":   {&checker{v: license.Verdict{Status: license.Denied, Until: ended}}, "ended before"},
		"allowed, error":  {&checker{v: allow("cus_1").v, err: errDown}, "is down"},
		"denied, error":   {&checker{v: deny(license.Blocked).v, err: errDown}, "is down"},
		"panic":           {&checker{panic: "secret"}, "panicked with a string"},
		"panic, an error": {&checker{panic: errors.New("secret")}, "panicked with a *errors.errorString"},
		"nil":             {nil, "it is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := license.AnyOf(test.bad, allow("cus_1")).Check(t.Context(), license.Query{})
			require.NoError(t, err)
			require.Equal(t, license.Allowed, v.Status)
			v, err = license.AllOf(test.bad, deny(license.Blocked)).Check(t.Context(), license.Query{})
			require.NoError(t, err)
			require.Equal(t, license.Denied, v.Status)
			for _, c := range []license.Checker{
				license.AnyOf(test.bad, deny(license.Blocked)), license.AllOf(test.bad, allow("cus_1")), license.AllOf(allow("cus_1"), test.bad),
			} {
				v, err := c.Check(t.Context(), license.Query{})
				require.ErrorContains(t, err, test.says)
				require.NotContains(t, err.Error(), "secret")
				require.Zero(t, v)
			}
		})
	}
}

func TestTheQuerysOwnSubject(t *testing.T) {
	t.Parallel()
	q := license.Query{Subject: "cus_1"}
	for _, c := range []license.Checker{license.AllOf(allow(""), allow("cus_1")), license.AllOf(allow("cus_1"), allow(""))} {
		v, err := c.Check(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, "cus_1", v.Subject)
	}
	_, err := license.AllOf(allow(""), allow("cus_2")).Check(t.Context(), q)
	require.ErrorContains(t, err, "different Subjects")
	v, err := license.AnyOf(deny(license.NotFound), allow("")).Check(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, license.Verdict{Status: license.Allowed}, v)
}

func TestTheEarliestUntilAndTheLeastQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		until := func(c *checker, d time.Duration, q *license.Quota) *checker {
			c.v.Until, c.v.Quota = now.Add(d), q
			return c
		}
		tight, tight2, loose := &license.Quota{Limit: 10, Used: 9}, &license.Quota{Limit: 1}, &license.Quota{Limit: 5}
		v, err := license.AllOf(allow("s"), until(allow("s"), 3, loose), until(allow("s"), 2, tight), until(allow("s"), 4, tight2), allow("s")).Check(t.Context(), license.Query{})
		require.NoError(t, err)
		require.Equal(t, now.Add(2), v.Until)
		require.Same(t, tight, v.Quota)

		v, err = license.AnyOf(until(deny(license.Expired), 3, nil), deny(license.Blocked), until(deny(license.NotFound), 2, nil)).Check(t.Context(), license.Query{})
		require.NoError(t, err)
		require.Equal(t, license.Expired, v.Reason)
		require.Equal(t, now.Add(2), v.Until)

		one := until(allow("s"), 9, loose)
		v, err = license.AnyOf(until(deny(license.Expired), 3, nil), one, until(allow("s"), 1, tight)).Check(t.Context(), license.Query{})
		require.NoError(t, err)
		require.Equal(t, one.v, v, "exactly the verdict of the one that allows")
	})
}

// Of several quotas the one is kept that lets the fewest calls through.
func TestAllOfKeepsTheStrictestQuota(t *testing.T) {
	t.Parallel()
	none, hard, soft := &license.Quota{Limit: -1}, &license.Quota{Limit: 20, Used: 3}, &license.Quota{Limit: 5, Soft: true}
	spent, big := &license.Quota{Limit: 20, Used: 100}, &license.Quota{Limit: 1<<63 - 1, Used: -1 << 63}
	hour := time.Now().Add(-time.Hour)
	over := &license.Quota{Limit: 1000, Used: 1000, Start: hour.AddDate(0, -1, 0), End: hour} // and goes on without Used
	endless := &license.Quota{Limit: 1000, Used: 1000, Start: hour, End: hour}
	with := func(q *license.Quota) license.Checker {
		c := allow("s")
		c.v.Quota = q
		return c
	}
	for _, test := range []struct{ a, b, want *license.Quota }{
		{none, hard, hard}, {none, soft, soft}, {none, nil, none}, {hard, soft, hard}, {hard, spent, spent}, {hard, big, hard}, {soft, big, big}, {none, big, big},
		{over, hard, hard}, {endless, hard, endless},
	} {
		for _, c := range []license.Checker{license.AllOf(with(test.a), with(test.b)), license.AllOf(with(test.b), with(test.a))} {
			v, err := c.Check(t.Context(), license.Query{})
			require.NoError(t, err)
			require.Same(t, test.want, v.Quota)
		}
	}
}

// managed has faults and can be closed.
type managed struct {
	checker
	fault  error
	closed int
}

func (m *managed) Validate() error { return m.fault }
func (m *managed) Health() error   { return m.fault }
func (m *managed) Close() error    { m.closed++; return m.fault }

type addressed struct{ checker }

func (*addressed) Address() string { return `a"b` }

func TestAddressIsThatOfEveryChecker(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]combination{"AnyOf": license.AnyOf, "AllOf": license.AllOf} {
		address := func(c ...license.Checker) string { return of(c...).(interface{ Address() string }).Address() }
		require.Equal(t, name+`["a\"b" "" "" "`+name+`[]"]`, address(&addressed{}, allow("s"), (*addressed)(nil), of()))
		require.NotEqual(t, address(&addressed{}, allow("s")), address(allow("s"), &addressed{}))
	}
}

func TestValidateHealthAndCloseReachEveryChecker(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]combination{"AnyOf": license.AnyOf, "AllOf": license.AllOf} {
		good, bad, last := &managed{}, &managed{fault: errDown}, &managed{}
		list := []license.Checker{good, bad, nil, (*managed)(nil), license.CheckerFunc(nil), allow("s"), license.AnyOf(last)}
		c := of(list...).(interface {
			Validate() error
			Health() error
			Close() error
		})
		list[0] = nil // is the caller's
		require.EqualError(t, c.Validate(), "license: "+name+"[1]: license server is down\nlicense: "+name+"[2]: no checker: it is nil\n"+
			"license: "+name+"[3]: no checker: it is nil\nlicense: "+name+"[4]: no checker: it is nil")
		require.EqualError(t, c.Health(), "license: "+name+"[1]: license server is down")
		require.EqualError(t, c.Close(), "license: "+name+"[1]: license server is down")
		require.Equal(t, []int{1, 1, 1}, []int{good.closed, bad.closed, last.closed})
		require.ErrorContains(t, of().(interface{ Validate() error }).Validate(), "no checkers: name at least one")
		require.NoError(t, of(good).(interface{ Validate() error }).Validate())
	}
}
