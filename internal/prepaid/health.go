package prepaid

import (
	"errors"
	"fmt"
	"time"
)

// Health says what is wrong now.
func (p *Prepaid) Health() error {
	p.mu.Lock()
	var errs []error
	if p.failing != nil {
		errs = append(errs, fmt.Errorf("meter: the file of prepaid units can't be written, so none are drawn or returned: %w", p.failing))
	}
	if p.damaged > 0 {
		errs = append(errs, fmt.Errorf("meter: the file of prepaid units has %s: what some subjects have left may be wrong", count(p.damaged, "damaged line")))
	}
	undeclared := map[string]int{}
	for k, s := range p.found {
		if s.holds() {
			undeclared[k.feature]++
		}
	}
	p.mu.Unlock()
	for name, n := range undeclared {
		errs = append(errs, fmt.Errorf("meter: feature %q may hold prepaid units of %s, by an earlier process, and is not declared as prepaid: declare it, and what is not used is used or returned", name, count(n, "subject")))
	}
	return errors.Join(append(errs, p.troubles()...)...)
}

// troubles are those of accounts: of many alike, one.
func (p *Prepaid) troubles() (errs []error) {
	var failing, aside int
	var failed, first error
	var units int64
	for _, a := range p.accounts() {
		a.mu.Lock()
		if a.failure != nil {
			if failing++; failed == nil {
				failed = fmt.Errorf("feature %q, subject %q: %w", a.of.name, a.subject, a.failure)
			}
		}
		for _, d := range a.state.Aside {
			units += d.Units
			if aside++; first == nil {
				first = fmt.Errorf("%s (%d units, feature %q, subject %q, %v; %s)", d.ID, d.Units, a.of.name, a.subject, time.Unix(d.At, 0).UTC().Format(time.RFC3339), d.Why)
			}
		}
		a.mu.Unlock()
	}
	if failed != nil {
		errs = append(errs, fmt.Errorf("meter: prepaid units of %s can't be drawn or returned now; one: %w", count(failing, "subject"), failed))
	}
	if first != nil {
		errs = append(errs, fmt.Errorf("meter: %d prepaid units are in doubt, by %s: compare the balance with what was used, and decide by Meter.SettlePrepaid; one: %w", units, count(aside, "ID"), first))
	}
	return errs
}

func (p *Prepaid) noteFile(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, ErrClosed) {
		p.failing = err
	}
}
