package httpsink

import (
	"context"
	"slices"
	"sync"

	"github.com/inprocess/meter/sink"
)

// turns lets one request at a time deal with an ID, and with a subject's use of a
// feature.
//
// Concurrency: safe.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the turn is over
}

// take waits until all records are this caller's alone. It takes their names in order,
// so that two callers never wait for each other.
func (t *turns) take(ctx context.Context, records []sink.Record) (end func(), err error) {
	names := make([]string, 0, 2*len(records))
	for _, r := range records {
		names = append(names, "id "+r.ID, "use "+r.Feature+"\x00"+r.Subject)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for i, name := range names {
		if err := t.one(ctx, name); err != nil {
			t.end(names[:i])
			return nil, err
		}
	}
	return func() { t.end(names) }, nil
}

func (t *turns) one(ctx context.Context, name string) error {
	for {
		t.mu.Lock()
		over, busy := t.taken[name]
		if !busy {
			if t.taken == nil {
				t.taken = map[string]chan struct{}{}
			}
			t.taken[name] = make(chan struct{})
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *turns) end(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		close(t.taken[name])
		delete(t.taken, name)
	}
}
