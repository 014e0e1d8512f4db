package stripesink

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
)

// Reconciliation compares what was delivered with what Stripe bills. The zero value
// compares nothing.
//
// Concurrency: a plain value.
type Reconciliation struct {
	Start, End time.Time       // usage in [Start, End), UTC
	Lines      []ReconcileLine // sorted by feature and subject
}

// ReconcileLine compares one customer's usage of one meter, or of what else Stripe
// totals. Quantities are whole units. Where Stripe keeps the last value instead of
// adding up, so do they.
//
// Concurrency: a plain value.
type ReconcileLine struct {
	Feature string // all that share the total, separated by ", "
	Subject string // who is billed

	Delivered int64 // accepted: Stripe answered that it took it
	Open      int64 // not settled here: pending, attempted, in doubt or rejected
	Voided    int64 // written off here; Stripe has it unless it was canceled
	Billed    int64 // Stripe's total

	Difference int64 // Billed less Delivered: negative, then Stripe bills too little
	Err        error // why Billed is unknown and, like Difference, 0; nil: it is known
}

// agrees reports whether there is nothing to look into.
func (l ReconcileLine) agrees() bool { return l.Err == nil && l.Difference == 0 }

// Differences are the lines that need a look: their totals differ, or Stripe's is
// unknown. None means that Stripe bills exactly what was delivered; see [ReconcileLine]
// Open for what was not.
func (r Reconciliation) Differences() []ReconcileLine {
	return slices.DeleteFunc(slices.Clone(r.Lines), ReconcileLine.agrees)
}

// String is a table of all lines for people to read. Its form may change.
func (r Reconciliation) String() string {
	const layout = "2006-01-02 15:04"
	var b strings.Builder
	fmt.Fprintf(&b, "usage in [%s, %s) UTC\n", r.Start.UTC().Format(layout), r.End.UTC().Format(layout))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "feature\tsubject\taccepted\topen\tvoided\tbilled\tdifference")
	for _, l := range r.Lines {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t", oneLine(l.Feature), oneLine(l.Subject), l.Delivered, l.Open, l.Voided)
		if l.Err != nil {
			fmt.Fprintf(w, "?\t? %s\n", oneLine(l.Err.Error()))
			continue
		}
		fmt.Fprintf(w, "%d\t%+d\n", l.Billed, l.Difference)
	}
	_ = w.Flush() // to memory
	fmt.Fprintf(&b, "%d of %d differ or are unknown. accepted: Stripe took it. billed: Stripe's total. difference: billed less accepted.\n",
		len(r.Differences()), len(r.Lines))
	return b.String()
}

// oneLine keeps a text from breaking the table.
func oneLine(text string) string {
	return strings.Join(strings.Fields(stripeapi.Clean(text, "")), " ")
}

func (t *tally) line() ReconcileLine {
	return ReconcileLine{
		Feature: strings.Join(t.features, ", "), Subject: t.customer,
		Delivered: t.delivered.value(t.meter), Open: t.open.value(t.meter), Voided: t.voided.value(t.meter),
	}
}
