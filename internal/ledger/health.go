package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/inprocess/meter/sink"
)

// health collects what is wrong, by what it is wrong with, until it is cured.
type health struct {
	log   *slog.Logger
	mu    sync.Mutex
	wrong map[string]ailment
}

type ailment struct {
	err   error
	cured func() bool // nil: somebody calls clear
}

func (h *health) set(what string, err error) { h.setUntil(what, err, nil) }

// setUntil is set for what an operator cures behind our back.
func (h *health) setUntil(what string, err error, cured func() bool) {
	h.mu.Lock()
	if h.wrong == nil {
		h.wrong = make(map[string]ailment)
	}
	_, known := h.wrong[what]
	h.wrong[what] = ailment{err, cured}
	h.mu.Unlock()
	if !known {
		h.log.Warn(err.Error())
	}
}

func (h *health) clear(what string) {
	h.mu.Lock()
	before, known := h.wrong[what]
	delete(h.wrong, what)
	h.mu.Unlock()
	if known {
		h.log.Info("meter: no longer wrong", "was", before.err.Error())
	}
}

func (h *health) all() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, what := range slices.Sorted(maps.Keys(h.wrong)) {
		if a := h.wrong[what]; a.cured != nil && a.cured() {
			delete(h.wrong, what)
		} else {
			errs = append(errs, a.err)
		}
	}
	return errs
}

// Health joins everything that is wrong with the ledger now; nil when all is well.
func (l *Ledger) Health() error {
	errs := l.health.all()
	errs = append(errs, l.owedToNobody()...)
	errs = append(errs, l.copies()...)
	errs = append(errs, l.postponed()...)
	if err := l.quarantined(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// copies reports segments whose files are copies, while something is open in them.
func (l *Ledger) copies() (errs []error) {
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		if sd.copied && sd.unsettled > 0 {
			errs = append(errs, fmt.Errorf("meter: %s is a copy (restored, or cloned): its records are in doubt until an operator settles them; as %v if the original is gone for good", filepath.Base(sd.path), sink.Pending))
		}
		sd.mu.Unlock()
	}
	return errs
}
