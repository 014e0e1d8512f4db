package ledger

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Longest names, in bytes.
const (
	MaxFeatureName    = 100
	MaxRouteName      = 48
	MaxSubject        = 256
	MaxDimensions     = 16
	MaxDimensionName  = 64
	MaxDimensionValue = 256
)

// checkName says what is wrong with a name; nil if it can be counted under.
func checkName(what, name string, longest int) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: %s is empty", ErrName, what)
	case len(name) > longest:
		return fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrName, what, len(name), longest)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %s is not valid UTF-8", ErrName, what)
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: %s has a control character (%q)", ErrName, what, r)
		}
	}
	return nil
}

func checkSeries(subject string, dimensions map[string]string) error {
	if err := checkName("subject", subject, MaxSubject); err != nil {
		return err
	}
	if len(dimensions) > MaxDimensions {
		return fmt.Errorf("%w: %d dimensions, at most %d are allowed", ErrName, len(dimensions), MaxDimensions)
	}
	for name, value := range dimensions {
		if err := checkName("dimension name", name, MaxDimensionName); err != nil {
			return err
		}
		if value == "" {
			continue
		}
		if err := checkName(fmt.Sprintf("dimension %q", name), value, MaxDimensionValue); err != nil {
			return err
		}
	}
	return nil
}
