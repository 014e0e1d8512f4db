package signed

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inprocess/meter/license"
)

// Terms turn licenses into verdicts.
//
// Concurrency: read-only; Subject must be safe.
type Terms struct {
	Features        map[string]int // feature → F1 to F8
	FeatureTemplate bool           // what is not in Features must be in cryptolens_features
	Subject         func(License) string
	TimeLimited     int // 0: every license ends at Expires; 1 to 8: those with that flag; Perpetual: none
}

// Perpetual, as Terms.TimeLimited: Expires does not matter.
const Perpetual = -1

// Validate says what is wrong with the terms, each by its field.
func (t Terms) Validate(fault func(field string, err error)) {
	for feature, n := range t.Features {
		if feature == "" {
			fault("Features", errors.New("has an entry without a feature: use the name given to Meter.Feature"))
		}
		if n < 1 || n > 8 {
			fault(fmt.Sprintf("Features[%q]", feature), fmt.Errorf("is %d: it must be 1 to 8, for F1 to F8", n))
		}
	}
	if t.TimeLimited < Perpetual || t.TimeLimited > 8 {
		fault("TimeLimited", fmt.Errorf("is %d: it must be 1 to 8, for F1 to F8, 0 for every license, or Perpetual", t.TimeLimited))
	}
}

// Verdict is what l says about q at now. It looks at blocking first, then at expiry,
// the feature, and the machine.
//
// Errors: unknown: ErrMasked, ErrTemplate, no Subject.
func (t Terms) Verdict(l *License, q license.Query, now time.Time) (license.Verdict, error) {
	subject, err := t.subject(l)
	if err != nil {
		return license.Verdict{}, err
	}
	denied := func(why license.Reason) (license.Verdict, error) {
		return license.Verdict{Status: license.Denied, Reason: why, Subject: subject}, nil
	}
	if err := l.need(hasBlock, "Block"); err != nil {
		return license.Verdict{}, err
	}
	if l.Block {
		return denied(license.Blocked)
	}
	until, err := t.until(l)
	if err != nil {
		return license.Verdict{}, err
	}
	if !until.IsZero() && !now.Before(until) {
		return denied(license.Expired)
	}
	entitled, err := t.feature(l, q.Feature)
	if err == nil && entitled {
		entitled, err = activated(l, q.Machine, now)
	}
	if err != nil {
		return license.Verdict{}, err
	}
	if !entitled {
		return denied(license.NotEntitled)
	}
	return license.Verdict{Status: license.Allowed, Subject: subject, Until: until}, nil
}

func (t Terms) subject(l *License) (string, error) {
	if t.Subject == nil {
		if l.GlobalID <= 0 {
			return "", fmt.Errorf("the license %w: GlobalId", ErrMasked)
		}
		return strconv.FormatInt(l.GlobalID, 10), nil
	}
	subject := t.Subject(*l)
	switch {
	case subject == "":
		return "", fmt.Errorf("the function Subject names nobody to bill for license %d", l.GlobalID)
	case reveals(subject, l.Key.Reveal()):
		return "", fmt.Errorf("the function Subject returned the key of license %d, which is a secret: bill by another name", l.GlobalID)
	}
	return subject, nil
}

// reveals lets subjects alone that hold a very short key by chance.
func reveals(subject, key string) bool {
	return subject == key || len(key) >= 8 && strings.Contains(subject, key)
}

// until is when l ends; zero: it doesn't.
func (t Terms) until(l *License) (time.Time, error) {
	if t.TimeLimited == Perpetual {
		return time.Time{}, nil
	}
	if t.TimeLimited > 0 {
		if limited, err := l.Feature(t.TimeLimited); err != nil || !limited {
			return time.Time{}, err
		}
	}
	return l.Expires, l.need(hasExpires, "Expires")
}

func (t Terms) feature(l *License, feature string) (bool, error) {
	if feature == "" {
		return true, nil
	}
	if n, ok := t.Features[feature]; ok {
		return l.Feature(n)
	}
	has, listed, err := l.Templated(feature)
	return has || !listed && !t.FeatureTemplate, err
}

// Prefixes of machines that hold a floating seat.
const (
	floating  = "floating:"
	overdraft = "floating:overdraft:"
)

// activated says whether machine, if any, is one that l was activated for.
func activated(l *License, machine string, now time.Time) (bool, error) {
	if machine == "" {
		return true, nil
	}
	if err := l.need(hasMaxNoOfMachines, "MaxNoOfMachines"); err != nil {
		return false, err
	}
	if l.MaxNoOfMachines == 0 { // any number, none of which Cryptolens remembers
		return true, nil
	}
	if err := l.need(hasMachines, "ActivatedMachines"); err != nil {
		return false, err
	}
	return slices.ContainsFunc(l.ActivatedMachines, func(m Machine) bool {
		if !m.FloatingExpires.IsZero() && !now.Before(m.FloatingExpires) {
			return false
		}
		seat, ok := strings.CutPrefix(m.Mid, overdraft)
		if !ok {
			seat = strings.TrimPrefix(m.Mid, floating)
		}
		return seat == machine
	}), nil
}
