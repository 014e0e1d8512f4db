package stripesink

import (
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/sink"
)

// trace is what this process knows of the attempts on a record in doubt. The zero
// value: nothing, for an earlier process made them.
type trace struct {
	payer string    // item or customer that may be billed for it
	moved int64     // the second that it was added to, instead of its own; 0: it was not
	since time.Time // when what leaves doubt was tried first
}

// traces remember records in doubt.
type traces struct{ open *lru.Cache[string, trace] }

func newTraces() traces {
	open, _ := lru.New[string, trace](maxTraces) // fails for sizes below 1 only
	return traces{open}
}

const maxTraces = 100_000

// of returns what is known of r. Where there is no doubt, also because an operator has
// decided so, earlier attempts don't matter.
func (t traces) of(r sink.Record) trace {
	if !r.Doubt {
		return trace{}
	}
	known, _ := t.open.Get(r.ID)
	return known
}

// note keeps what an attempt on r was, if its answer leaves doubt.
func (t traces) note(r sink.Record, attempt trace, answer error) {
	switch {
	case answer == nil:
		t.open.Remove(r.ID)
	case errors.Is(answer, errDoubt):
		t.open.Add(r.ID, attempt)
	}
}
