package sinktest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
)

// rule is one thing that a sink must do. why says what breaking it costs.
type rule struct {
	name, why string
	check     func(*trial)
}

// rules in the order of a reader's interest: the plain cases first.
var rules = []rule{
	limitsRule, validateRule, prepareRule,
	totalsRule, batchRule, windowsRule, dimensionsRule, usageRule,
	bigRule, levelsRule, subjectsRule, idsRule,
	unchangedRule, retainedRule, concurrencyRule,
	repeatedRule, restartRule, laterAttemptRule, retryRule,
	unknownKindRule, kindsRule, mixedRule,
	endedRule, unreachableRule, lostReplyRule, stalledRule,
}

func known(name string) bool {
	for _, r := range rules {
		if r.name == name {
			return true
		}
	}
	return false
}

// kit makes IDs and subjects that no rule and no earlier run has used.
type kit struct {
	Harness
	token    string // of this run
	records  int
	subjects int
	start    time.Time
}

func newKit(h Harness) *kit {
	return &kit{
		Harness: h,
		token:   strings.ToLower(rand.Text())[:12],
		// A little ago: billers refuse usage of the future, and of long ago.
		start: time.Now().UTC().Truncate(time.Second).Add(-2 * time.Minute),
	}
}

// try returns why the rule was skipped, or how it was broken.
func (k *kit) try(t testing.TB, r rule) (skipped string, err error) {
	if reason, ok := k.Skip[r.name]; ok {
		return reason, nil
	}
	tr := &trial{kit: k, t: t}
	tr.run(func() {
		tr.open(k.New(t))
		r.check(tr)
	})
	if tr.broken == nil {
		return tr.skipped, nil
	}
	return "", fmt.Errorf("sinktest: %s: %w\n\trule: %s", r.name, errors.Join(tr.broken...), r.why)
}

// giveUp ends a rule: what would follow makes no sense any more.
type giveUp struct{}

// run calls f up to its end, or to where the trial gives up.
func (tr *trial) run(f func()) {
	defer func() {
		p := recover()
		if _, ok := p.(giveUp); p != nil && !ok {
			panic(p)
		}
	}()
	f()
}

// trial is one rule being tried.
type trial struct {
	*kit
	t       testing.TB
	sink    sink.Sink
	limits  sink.Limits
	kinds   []sink.Kind
	kind    sink.Kind // what the rules count in: Sum if the sink takes it
	broken  []error
	skipped string
}

func (tr *trial) failf(format string, args ...any) {
	tr.broken = append(tr.broken, fmt.Errorf(format, args...))
}

func (tr *trial) fatalf(format string, args ...any) {
	tr.failf(format, args...)
	panic(giveUp{})
}

func (tr *trial) skip(reason string) {
	tr.skipped = reason
	panic(giveUp{})
}

// open does with s what a meter does while it opens.
func (tr *trial) open(s sink.Sink) {
	if s == nil {
		tr.fatalf("the harness returned a nil sink")
	}
	tr.sink, tr.limits, tr.kinds = s, sink.Limits{}, allKinds
	if l, ok := s.(sink.Limiter); ok {
		tr.limits = l.Limits()
	}
	if c, ok := s.(sink.Combiner); ok {
		tr.kinds = c.Kinds()
	}
	tr.kind = sink.Sum
	if !tr.takes(sink.Sum) && len(tr.kinds) > 0 {
		tr.kind = tr.kinds[0]
	}
	if v, ok := s.(sink.Validator); ok {
		// Its error is judged by a rule; here it only has to have been called.
		_ = v.Validate()
	}
}

var allKinds = []sink.Kind{sink.Sum, sink.Max, sink.Last}

func (tr *trial) takes(kind sink.Kind) bool {
	for _, k := range tr.kinds {
		if k == kind {
			return true
		}
	}
	return false
}

func (tr *trial) needsSum() {
	if !tr.takes(sink.Sum) {
		tr.skip("the sink doesn't take Sum")
	}
}

func (tr *trial) needsDedupe() {
	if tr.limits.DedupeWindow <= 0 {
		tr.skip("the sink states no Limits.DedupeWindow: meter never sends a doubtful record again")
	}
}

func (k *kit) feature(kind sink.Kind) string {
	if k.Feature != nil {
		return k.Feature(kind)
	}
	return "sinktest-" + kind.String()
}

func (tr *trial) subject() string {
	tr.subjects++
	if tr.Subject != nil {
		return tr.Subject(tr.t, tr.subjects-1)
	}
	return fmt.Sprintf("sinktest-%s-%d", tr.token, tr.subjects)
}

func (k *kit) id() string {
	k.records++
	return fmt.Sprintf("sinktest-%s-%d", k.token, k.records)
}

// width of the kit's windows: as short as the sink's limits let them be.
func (tr *trial) width() time.Duration {
	whole := (tr.limits.MinWindow + time.Second - 1).Truncate(time.Second)
	return max(whole, time.Second)
}

// record is a first attempt in the kit's first window. Wider windows begin earlier,
// for the rules need some of them before now.
func (tr *trial) record(kind sink.Kind, subject string, quantity int64) sink.Record {
	width := tr.width()
	start := tr.start.Add(-10 * (width - time.Second))
	return sink.Record{
		ID: tr.id(), Feature: tr.feature(kind), Subject: subject, Kind: kind, Quantity: quantity,
		Start: start, End: start.Add(width), Attempt: 1,
	}
}

// again is r on its next attempt, after one that may have been recorded.
func again(r sink.Record) sink.Record {
	r = afresh(r)
	r.Doubt = true
	return r
}

// afresh is r on its next attempt, after one that surely was not recorded.
func afresh(r sink.Record) sink.Record {
	r.Attempt++
	return r
}

// window moves r n windows on.
func window(r sink.Record, n int) sink.Record {
	width := r.End.Sub(r.Start)
	r.Start, r.End = r.Start.Add(time.Duration(n)*width), r.End.Add(time.Duration(n)*width)
	return r
}

// wantTotal compares the biller's books with what was delivered for r's subject.
func (tr *trial) wantTotal(r sink.Record, want int64, after string) {
	if got := tr.Total(tr.t, r.Feature, r.Subject); got != want {
		tr.failf("after %s the biller has %d for subject %q, want %d", after, got, r.Subject, want)
	}
}
