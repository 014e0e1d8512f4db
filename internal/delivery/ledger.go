package delivery

import (
	"context"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
)

// Ledger is what delivery needs of internal/ledger; see there for the meaning.
//
// Concurrency: must be safe.
type Ledger interface {
	Take(route, max int, hold func(sink.Feature) bool) (*Batch, error)
	Ready(route int) <-chan struct{}
	NextTry(route int) time.Time
	OpenRecords(route int) (records int, quantity int64)
	Postponed(route int) int
	SoonestEnd() time.Time
	EndWindowAt(route int, at time.Time)
	Doubts(route int) []ledger.Doubt
	Settle(ctx context.Context, route, recordID string, as sink.Outcome, note string) error
}

// Batch is a ledger's batch. Resolve is called exactly once.
//
// Concurrency: belongs to one attempt.
type Batch struct {
	Records []sink.Record
	Resolve func([]ledger.Result) error
}

// FromLedger makes l a [Ledger].
func FromLedger(l *ledger.Ledger) Ledger { return adapter{l} }

type adapter struct{ *ledger.Ledger }

func (a adapter) Take(route, max int, hold func(sink.Feature) bool) (*Batch, error) {
	batch, err := a.Ledger.Take(route, max, hold)
	if batch == nil {
		return nil, err
	}
	return &Batch{Records: batch.Records, Resolve: batch.Resolve}, err
}
