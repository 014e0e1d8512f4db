package license

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"runtime"
	"time"
)

// AnyOf asks the checkers in order, until one allows:
//
//	one allows                    its verdict
//	none allows, one is unknown   unknown: that one might have allowed
//	all deny                      denied
//
// Of several denials the first is answered that says more than NotFound or NoKey,
// for most checkers don't know somebody else's customers; it ends with the earliest
// Until of any, because another answer may then change. Put the checker that answers
// from memory first.
//
// The result also has Validate, Health, Address and Close, which ask every checker that
// has them; Validate refuses an empty list and nil.
//
// Blocking: as the checkers do, one after another.
// Concurrency: safe.
func AnyOf(c ...Checker) Checker { return &combination{"AnyOf", clone(c), anyOf} }

// AllOf asks the checkers in order, until one denies:
//
//	one denies                      its verdict, even if another is unknown
//	none denies, one is unknown     unknown
//	all allow the same Subject      allowed
//	all allow, for several Subjects unknown: nobody can tell whom to bill
//
// A checker that allows the query's own Subject may leave Subject empty. The verdict
// ends with the earliest Until, and has the Quota that leaves least, the first of
// equals: quotas with different periods can't be made one. One with a Limit goes before
// one without, and a hard one before a soft one, for each of them has to be kept.
//
// The result also has Validate, Health, Address and Close, as that of [AnyOf].
//
// Blocking: as the checkers do, one after another.
// Concurrency: safe.
func AllOf(c ...Checker) Checker { return &combination{"AllOf", clone(c), allOf} }

func clone(c []Checker) []Checker { return append([]Checker(nil), c...) }

// combination is several checkers that act as one.
type combination struct {
	name     string
	checkers []Checker
	fold     func(answers iter.Seq2[Verdict, error], q Query) (Verdict, error)
}

// Check asks the checkers.
func (c *combination) Check(ctx context.Context, q Query) (Verdict, error) {
	if len(c.checkers) == 0 {
		return Verdict{}, fmt.Errorf("license: %s: no checkers", c.name)
	}
	return c.fold(func(yield func(Verdict, error) bool) {
		for i, checker := range c.checkers {
			v, err := ask(ctx, checker, q)
			if err != nil {
				v, err = Verdict{}, fmt.Errorf("license: %s[%d]: %w", c.name, i, err)
			}
			if !yield(v, err) {
				return
			}
		}
	}, q)
}

// anyOf ends at the first allowance.
func anyOf(answers iter.Seq2[Verdict, error], _ Query) (Verdict, error) {
	var unknown []error
	var denied Verdict
	var until time.Time
	for v, err := range answers {
		switch {
		case err != nil:
			unknown = append(unknown, err)
		case v.Status == Allowed:
			return v, nil
		default:
			until = earlier(until, v.Until)
			if denied.Status == Unknown || telling(v.Reason) > telling(denied.Reason) {
				denied = v
			}
		}
	}
	if unknown != nil {
		return Verdict{}, errors.Join(unknown...)
	}
	denied.Until = until
	return denied, nil
}

// telling is how much a reason says about a customer.
func telling(r Reason) int {
	switch r {
	case NoKey:
		return 0
	case NotFound:
		return 1
	}
	return 2
}

var errSubjects = errors.New("license: AllOf: the checkers name different Subjects to bill")

// allOf ends at the first denial.
func allOf(answers iter.Seq2[Verdict, error], q Query) (Verdict, error) {
	var unknown []error
	all := Verdict{Status: Allowed}
	several := false
	for v, err := range answers {
		if err != nil {
			unknown = append(unknown, err)
			continue
		}
		if v.Status == Denied {
			return v, nil
		}
		subject := cmp.Or(v.Subject, q.Subject)
		several = several || all.Subject != "" && all.Subject != subject
		all.Subject = subject
		all.Until = earlier(all.Until, v.Until)
		if v.Quota != nil && (all.Quota == nil || v.Quota.compare(all.Quota) < 0) {
			all.Quota = v.Quota
		}
	}
	if several {
		unknown = append(unknown, errSubjects)
	}
	if unknown != nil {
		return Verdict{}, errors.Join(unknown...)
	}
	return all, nil
}

// compare orders quotas by how little they allow, below 0 if q allows less.
func (q *Quota) compare(other *Quota) int {
	return cmp.Or(cmp.Compare(q.laxity(), other.laxity()), cmp.Compare(q.left(), other.left()))
}

func (q *Quota) laxity() int {
	switch {
	case q.Limit < 0:
		return 2
	case q.Soft:
		return 1
	}
	return 0
}

// left is without Used once the period is over that it was of.
func (q *Quota) left() int64 {
	if q.End.After(q.Start) && !time.Now().Before(q.End) {
		return max(q.Limit, -1)
	}
	return max(q.Limit, -1) - max(q.Used, 0)
}

// earlier is the earlier of two ends, of which the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// ask asks one checker. Without an error, the verdict is sound: what its maker
// promises not to be a verdict must not decide about the others'.
func ask(ctx context.Context, c Checker, q Query) (v Verdict, err error) {
	if isNil(c) {
		return Verdict{}, errNil
	}
	defer func() {
		if p := recover(); p != nil {
			v, err = Verdict{}, panicked(p)
		}
	}()
	v, err = c.Check(ctx, q)
	switch {
	case err != nil:
	case v.Status != Allowed && v.Status != Denied:
		err = errors.New("answered neither allowed nor denied")
	case v.Status == Allowed && v.Subject == "" && q.Subject == "":
		err = errors.New("allowed without a Subject to bill")
	case !v.Until.IsZero() && !time.Now().Before(v.Until):
		err = errors.New("answered with a verdict that ended before")
	}
	return v, err
}

// panicked tells of a panic without its text, which may hold a key; the runtime's
// own texts don't.
func panicked(p any) error {
	if err, ok := p.(runtime.Error); ok {
		return fmt.Errorf("panicked: %w", err)
	}
	return fmt.Errorf("panicked with a %T", p)
}

var errNil = errors.New("no checker: it is nil")

// isNil also finds a nil pointer or function inside the interface.
func isNil(c Checker) bool {
	if c == nil {
		return true
	}
	switch v := reflect.ValueOf(c); v.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// Validate says what is wrong with the list, and with each checker.
func (c *combination) Validate() error {
	if len(c.checkers) == 0 {
		return fmt.Errorf("license: %s: no checkers: name at least one", c.name)
	}
	return c.each(errNil, func(checker Checker) error {
		if v, ok := checker.(interface{ Validate() error }); ok {
			return v.Validate()
		}
		return nil
	})
}

// Health says what is wrong with each checker now.
func (c *combination) Health() error {
	return c.each(nil, func(checker Checker) error {
		if h, ok := checker.(interface{ Health() error }); ok {
			return h.Health()
		}
		return nil
	})
}

// Address is the name and the checkers' addresses, such as AnyOf["static" "stripe:live"];
// "" for one that has none.
func (c *combination) Address() string {
	all := make([]string, len(c.checkers))
	for i, checker := range c.checkers {
		if a, ok := checker.(interface{ Address() string }); ok && !isNil(checker) {
			all[i] = a.Address()
		}
	}
	return fmt.Sprintf("%s%q", c.name, all)
}

// Close closes each checker that is an io.Closer, in order, whatever the others say.
func (c *combination) Close() error {
	return c.each(nil, func(checker Checker) error {
		if closer, ok := checker.(io.Closer); ok {
			return closer.Close()
		}
		return nil
	})
}

// each joins what ask says of every checker; ofNil is what is said of none.
func (c *combination) each(ofNil error, ask func(Checker) error) error {
	var faults []error
	for i, checker := range c.checkers {
		err := ofNil
		if !isNil(checker) {
			err = ask(checker)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("license: %s[%d]: %w", c.name, i, err))
		}
	}
	return errors.Join(faults...)
}
