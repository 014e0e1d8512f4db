package httpsink

import (
	"errors"
	"sync"

	"github.com/inprocess/meter/sink"
)

// maxApart bounds how many IDs are remembered.
const maxApart = 10_000

// errWhole marks the refusal of a batch as a whole, for what may be one record's fault.
var errWhole = errors.New("the batch was refused as a whole, so its records are sent one by one")

// apart has the records whose batch was refused as a whole. Each is sent by itself from
// then on, so that one that the server can't read doesn't hold up the others. It is
// memory: forgetting costs one more refusal.
//
// Concurrency: safe.
type apart struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

func (a *apart) has(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.ids[id]
	return ok
}

// settle notes what has become of the records with these IDs.
func (a *apart) settle(ids []string, errs []error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, id := range ids {
		switch err := errs[i]; {
		case errors.Is(err, errWhole):
			if len(a.ids) >= maxApart {
				a.ids = nil
			}
			if a.ids == nil {
				a.ids = map[string]struct{}{}
			}
			a.ids[id] = struct{}{}
		case err == nil, errors.Is(err, sink.ErrRejected):
			delete(a.ids, id)
		}
	}
}
