package sinktest

import (
	"context"
	"time"

	"github.com/inprocess/meter/sink"
)

var repeatedRule = rule{
	name: "same ID again",
	why: "a sink that states a DedupeWindow must take an ID once and answer nil to every repetition: " +
		"counting it again bills twice, an error keeps it from ever being settled",
	check: func(tr *trial) {
		tr.needsDedupe()
		r := tr.record(tr.kind, tr.subject(), 3)
		tr.must("the first attempt", r)
		tr.must("the second attempt", again(r))
		tr.wantTotal(r, 3, "the same record twice")
		fresh := tr.record(tr.kind, tr.subject(), 5)
		if tr.limits.MaxBatch != 1 {
			tr.must("a repetition in a batch with a new record", again(again(r)), fresh)
			tr.wantTotal(fresh, 5, "a batch with a repetition")
		}
		tr.wantTotal(r, 3, "the same record three times")
	},
}

var restartRule = rule{
	name: "same ID after a restart",
	why: "records are sent again above all after a crash: what dedupes must be the biller, or on disk. " +
		"A set in memory is not a DedupeWindow",
	check: func(tr *trial) {
		if tr.Restart == nil {
			tr.skip("Harness.Restart is nil")
		}
		tr.needsDedupe()
		r := tr.record(tr.kind, tr.subject(), 3)
		tr.must("the first attempt", r)
		tr.open(tr.Restart(tr.t, tr.sink))
		tr.must("the second attempt, after a restart", again(r))
		tr.wantTotal(r, 3, "the same record before and after a restart")
	},
}

var laterAttemptRule = rule{
	name: "later attempt",
	why: "Doubt says that an earlier attempt may have been recorded, not that it was: " +
		"a record that the biller hasn't seen counts, whatever its Attempt and Doubt",
	check: func(tr *trial) {
		r := afresh(afresh(tr.record(tr.kind, tr.subject(), 7)))
		tr.must("a third attempt that is the first to be sent", r)
		tr.wantTotal(r, 7, "a third attempt that is the first to be sent")
		if tr.limits.DedupeWindow <= 0 {
			return // meter never sends a doubtful record again
		}
		doubted := again(again(tr.record(tr.kind, tr.subject(), 5)))
		tr.must("a third attempt that is the first to arrive", doubted)
		tr.wantTotal(doubted, 5, "a third attempt that is the first to arrive")
	},
}

var retryRule = rule{
	name: "retry after a failure",
	why: "an attempt that failed must not mark its ID as seen: " +
		"the next one would be answered as a repetition, and the record never billed",
	check: func(tr *trial) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r := tr.record(tr.kind, tr.subject(), 2)
		next := afresh(r)
		switch tr.deliverCtx(ctx, r)[0] {
		case delivered, rejected:
			tr.skip("a call with an ended context does not fail; another rule judges that")
		case doubt:
			tr.needsDedupe() // else meter wouldn't send it again
			next = again(r)
		case notApplied:
		}
		tr.must("the next attempt after one that failed", next)
		tr.wantTotal(r, 2, "an attempt that failed and one that did not")
	},
}

var unknownKindRule = rule{
	name: "unknown kind",
	why: "a kind that the sink does not know must be answered ErrRejected: " +
		"billed as something else, a later version's refund would be charged",
	check: func(tr *trial) {
		r := tr.record(tr.kind, tr.subject(), 9)
		r.Kind = sink.Kind(99)
		if a := tr.deliver(r)[0]; a != rejected {
			tr.failf("kind 99 was answered %v, want ErrRejected", a)
		}
		tr.wantTotal(r, 0, "a record of kind 99")
	},
}

var kindsRule = rule{
	name: "refused kinds",
	why:  "a kind that is not among the sink's Kinds must be answered ErrRejected: a Max billed as a Sum charges each minute anew",
	check: func(tr *trial) {
		if len(tr.kinds) >= len(allKinds) {
			tr.skip("the sink takes every kind")
		}
		for _, kind := range allKinds {
			if tr.takes(kind) {
				continue
			}
			r := tr.record(tr.kind, tr.subject(), 9)
			r.Kind = kind
			if a := tr.deliver(r)[0]; a != rejected {
				tr.failf("kind %v, which is not among Kinds, was answered %v, want ErrRejected", kind, a)
			}
			tr.wantTotal(r, 0, "a record of kind "+kind.String())
		}
	},
}

var mixedRule = rule{
	name: "mixed batch",
	why: "where a batch holds good and bad records, each answer must agree with what the biller has of that record: " +
		"one error for all says that none was recorded, nil says that all were",
	check: func(tr *trial) {
		if tr.limits.MaxBatch == 1 {
			tr.skip("the sink takes one record at a time")
		}
		good, bad, last := tr.record(tr.kind, tr.subject(), 2), tr.record(tr.kind, tr.subject(), 9), tr.record(tr.kind, tr.subject(), 4)
		bad.Kind = sink.Kind(99)
		answers := tr.deliver(good, bad, last)
		if answers[1] == delivered {
			tr.failf("kind 99 amid good records was answered nil, want ErrRejected")
		}
		tr.agree(good, answers[0], "a batch with a bad record")
		tr.wantTotal(bad, 0, "a record of kind 99 amid good ones")
		tr.agree(last, answers[2], "a batch with a bad record")
	},
}

var unreachableRule = rule{
	name: "refused connection",
	why: "a refused connection surely recorded nothing: ErrNotApplied, and the record is sent again. " +
		"As doubt it goes to quarantine wherever the sink states no DedupeWindow; as ErrRejected it is lost to an outage",
	check: func(tr *trial) {
		if tr.Unreachable == nil {
			tr.skip("Harness.Unreachable is nil")
		}
		tr.open(tr.Unreachable(tr.t))
		records := []sink.Record{tr.record(tr.kind, tr.subject(), 1)}
		if tr.limits.MaxBatch != 1 {
			records = append(records, tr.record(tr.kind, tr.subject(), 1))
		}
		for i, a := range tr.deliver(records...) {
			if a != notApplied {
				tr.failf("record %d of %d was answered %v, want ErrNotApplied", i+1, len(records), a)
			}
		}
	},
}

var lostReplyRule = rule{
	name: "lost reply",
	why: "when the biller took the records and its answer was lost, the outcome is in doubt: any error but ErrNotApplied, " +
		"which sends them again for a second bill, and ErrRejected, which calls them unbilled",
	check: func(tr *trial) {
		if tr.LostReply == nil {
			tr.skip("Harness.LostReply is nil")
		}
		tr.unanswered(tr.LostReply(tr.t), callTime)
	},
}

var stalledRule = rule{
	name: "stalled call",
	why: "a call that its context ended was sent, and may have been recorded: in doubt. " +
		"context.DeadlineExceeded as ErrNotApplied sends the record again for a second bill",
	check: func(tr *trial) {
		if tr.Stalled == nil {
			tr.skip("Harness.Stalled is nil")
		}
		tr.unanswered(tr.Stalled(tr.t), 200*time.Millisecond)
	},
}

// unanswered delivers through a sink that never hears its biller's answer, and
// then, where meter would, through one that does.
func (tr *trial) unanswered(deaf sink.Sink, timeout time.Duration) {
	hearing, limits := tr.sink, tr.limits
	r := tr.record(tr.kind, tr.subject(), 3)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tr.open(deaf)
	if a := tr.deliverCtx(ctx, r)[0]; a != doubt {
		tr.failf("a call that the biller took without an answer was answered %v, want an error that means doubt", a)
	}
	tr.sink, tr.limits = hearing, limits
	if limits.DedupeWindow <= 0 {
		return
	}
	tr.must("the next attempt", again(r))
	tr.wantTotal(r, 3, "a lost answer and another attempt")
}
