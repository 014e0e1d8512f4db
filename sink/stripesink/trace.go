package stripesink

import (
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/sink"
)

// trace is what this process knows of a record that is still open. The zero value says
// that no attempt so far can have been recorded.
type trace struct {
	payer   string    // item or customer of an attempt in doubt; "": none is
	moved   int64     // the second that it was added to, instead of its own; 0: it was not
	movedAt time.Time // and when that was tried first
}

// traces remember open records. What they forget, and what an earlier process did,
// counts as in doubt.
type traces struct{ open *lru.Cache[string, trace] }

func newTraces() traces {
	open, _ := lru.New[string, trace](maxTraces) // fails for sizes below 1 only
	return traces{open}
}

const maxTraces = 100_000

// of returns what is known of r; surely is false if it may have been recorded.
func (t traces) of(r sink.Record) (known trace, surely bool) {
	known, ok := t.open.Get(r.ID)
	return known, (ok || r.Attempt <= 1) && known.payer == ""
}

// doubt notes that an attempt on r may have been recorded.
func (t traces) doubt(r sink.Record, known trace) { t.open.Add(r.ID, known) }

// note draws the conclusion from the answers to records.
func (t traces) note(records []sink.Record, err error) {
	batch, apart := errors.AsType[*sink.BatchError](err)
	for i, r := range records {
		answer := err
		if apart {
			answer = batch.Errs[i]
		}
		known, surely := t.of(r)
		switch {
		case answer == nil || errors.Is(answer, sink.ErrRejected):
			t.open.Remove(r.ID)
		case errors.Is(answer, sink.ErrNotApplied) && surely:
			t.open.Add(r.ID, known)
		}
	}
}
