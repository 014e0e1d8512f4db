// Package sinktest tests sinks: it finds what would bill a customer twice, or
// never. Run it against every [sink.Sink] you write:
//
//	func TestConformance(t *testing.T) {
//		db := openTestDatabase(t)
//		sinktest.Run(t, sinktest.Harness{
//			New: func(testing.TB) sink.Sink { return newSink(db) },
//			Total: func(t testing.TB, feature, subject string) int64 {
//				return totalFromDatabase(t, db, feature, subject)
//			},
//		})
//	}
//
// Each rule is a subtest; a failure quotes the rule and says what breaking it
// costs. Fill in the optional fields of [Harness] where your biller is remote:
// how a sink names a refused connection, a lost reply or a call that never ends
// decides between a retry, a second bill and a case for an operator, and no
// other test finds that.
package sinktest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/inprocess/meter/sink"
)

// Harness connects the kit to a sink. New and Total are required. The kit calls
// its functions one after the other, and closes nothing: use t.Cleanup.
//
// The kit delivers under IDs and subjects that it never used before, so that the
// biller behind New may be a lasting one.
//
// Concurrency: read-only while a test runs.
type Harness struct {
	// New returns the sink under test, pointing at a biller that works. It is
	// called at least once a rule.
	New func(t testing.TB) sink.Sink
	// Total returns what the biller of the sink from the last New has for subject
	// on feature, in whole units, over all series and windows; 0 when it has
	// nothing. For Max and Last the kit asks only about single records.
	Total func(t testing.TB, feature, subject string) int64

	// Feature names the feature that the kit bills under kind; nil:
	// "sinktest-sum", "sinktest-max" and "sinktest-last".
	Feature func(kind sink.Kind) string
	// Subject returns the nth customer, for a biller that must know them
	// beforehand. Different for every n, and without usage; nil: made up.
	Subject func(t testing.TB, n int) string
	// Series is Total for one series alone. nil: the kit can't see whether
	// dimensions arrive.
	Series func(t testing.TB, feature, subject string, dimensions map[string]string) int64
	// Restart replaces s, which it may close, by a new sink for the same biller,
	// as after a restart of the process. nil: not tested.
	Restart func(t testing.TB, s sink.Sink) sink.Sink
	// Unreachable returns a sink whose biller refuses connections. nil: not
	// tested.
	Unreachable func(t testing.TB) sink.Sink
	// LostReply returns a sink for the biller of the last New that takes the
	// records of each call, then breaks the connection without an answer. nil:
	// not tested.
	LostReply func(t testing.TB) sink.Sink
	// Stalled is like LostReply, but keeps the connection and never answers. nil:
	// not tested.
	Stalled func(t testing.TB) sink.Sink
	// Skip names rules that don't hold for this sink, each with the reason.
	Skip map[string]string
}

// Run tests the sink, one subtest per rule.
//
// Blocking: as long as the sink takes; a call that ignores its context is given
// up, and left behind, after 10 s.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if err := h.validate(); err != nil {
		t.Fatal(err)
	}
	k := newKit(h)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			skipped, err := k.try(t, r)
			if err != nil {
				t.Error(err)
			} else if skipped != "" {
				t.Skip(skipped)
			}
		})
	}
}

// Check is [Run] for tests of a test: it returns the broken rules instead of
// failing t, which only serves the functions of h: nil will do where they don't
// need it.
//
// Blocking: as Run.
// Errors: one per broken rule, joined; nil when none is broken.
func Check(t testing.TB, h Harness) error {
	if err := h.validate(); err != nil {
		return err
	}
	k := newKit(h)
	var broken []error
	for _, r := range rules {
		_, err := k.try(t, r)
		broken = append(broken, err)
	}
	return errors.Join(broken...)
}

func (h Harness) validate() error {
	var faults []error
	if h.New == nil {
		faults = append(faults, errors.New("sinktest: Harness.New is nil: return the sink under test"))
	}
	if h.Total == nil {
		faults = append(faults, errors.New("sinktest: Harness.Total is nil: return what the biller has"))
	}
	for name, reason := range h.Skip {
		if !known(name) {
			faults = append(faults, fmt.Errorf("sinktest: Harness.Skip: there is no rule %q", name))
		}
		if reason == "" {
			faults = append(faults, fmt.Errorf("sinktest: Harness.Skip[%q]: give the reason", name))
		}
	}
	return errors.Join(faults...)
}
