package meter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"
)

// closeGrace is what sinks and checker get to close when the caller's time is
// already up: enough to write a file, too little to miss a deadline by.
const closeGrace = 100 * time.Millisecond

// Shutdown delivers what it can until ctx ends, then seals and syncs what is left,
// unlocks the directory, and closes every sink and the Checker that implement
// io.Closer. New calls are refused at once; counts are accepted until the
// directory is sealed, and delivered as long as they don't keep coming. Stop the
// server first, then the meter, and don't pass the context of
// signal.NotifyContext: it has ended by then, and nothing would be delivered.
//
// Guarantee: sealed, synced and unlocked when it returns, even if ctx had ended
// before the call. What was not delivered goes out when the directory is opened
// again. A sink that hangs can't hold it up; such a sink may see Close while its
// Deliver still runs.
// Blocking: until ctx ends, plus the sync and at most 100 ms for Close. Later
// callers wait for the same end, as long as their own context lasts.
// Errors: *ShutdownError when something was left or went wrong.
func (m *Meter) Shutdown(ctx context.Context) error {
	mustHave(ctx, "Shutdown")
	if m.closing.CompareAndSwap(false, true) {
		m.stopErr = m.stop(ctx)
		close(m.stopped)
		return m.stopErr
	}
	select {
	case <-m.stopped:
		return m.stopErr
	default: // an end that is there beats a context that has ended
	}
	select {
	case <-m.stopped:
		return m.stopErr
	case <-ctx.Done():
		return &ShutdownError{Pending: m.openRecords(), Cause: ctx.Err()}
	}
}

func (m *Meter) stop(ctx context.Context) error {
	returned := make(chan error, 1)
	go func() { returned <- m.prepaid.Close(ctx) }() // beside what may take all the time
	caughtUp, flushed := m.catchUp(ctx)
	stopped := m.delivery.Stop(ctx)
	m.telemetry.stop()
	kept := <-returned // while the directory is still ours
	sealed := m.ledger.Close(ctx)
	closed := m.closeOwned(ctx)

	left := &ShutdownError{Pending: m.openRecords(), Durable: m.cfg.Dir != InMemory && sealed == nil}
	var late, lost error
	if left.Pending > 0 {
		if caughtUp {
			late = errLate
		}
		if lost = m.home.gone(); lost != nil {
			left.Durable = false
		}
	}
	left.Cause = distinct(late, flushed, stopped, kept, sealed, lost, closed)
	if left.Pending > 0 && left.Cause == nil {
		left.Cause = ctx.Err()
	}
	if left.Pending == 0 && left.Cause == nil {
		return nil
	}
	return left
}

// errLate: who calls Shutdown must know whose fault it is that something is left.
var errLate = errors.New("counted while shutting down: stop what counts first")

// shutdownPasses bounds how often Shutdown goes back for counts that came while it
// delivered, for they may never end.
const shutdownPasses = 4

// catchUp delivers what is there, and goes back for what was counted meanwhile. It
// reports whether everything was delivered at some moment.
func (m *Meter) catchUp(ctx context.Context) (caughtUp bool, err error) {
	var before int64
	for range shutdownPasses {
		if ctx.Err() != nil {
			return caughtUp, nil
		}
		if err := m.ledger.Rotate(ctx); err != nil {
			return caughtUp, err
		}
		// Not being open says little, for a dispatcher may have been quick.
		now := m.accepted()
		if caughtUp && now == before && m.openRecords() == 0 {
			return true, nil
		}
		before = now
		if err := m.delivery.Flush(ctx); err != nil {
			return caughtUp, err
		}
		caughtUp = true
	}
	return caughtUp, nil
}

// joinType is what errors.Join returns.
var joinType = reflect.TypeOf(errors.Join(io.EOF))

// distinct joins errors, each text once: several parts of a shutdown tell that the
// same time is up. It calls no method of an error that a sink's Close returned.
func distinct(errs ...error) error {
	var all []error
	told := map[string]bool{}
	var add func(error)
	add = func(err error) {
		if err == nil {
			return
		}
		if reflect.TypeOf(err) == joinType {
			for _, part := range err.(interface{ Unwrap() []error }).Unwrap() {
				add(part)
			}
			return
		}
		if text := fmt.Sprint(err); !told[text] { // fmt survives what panics
			told[text] = true
			all = append(all, err)
		}
	}
	for _, err := range errs {
		add(err)
	}
	return errors.Join(all...)
}

// accepted sums up all units, over the routes.
func (m *Meter) accepted() (n int64) {
	for _, l := range m.ledger.Books() {
		n += l.Accepted
	}
	return n
}

// openRecords counts what the routes still owe.
func (m *Meter) openRecords() (n int64) {
	for i := range m.routes {
		records, _ := m.ledger.OpenRecords(i)
		n += int64(records)
	}
	return n
}

// closeOwned closes what Open was handed. Nobody else can: sinks and checkers are
// usually built inside the Config.
func (m *Meter) closeOwned(ctx context.Context) error {
	var owned []io.Closer
	for _, r := range m.routes {
		if c, ok := r.sink.(io.Closer); ok {
			owned = append(owned, c)
		}
	}
	if c, ok := m.cfg.Checker.(io.Closer); ok {
		owned = append(owned, c)
	}
	owned = append(owned, m.balances()...)
	if len(owned) == 0 {
		return nil
	}
	done := make(chan error, len(owned)) // buffered: a late one must not leak
	for _, c := range owned {
		go func() {
			var err error
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("meter: %T panicked in Close: %v", c, p)
				}
				done <- err
			}()
			err = c.Close()
		}()
	}
	end := ctx.Done()
	if ctx.Err() != nil {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
		defer cancel()
		end = grace.Done()
	}
	var err error
	for range owned {
		select {
		case e := <-done:
			err = errors.Join(err, e)
		case <-end:
			return errors.Join(err, errors.New("meter: a sink or checker has not closed in time"))
		}
	}
	return err
}
