package cryptolenssink

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
)

// KeyFunc finds the license key that bills a subject, such as the Key method of meter's
// cache. An error, or the zero Key, means that there is none now; so do a panic, and no
// answer within 10 s. It must be safe for concurrent use; its error is shown in Health, so
// it must not hold the key.
type KeyFunc = func(ctx context.Context, subject string) (license.Key, error)

const (
	// findTime is how long a KeyFunc may take. It leaves time to send the record.
	findTime = 10 * time.Second
	// maxFinding bounds what a KeyFunc that ignores its context leaves behind.
	maxFinding = 16
)

// keys asks a KeyFunc. Nothing of the record was sent by then, so whatever that does
// leaves no doubt: it runs apart, where it may panic, end its goroutine, or hang.
type keys struct {
	find    KeyFunc
	running chan struct{} // of capacity maxFinding
}

func newKeys(find KeyFunc) keys { return keys{find, make(chan struct{}, maxFinding)} }

// of is the key of a record's subject.
//
// Errors: ErrPostponed; ErrNotApplied where ctx has ended.
func (k keys) of(ctx context.Context, r sink.Record) (license.Key, error) {
	key, err := k.ask(ctx, r.Subject)
	switch {
	case err != nil && ctx.Err() != nil:
		return license.Key{}, errUnsent(ctx.Err())
	case err != nil: // by its text: its own outcome, if it has one, is not the record's
		return license.Key{}, postpone(r, "no license key for subject %q: %s", r.Subject, err.Error())
	case key.IsZero():
		return license.Key{}, postpone(r, "no license key for subject %q", r.Subject)
	}
	return key, nil
}

func (k keys) ask(ctx context.Context, subject string) (license.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	select {
	case k.running <- struct{}{}:
	case <-ctx.Done():
		return license.Key{}, fmt.Errorf("%d calls of the KeyFunc have not returned", maxFinding)
	}
	type answer struct {
		key license.Key
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		a := answer{err: errors.New("the KeyFunc ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				a = answer{err: fmt.Errorf("the KeyFunc %s", panicked(p))}
			}
			<-k.running
			answered <- a
		}()
		a.key, a.err = k.find(ctx, subject)
		if a.err != nil {
			a = answer{err: errors.New(a.err.Error())} // an error that panics shall do it here
		}
	}()
	select {
	case a := <-answered:
		return a.key, a.err
	case <-ctx.Done():
		return license.Key{}, fmt.Errorf("the KeyFunc has not answered within %v", findTime)
	}
}

// panicked tells of a panic that is being recovered by where it was, without its text,
// which may hold a key; the runtime's own texts don't.
func panicked(value any) string {
	what := fmt.Sprintf("with a %T", value)
	if err, ok := value.(runtime.Error); ok {
		what = fmt.Sprintf("(%v)", err)
	}
	var callers [32]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for within, more := false, true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		own := strings.HasPrefix(f.Function, "runtime.")
		if within && !own {
			return fmt.Sprintf("panicked %s at %s:%d", what, filepath.Base(f.File), f.Line)
		}
		within = within || own
	}
	return "panicked " + what
}
