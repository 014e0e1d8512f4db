package stripesink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"golang.org/x/time/rate"
)

// series is whose usage of what. Several may lead to one account.
type series struct{ feature, subject string }

// account is one of Stripe's totals, and what a ledger has that belongs in it.
type account struct {
	total      string // what names the total; "": nothing, for err
	subject    string // as Stripe bills it
	start, end int64  // seconds that belong in it
	way        way
	read       func(context.Context) (int64, error)
	err        error // why there is nothing to ask for

	features, subjects      []string // all that lead here
	delivered, open, voided fold
}

// reconciler compares a ledger's records with Stripe's totals.
type reconciler struct {
	second func(sink.Record) int64                              // at which a record stands with Stripe
	find   func(ctx context.Context, first sink.Record) account // that the series of a record leads to
}

// errUnread marks what was not read because the context ended.
var errUnread = errors.New("stripesink: not read")

// paceOf lets a reconciliation through so many times a second, by the key's mode.
func paceOf(key string, live, test rate.Limit) *rate.Limiter {
	if stripeapi.Live(key) {
		return rate.NewLimiter(live, 1)
	}
	return rate.NewLimiter(test, 1)
}

// turn waits until the pace lets one through.
func turn(ctx context.Context, pace *rate.Limiter) error {
	if err := pace.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	return nil
}

// run goes over the records twice: to find out about whom Stripe must be asked, and,
// when it has answered whose usage belongs where, to add up. So it holds no more than
// a few numbers for each series, and keeps nobody's iterator waiting for the network.
func (c reconciler) run(ctx context.Context, records iter.Seq2[sink.Record, sink.Outcome], start, end time.Time) (Reconciliation, error) {
	done := Reconciliation{Start: start, End: end}
	if records == nil {
		return done, errors.New("stripesink: no records to compare: Meter.Records gave an error instead")
	}
	if !end.After(start) {
		return done, errNoTime(start, end)
	}
	of, accounts := c.accounts(ctx, c.firsts(records, start.Unix(), end.Unix()))
	again := false
	for r, outcome := range records {
		if a := of[series{r.Feature, r.Subject}]; a != nil {
			again = true
			a.add(r, c.second(r), outcome)
		}
	}
	if len(accounts) > 0 && !again {
		return done, errors.New("stripesink: the records could be ranged over only once: Reconcile does it twice")
	}
	var ended error
	for _, a := range accounts {
		line := a.line()
		if line.Err = a.err; line.Err == nil {
			line.Billed, line.Err = a.read(ctx)
		}
		if errors.Is(line.Err, errUnread) {
			ended = line.Err
		}
		if line.Err == nil {
			line.Difference = line.Billed - line.Delivered
		}
		done.Lines = append(done.Lines, line)
	}
	if ended = cmp.Or(ended, ctx.Err()); ended != nil {
		return done, fmt.Errorf("stripesink: reconciling: %w", ended)
	}
	return done, nil
}

func errNoTime(start, end time.Time) error {
	return fmt.Errorf("stripesink: no time lies between %v and %v: end must be after start", start, end)
}

// firsts are the first record of each series that has any in [start, end).
func (c reconciler) firsts(records iter.Seq2[sink.Record, sink.Outcome], start, end int64) (firsts []sink.Record) {
	seen := map[series]bool{}
	for r := range records {
		of, at := series{r.Feature, r.Subject}, c.second(r)
		if at >= start && at < end && !seen[of] {
			seen[of] = true
			firsts = append(firsts, r)
		}
	}
	return firsts
}

// accounts finds those that the series lead to, each once, sorted.
func (c reconciler) accounts(ctx context.Context, firsts []sink.Record) (map[series]*account, []*account) {
	of, byTotal, all := map[series]*account{}, map[string]*account{}, []*account(nil)
	for _, r := range firsts {
		found := c.find(ctx, r)
		a := byTotal[found.total]
		if a == nil {
			a = &found
			all = append(all, a)
			if a.err == nil {
				byTotal[a.total] = a
			}
		}
		a.features, a.subjects = include(a.features, r.Feature), include(a.subjects, found.subject)
		of[series{r.Feature, r.Subject}] = a
	}
	slices.SortFunc(all, func(a, b *account) int {
		return cmp.Or(slices.Compare(a.features, b.features), slices.Compare(a.subjects, b.subjects))
	})
	return of, all
}

// include adds a name to sorted names, once.
func include(names []string, name string) []string {
	if at, found := slices.BinarySearch(names, name); !found {
		return slices.Insert(names, at, name)
	}
	return names
}

// add takes in a record that stands at a second.
func (a *account) add(r sink.Record, at int64, outcome sink.Outcome) {
	if at < a.start || at >= a.end {
		return
	}
	switch outcome {
	case sink.Delivered:
		a.delivered.add(a.way, at, r.Quantity)
	case sink.Voided:
		a.voided.add(a.way, at, r.Quantity)
	case sink.Superseded: // never sent, and never to be
	default:
		a.open.add(a.way, at, r.Quantity)
	}
}

func (a *account) line() ReconcileLine {
	return ReconcileLine{
		Feature: strings.Join(a.features, ", "), Subject: strings.Join(a.subjects, ", "),
		Start: time.Unix(a.start, 0).UTC(), End: time.Unix(a.end, 0).UTC(),
		Delivered: a.delivered.value(a.way), Open: a.open.value(a.way), Voided: a.voided.value(a.way),
	}
}
