package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// errGoexit stands for a sink that ended its goroutine instead of returning.
var errGoexit = errors.New("sink called runtime.Goexit")

// panicError is a sink's panic, without its text, which may hold a key or a token.
type panicError struct {
	what  string
	at    [16]uintptr // the callers
	stack []byte
}

func newPanicError(value any) *panicError {
	e := &panicError{what: panicked(value), stack: debug.Stack()}
	runtime.Callers(2, e.at[:])
	return e
}

func (e *panicError) Error() string { return "sink " + e.what }

// panicked tells of a panic by the type of its value; the runtime's own texts are shown.
func panicked(value any) string {
	if err, ok := value.(runtime.Error); ok {
		return "panicked: " + message(err)
	}
	return fmt.Sprintf("panicked with a %T", value)
}

// guard calls a sink in a goroutine of its own, so that neither a panic nor
// runtime.Goexit reaches ours. It returns when the call has really ended.
func guard(call func() error) error {
	ended := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() {
			if p := recover(); p != nil {
				err = newPanicError(p)
			}
			ended <- err
		}()
		err = call()
	}()
	return <-ended
}

// panicLog logs the stacks of a sink's panics: each once, and few of them.
//
// Concurrency: safe.
type panicLog struct {
	log  *slog.Logger
	some rate.Sometimes
	mu   sync.Mutex
	seen map[[16]uintptr]struct{}
}

func newPanicLog(log *slog.Logger) *panicLog {
	return &panicLog{
		log:  log,
		some: rate.Sometimes{First: 3, Interval: time.Minute},
		seen: make(map[[16]uintptr]struct{}),
	}
}

// note logs err's stack if err is a panic that was not logged yet. It looks at
// nothing of a foreign error, whose methods may panic, too: here nobody recovers.
func (p *panicLog) note(err error) {
	const most = 64
	e, ok := err.(*panicError) // as guard returns it
	if !ok {
		return
	}
	p.mu.Lock()
	_, known := p.seen[e.at]
	known = known || len(p.seen) >= most
	log := false
	if !known {
		p.some.Do(func() { log = true })
	}
	if log {
		p.seen[e.at] = struct{}{}
	}
	p.mu.Unlock()
	if log {
		p.log.LogAttrs(context.Background(), slog.LevelError, "sink panicked",
			slog.String("panic", e.what), slog.String("stack", string(e.stack)))
	}
}
