package stripeapi

import (
	"errors"
	"fmt"
	"regexp"
)

// A search is written in a language of its own, so that nothing which might mean
// something in it may get into one.
var (
	metadataField = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)
	searchable    = regexp.MustCompile(`^[A-Za-z0-9._:@+/=-]{1,200}$`)
)

// CheckMetadata tells what is wrong with the name of a metadata field, "" for none.
//
// Errors: the fault, to follow the field's name.
func CheckMetadata(field string) error {
	if field != "" && !metadataField.MatchString(field) {
		return errors.New("is no field that can be searched for: use up to 40 letters, digits and _ . -")
	}
	return nil
}

// Searchable reports whether value may stand in a search: 1 to 200 letters, digits
// and . _ : @ + / = -
func Searchable(value string) bool { return searchable.MatchString(value) }

// MetadataQuery is the search for what has a value in a metadata field. Both must have
// been checked.
func MetadataQuery(field, value string) string {
	return fmt.Sprintf("metadata['%s']:'%s'", field, value)
}
