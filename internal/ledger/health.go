package ledger

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// health collects what is wrong, by what it is wrong with, until it is cured.
type health struct {
	mu    sync.Mutex
	wrong map[string]error
}

func (h *health) set(what string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wrong == nil {
		h.wrong = make(map[string]error)
	}
	h.wrong[what] = err
}

func (h *health) clear(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.wrong, what)
}

func (h *health) all() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, what := range slices.Sorted(maps.Keys(h.wrong)) {
		errs = append(errs, h.wrong[what])
	}
	return errs
}

// Health joins everything that is wrong with the ledger now; nil when all is well.
func (l *Ledger) Health() error {
	errs := l.health.all()
	errs = append(errs, l.owedToNobody()...)
	if err := l.quarantined(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
