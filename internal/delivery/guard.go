package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// errGoexit stands for a sink that ended its goroutine instead of returning.
var errGoexit = errors.New("sink called runtime.Goexit")

// panicError is a sink's panic.
type panicError struct {
	text  string
	stack []byte
}

func (e *panicError) Error() string { return "sink panicked: " + e.text }

// guard calls a sink in a goroutine of its own, so that neither a panic nor
// runtime.Goexit reaches ours. It returns when the call has really ended.
func guard(call func() error) error {
	ended := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() {
			if p := recover(); p != nil {
				err = &panicError{text: fmt.Sprint(p), stack: debug.Stack()}
			}
			ended <- err
		}()
		err = call()
	}()
	return <-ended
}

// panicLog logs the stacks of a sink's panics: each message once, and few of
// them, for a message may hold an address that never repeats.
//
// Concurrency: safe.
type panicLog struct {
	log  *slog.Logger
	some rate.Sometimes
	mu   sync.Mutex
	seen map[string]struct{}
}

func newPanicLog(log *slog.Logger) *panicLog {
	return &panicLog{
		log:  log,
		some: rate.Sometimes{First: 3, Interval: time.Minute},
		seen: make(map[string]struct{}),
	}
}

// note logs err's stack if err is a panic that was not logged yet. It looks at
// nothing of a foreign error, whose methods may panic, too: here nobody recovers.
func (p *panicLog) note(err error) {
	const most = 64
	panicked, ok := err.(*panicError) // as guard returns it
	if !ok {
		return
	}
	p.mu.Lock()
	_, known := p.seen[panicked.text]
	known = known || len(p.seen) >= most
	log := false
	if !known {
		p.some.Do(func() { log = true })
	}
	if log {
		p.seen[panicked.text] = struct{}{}
	}
	p.mu.Unlock()
	if log {
		p.log.LogAttrs(context.Background(), slog.LevelError, "sink panicked",
			slog.String("panic", text(panicked)), slog.String("stack", string(panicked.stack)))
	}
}
