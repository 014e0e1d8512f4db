package stripelicense

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/license"
	"github.com/stripe/stripe-go/v76"
)

var (
	customerID     = regexp.MustCompile(`^cus_[A-Za-z0-9_]{1,250}$`)
	subscriptionID = regexp.MustCompile(`^sub_[A-Za-z0-9_]{1,250}$`)
)

// find returns the subscriptions that a query leads to, those of one caller, or why
// there can be none.
func (c *Checker) find(ctx context.Context, q license.Query) (found []candidate, denied license.Reason, err error) {
	byKey := !q.Key.IsZero() && c.cfg.KeyMetadata != ""
	switch {
	case q.Key.IsZero() && q.Subject == "":
		return nil, license.NoKey, nil
	case !byKey && q.Subject == "":
		return nil, "", &queryError{"stripelicense: the caller has a license key and no subject: set Config.KeyMetadata to the field of subscriptions that holds keys"}
	}
	if q.Subject != "" {
		if denied, err := c.checkSubject(q.Subject); err != nil || denied != "" {
			return nil, denied, err
		}
	}
	switch {
	case byKey:
		value := c.keyValue(q.Key)
		if !stripeapi.Searchable(value) {
			return nil, license.NotFound, nil
		}
		found, err = c.byMetadata(ctx, &c.keys, value, q.Subject)
	case customerID.MatchString(q.Subject):
		found, err = c.ofCustomer(ctx, q.Subject)
	default:
		found, err = c.byMetadata(ctx, &c.subjects, q.Subject, "")
	}
	if q.Subject != "" {
		found = slices.DeleteFunc(found, func(f candidate) bool { return !c.isOf(f.sub, q.Subject) })
	}
	if err == nil && len(found) == 0 {
		denied = license.NotFound
	}
	return found, denied, err
}

// queryError is of a query that does not fit the Config.
type queryError struct{ text string }

func (e *queryError) Error() string { return e.text }

// AboutQuery says that Stripe was not asked, and may well answer other queries.
func (e *queryError) AboutQuery() bool { return true }

// checkSubject says what is known of a subject without asking Stripe.
func (c *Checker) checkSubject(subject string) (denied license.Reason, err error) {
	switch {
	case customerID.MatchString(subject):
	case c.cfg.SubjectMetadata == "":
		return "", &queryError{fmt.Sprintf(`stripelicense: subject %q is no customer, "cus_…": identify callers by one, or set Config.SubjectMetadata to the field of subscriptions that holds yours`,
			stripeapi.Clean(subject, c.cfg.Key))}
	case !stripeapi.Searchable(subject):
		return license.NotFound, nil
	}
	return "", nil
}

func (c *Checker) isOf(sub *stripe.Subscription, subject string) bool {
	if customerID.MatchString(subject) {
		return sub.Customer.ID == subject
	}
	return sub.Metadata[c.cfg.SubjectMetadata] == subject
}

func (c *Checker) keyValue(key license.Key) string {
	if c.cfg.KeySecret != "" {
		return KeyDigest(c.cfg.KeySecret, key)
	}
	return key.Reveal()
}

// maxKnown bounds how many values of a metadata field are remembered.
const maxKnown = 100_000

// index remembers which subscription holds a value in a metadata field, since Stripe's
// own index is slow to learn. It is only a hint: what it leads to is read anew.
type index struct {
	field string
	known *lru.Cache[license.Key, hint] // a value may be a license key
}

type hint struct {
	sub  string
	sole bool // a search has found nobody else's
}

func newIndex(field string) index {
	known, _ := lru.New[license.Key, hint](maxKnown) // fails for sizes below 1 only
	return index{field, known}
}

// learn notes what a subscription holds. The next check searches all the same, for
// others may hold it, too.
func (x *index) learn(sub string, metadata map[string]string) {
	value := metadata[x.field]
	if x.field == "" || !stripeapi.Searchable(value) {
		return
	}
	key := license.NewKey(value)
	if known, _ := x.known.Peek(key); known.sub != sub {
		x.known.Add(key, hint{sub: sub})
	}
}

// byMetadata returns the subscriptions that hold exactly value, or the one that is known
// to hold it, if that is the subject's ("": anybody's) and in good standing.
func (c *Checker) byMetadata(ctx context.Context, x *index, value, subject string) ([]candidate, error) {
	secret := license.NewKey(value)
	holds := func(sub *stripe.Subscription) bool { return sub != nil && sub.Metadata[x.field] == value }
	var found []candidate
	known, hinted := x.known.Get(secret)
	if hinted {
		switch sub, err := c.subscription(ctx, known.sub); {
		case err != nil:
			return nil, err
		case holds(sub):
			one, err := c.assess(ctx, sub, time.Now())
			if err != nil {
				return nil, err
			}
			found = append(found, one)
			if known.sole && one.stands() && (subject == "" || c.isOf(sub, subject)) {
				return found, nil
			}
		}
	}
	// Stripe's index may be behind, so only IDs are taken from it, but for what is final.
	listed, err := c.search(ctx, x.field, value)
	if err != nil {
		return nil, err
	}
	for _, sub := range listed {
		switch {
		case sub.ID == known.sub:
			continue
		case !slices.Contains(final, string(sub.Status)):
			if sub, err = c.subscription(ctx, sub.ID); err != nil {
				return nil, err
			}
		}
		if !holds(sub) {
			continue
		}
		one, err := c.assess(ctx, sub, time.Now())
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	x.remember(secret, found)
	return found, nil
}

// remember notes the best subscription in good standing. If there are several
// customers, the next check must see that, too.
func (x *index) remember(secret license.Key, found []candidate) {
	best, customers := pick(found)
	if best == nil || len(customers) > 1 {
		x.known.Remove(secret)
		return
	}
	x.known.Add(secret, hint{best.sub.ID, true})
}
