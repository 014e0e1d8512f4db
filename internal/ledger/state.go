package ledger

import (
	"math"
	"time"

	"github.com/inprocess/meter/sink"
)

// state is one route's byte in a slot. Codes are for ever; an unknown one means
// in doubt.
type state byte

const (
	undecided    state = iota // sealed, but the route was not asked yet
	pending                   // to be sent
	attempted                 // being sent, or the process died while it was
	delivered                 // final
	inDoubt                   // sent again under the same ID while the sink dedupes
	rejected                  // final: an operator agreed
	voided                    // final
	moved                     // its quantity stands in a merged segment now
	superseded                // final: a Last with a newer one attempted
	unowed                    // the route did not match
	pendingHeld               // quarantined unsent: too old for the sink
	doubtHeld                 // quarantined: resending could bill twice
	rejectedHeld              // quarantined: the biller refused it
	damagedCount              // the count can't be trusted: never sent
	takenBack                 // quarantined: delivered once, and then the biller could not bill it
	stateCodes
)

// A route's byte has the state in its lower bits, and above them how often the
// record was queued anew under another ID.
const (
	stateBits = 5
	maxIssue  = 1<<(8-stateBits) - 1
)

// held reports whether the record waits in quarantine for an operator.
func (s state) held() bool {
	return s == pendingHeld || s == doubtHeld || s == rejectedHeld || s == takenBack
}

// sendable reports whether delivery may still have to send the record.
func (s state) sendable() bool { return s == pending || s == inDoubt }

// settled reports whether nothing will ever happen to the record on its route.
func (s state) settled() bool {
	switch s {
	case delivered, rejected, voided, moved, superseded, unowed, damagedCount:
		return true
	}
	return false
}

// outcome translates to the public word.
func (s state) outcome() sink.Outcome {
	switch s {
	case undecided, pending, pendingHeld:
		return sink.Pending
	case attempted:
		return sink.Attempted
	case delivered:
		return sink.Delivered
	case rejected, rejectedHeld, takenBack:
		return sink.Rejected
	case voided:
		return sink.Voided
	case superseded:
		return sink.Superseded
	}
	return sink.InDoubt
}

// outcomes is the part of a slot that belongs to delivery.
type outcomes struct {
	states [MaxRoutes]state
	issues [MaxRoutes]byte   // how often the record was queued anew under another ID
	first  [MaxRoutes]uint32 // unix seconds of the first attempt that may have been applied; 0: none
}

// unknownTime as first attempt: some other process made it, nobody knows when.
const unknownTime = math.MaxUint32

func (o *outcomes) put(b []byte, u uuid) {
	for i := range MaxRoutes {
		b[slotStates+i] = byte(o.states[i]) | o.issues[i]<<stateBits
		order.PutUint32(b[slotTimes+4*i:], o.first[i])
	}
	order.PutUint32(b[slotOutcome:], checksum(u, b[slotStates:blockSize]))
}

// getOutcomes reads them back. Bytes that fail their checksum may hide any
// attempt at any time: every route is then in doubt.
func getOutcomes(b []byte, u uuid) (o outcomes, intact bool) {
	if allZero(b[slotOutcome:blockSize]) {
		return o, true
	}
	if order.Uint32(b[slotOutcome:]) != checksum(u, b[slotStates:blockSize]) {
		for i := range MaxRoutes {
			o.states[i], o.first[i] = inDoubt, unknownTime
		}
		return o, false
	}
	for i := range MaxRoutes {
		code := b[slotStates+i]
		o.states[i], o.issues[i], o.first[i] = state(code&(1<<stateBits-1)), code>>stateBits, order.Uint32(b[slotTimes+4*i:])
		if o.states[i] >= stateCodes {
			o.states[i], o.first[i] = inDoubt, unknownTime
		}
	}
	return o, true
}

const (
	// dedupeMargin is kept from the sink's dedupe window: clocks differ, and a
	// window of "24 hours" is somebody else's promise.
	dedupeMargin = time.Hour
	// clockSlack is how far the wall clock may fall behind its high-water mark
	// before times are no longer believed; it lies well within dedupeMargin.
	clockSlack = 2 * time.Minute
)

// mayResend reports whether a record in doubt can be sent again without risk of
// being billed twice: only while the sink surely remembers its ID.
func mayResend(r *Route, first uint32, now, highWater time.Time) bool {
	if r.DedupeWindow == sink.Forever {
		return true
	}
	if r.DedupeWindow <= dedupeMargin || first == 0 || first == unknownTime {
		return false
	}
	at := time.Unix(int64(first), 0)
	if now.Before(highWater.Add(-clockSlack)) || now.Before(at) {
		return false
	}
	return now.Add(r.Timeout).Before(at.Add(r.DedupeWindow - dedupeMargin))
}

// afterAttempt is the state that one attempt's result leads to. Doubt is sticky:
// what one attempt proves says nothing about an earlier one.
func afterAttempt(result sink.Outcome, doubted bool) state {
	switch result {
	case sink.Delivered:
		return delivered
	case sink.Rejected:
		if doubted {
			return doubtHeld
		}
		return rejectedHeld
	case sink.Pending:
		if !doubted {
			return pending
		}
	}
	return inDoubt
}
