package stripesink

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76/subscription"
	"github.com/stripe/stripe-go/v76/subscriptionitem"
	"golang.org/x/time/rate"
)

// Both keep the count: they wrap [sink.ErrPostponed], and the record is tried again.
var (
	// ErrNotFound says that Stripe has nothing to bill a subject by: no subscription
	// in a state that is billed, or none with a price of the feature.
	ErrNotFound = fmt.Errorf("%w: stripesink: nothing to bill it by", sink.ErrPostponed)
	// ErrAmbiguous says that there are several, and that it is not for a sink to choose.
	ErrAmbiguous = fmt.Errorf("%w: stripesink: several to bill it by", sink.ErrPostponed)
)

const (
	maxSubjects = 100_000       // that are remembered
	subjectTTL  = 4 * time.Hour // 180 reads a month at most, of the 500 that Stripe grants each payment
	missTTL     = time.Minute   // also for what is found twice
	rollTime    = time.Minute   // that Stripe may take to begin a period
	liveLookups = 20            // a second; Stripe takes 25 at an endpoint, and 20 searches
	testLookups = 4             // what deliveries leave of the 25 that a sandbox takes
)

// resolver finds out whom Stripe bills for a subject, and remembers it: Stripe limits
// how much may be read.
type resolver struct {
	key           string
	metadata      string // the field of subscriptions that holds the subject; "": none
	subscriptions subscription.Client
	items         subscriptionitem.Client
	pace          *rate.Limiter
	turns         turns // by subject: one lookup at a time
	known         *lru.Cache[string, finding]
}

// finding is what a lookup brought.
type finding struct {
	contracts []contract
	at        time.Time
}

// contract is a subscription, without what nobody needs here.
type contract struct {
	id, customer, status string
	subject              string // that its metadata holds, "": none
	start, end           int64  // of the running period, in seconds
	ceases               int64  // when it will be canceled, in seconds; 0: no such time
	thresholds           bool
	items                []item
	read                 time.Time // zero: from an index, which may be an hour behind
}

type item struct {
	id, price  string
	created    int64
	thresholds bool
	metered    bool
}

// payer is the item that a subject is billed by.
type payer struct {
	item
	contract
}

func newResolver(api *stripeapi.API, key, metadata string) *resolver {
	lookups := rate.Limit(testLookups)
	if stripeapi.Live(key) {
		lookups = liveLookups
	}
	v := &resolver{
		key: key, metadata: metadata,
		subscriptions: subscription.Client{B: api.Backend, Key: key},
		items:         subscriptionitem.Client{B: api.Backend, Key: key},
		pace:          rate.NewLimiter(lookups, testLookups),
	}
	v.known, _ = lru.New[string, finding](maxSubjects) // fails for sizes below 1 only
	return v
}

// item returns the one item with one of these prices that a subject is billed by, not
// read longer than maxAge ago.
func (v *resolver) item(ctx context.Context, subject string, prices []string, maxAge time.Duration) (p payer, err error) {
	err = v.resolve(ctx, subject, func(f finding) (err error) {
		p, err = v.pick(subject, prices, f)
		return err
	}, func() string {
		now := time.Now()
		age := now.Sub(p.read)
		if age > maxAge || p.contract.end <= now.Unix() && age > rollTime {
			return p.contract.id
		}
		return ""
	})
	return p, err
}

// customer returns the one customer that a subject is billed as.
func (v *resolver) customer(ctx context.Context, subject string) (id string, err error) {
	err = v.resolve(ctx, subject, func(f finding) (err error) {
		id, err = v.pickCustomer(subject, f)
		return err
	}, func() string { return "" })
	return id, err
}

// resolve looks a subject up until pick is content, or has seen what Stripe has now.
// stale names the subscription to read again.
func (v *resolver) resolve(ctx context.Context, subject string, pick func(finding) error, stale func() string) error {
	if err := v.resolvable(subject); err != nil {
		return err
	}
	end, err := v.turns.take(ctx, subject)
	if err != nil {
		return errUnsent(err)
	}
	defer end()
	f, known := v.known.Get(subject)
	age, missing := time.Since(f.at), pick(f)
	if !known || age > subjectTTL || missing != nil && age >= missTTL {
		if f.contracts, err = v.lookUp(ctx, subject); err != nil {
			return err
		}
		f.at = time.Now()
		v.known.Add(subject, f)
		missing = pick(f)
	}
	if missing != nil {
		return missing
	}
	if id := stale(); id != "" {
		if f, err = v.again(ctx, subject, f, id); err != nil {
			return err
		}
		v.known.Add(subject, f)
		return pick(f)
	}
	return nil
}

// forget has the subject looked up anew.
func (v *resolver) forget(subject string) { v.known.Remove(subject) }

var stripeID = regexp.MustCompile(`^(cus|sub|si)_[A-Za-z0-9_]{1,250}$`)

// resolvable rejects a subject that leads to nobody whatever Stripe has.
func (v *resolver) resolvable(subject string) error {
	reject := func(why string) error {
		return fmt.Errorf("%w: stripesink: not sent: subject %q %s", sink.ErrRejected, stripeapi.Clean(subject, v.key), why)
	}
	switch {
	case stripeID.MatchString(subject):
		return nil
	case v.metadata == "":
		return reject(`is no ID of Stripe's ("cus_…", "sub_…", "si_…"); identify callers by one, or set SubjectMetadata to the field of subscriptions that holds yours`)
	case !stripeapi.Searchable(subject):
		return reject("has characters that can't be searched for: use up to 200 letters, digits and . _ : @ + / = -")
	}
	return nil
}

// waits reports whether err is about the record alone, so that others need not wait.
func waits(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrAmbiguous) || errors.Is(err, sink.ErrRejected)
}
