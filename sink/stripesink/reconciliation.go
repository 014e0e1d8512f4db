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

// ReconcileLine compares one of Stripe's totals: of a customer and meter, or of a
// subscription item and billing period. Quantities are whole units. Where Stripe keeps
// the last or highest value instead of adding up, so do they.
//
// Concurrency: a plain value.
type ReconcileLine struct {
	Feature string // all that share the total, separated by ", "
	Subject string // who is billed; several likewise

	Start, End time.Time // of the total: usage in [Start, End), UTC

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
	var b strings.Builder
	fmt.Fprintf(&b, "usage in %s UTC\n", timespan(r.Start, r.End))
	periods := slices.ContainsFunc(r.Lines, func(l ReconcileLine) bool { return !l.Start.Equal(r.Start) || !l.End.Equal(r.End) })
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(feature, subject, period string, cells ...string) {
		head := []string{feature, subject}
		if periods {
			head = append(head, period)
		}
		fmt.Fprintln(w, strings.Join(append(head, cells...), "\t"))
	}
	row("feature", "subject", "period", "accepted", "open", "voided", "billed", "difference")
	for _, l := range r.Lines {
		billed, difference := fmt.Sprint(l.Billed), fmt.Sprintf("%+d", l.Difference)
		if l.Err != nil {
			billed, difference = "?", "? "+oneLine(l.Err.Error())
		}
		row(oneLine(l.Feature), oneLine(l.Subject), timespan(l.Start, l.End),
			fmt.Sprint(l.Delivered), fmt.Sprint(l.Open), fmt.Sprint(l.Voided), billed, difference)
	}
	_ = w.Flush() // to memory
	fmt.Fprintf(&b, "%d of %d differ or are unknown. accepted: Stripe took it. billed: Stripe's total. difference: billed less accepted.\n",
		len(r.Differences()), len(r.Lines))
	return b.String()
}

// timespan prints [start, end), to the minute unless it is of odd seconds.
func timespan(start, end time.Time) string {
	layout := "2006-01-02 15:04"
	if start.Second() != 0 || end.Second() != 0 {
		layout = "2006-01-02 15:04:05"
	}
	return fmt.Sprintf("[%s, %s)", start.UTC().Format(layout), end.UTC().Format(layout))
}

// oneLine keeps a text from breaking the table.
func oneLine(text string) string {
	return strings.Join(strings.Fields(stripeapi.Clean(text, "")), " ")
}
