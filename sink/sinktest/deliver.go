package sinktest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/inprocess/meter/sink"
)

const (
	patience = 10 * time.Second // for a Deliver whose context has ended
	callTime = 30 * time.Second // the default of Limits.Timeout
)

// answer of a sink for one record: what meter reads out of an error.
type answer uint8

const (
	delivered answer = iota
	rejected
	notApplied
	doubt
)

func (a answer) String() string {
	return [...]string{"nil (delivered)", "ErrRejected", "ErrNotApplied", "in doubt"}[a]
}

// deliver calls Deliver as meter does, with the time that the limits give.
func (tr *trial) deliver(records ...sink.Record) []answer {
	timeout := tr.limits.Timeout
	if timeout <= 0 {
		timeout = callTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return tr.deliverCtx(ctx, records...)
}

// deliverCtx returns one answer a record, and ends the rule where there is none.
func (tr *trial) deliverCtx(ctx context.Context, records ...sink.Record) []answer {
	err := tr.call(ctx, tr.sink, records)
	answers, fault := read(err, len(records))
	if fault != nil {
		tr.fatalf("%w", fault)
	}
	return answers
}

// must delivers, and ends the rule unless every answer is nil.
func (tr *trial) must(what string, records ...sink.Record) {
	for i, a := range tr.deliver(records...) {
		if a != delivered {
			tr.fatalf("%s: record %d of %d was answered %v, want nil", what, i+1, len(records), a)
		}
	}
}

// panicked is a panic of the sink as an error.
type panicked struct{ value any }

func (p panicked) Error() string { return fmt.Sprintf("Deliver panicked: %v", p.value) }

// call waits for Deliver no longer than patience after ctx has ended.
func (tr *trial) call(ctx context.Context, s sink.Sink, records []sink.Record) error {
	done := make(chan error, 1)
	go func() {
		err := error(panicked{"its goroutine ended (runtime.Goexit, or FailNow of a test)"})
		defer func() { done <- err }()
		defer func() {
			if p := recover(); p != nil {
				err = panicked{fmt.Sprintf("%v\n%s", p, debug.Stack())}
			}
		}()
		err = s.Deliver(ctx, records)
	}()
	select {
	case err := <-done:
		return tr.sift(err)
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return tr.sift(err)
	case <-timer.C:
		tr.fatalf("Deliver did not return within %v after its context had ended: "+
			"it must honor ctx, for meter sends nothing else for its records meanwhile", patience)
		return nil
	}
}

// sift ends the rule on a panic: a sink that panics gives no answer.
func (tr *trial) sift(err error) error {
	if p, ok := errors.AsType[panicked](err); ok {
		tr.fatalf("%w: a sink must return an error; what a panicking call recorded, nobody knows", p)
	}
	return err
}

// read turns the error of a call for n records into answers.
func read(err error, n int) ([]answer, error) {
	answers := make([]answer, n)
	batch, ok := errors.AsType[*sink.BatchError](err)
	if !ok {
		a, fault := readOne(err)
		for i := range answers {
			answers[i] = a
		}
		return answers, fault
	}
	if batch == nil {
		return nil, errors.New("Deliver returned a nil *sink.BatchError as an error, which is not a nil error: " +
			"return the literal nil when all are delivered")
	}
	if len(batch.Errs) != n {
		return nil, fmt.Errorf("sink.BatchError has %d entries for %d records: it must have one per record, "+
			"nil for delivered; with any other length the whole batch is in doubt", len(batch.Errs), n)
	}
	for i, err := range batch.Errs {
		a, fault := readOne(err)
		if fault != nil {
			return nil, fault
		}
		answers[i] = a
	}
	return answers, nil
}

func readOne(err error) (answer, error) {
	isRejected, isNotApplied := errors.Is(err, sink.ErrRejected), errors.Is(err, sink.ErrNotApplied)
	switch {
	case err == nil:
		return delivered, nil
	case isRejected && isNotApplied:
		return doubt, fmt.Errorf("an error is both ErrRejected (final) and ErrNotApplied (sent again): %w", err)
	case isRejected:
		return rejected, nil
	case isNotApplied:
		return notApplied, nil
	}
	return doubt, nil
}

// agree compares an answer with the biller's books: whoever says delivered has
// it there, whoever says rejected or not applied has not.
func (tr *trial) agree(r sink.Record, a answer, after string) {
	switch a {
	case delivered:
		tr.wantTotal(r, r.Quantity, after+", answered "+a.String()+",")
	case rejected, notApplied:
		tr.wantTotal(r, 0, after+", answered "+a.String()+",")
	case doubt: // either is right
	}
}
