package signed

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inprocess/meter/license"
)

// License is what Cryptolens has signed about a key. A time is zero, and a text or
// number empty, where the answer has none. Its own words for the fields are on
// https://app.cryptolens.io/docs/api/v3/model/LicenseKey.
//
// Concurrency: read-only.
type License struct {
	ProductID         int64
	ID                int64       // of the key, within its product
	GlobalID          int64       // of the key, among all
	Key               license.Key // a secret
	Created           time.Time
	Expires           time.Time
	SignDate          time.Time
	Period            int64   // days
	F                 [8]bool // F1 is F[0]
	Notes             string
	Block             bool
	TrialActivation   bool
	Customer          *Customer // nil: none
	ActivatedMachines []Machine
	MaxNoOfMachines   int64 // 0: any number; none are then remembered
	AllowedMachines   []string
	DataObjects       []DataObject

	known fields
}

// Customer of a license.
//
// Concurrency: a plain value.
type Customer struct {
	ID                       int64
	Name, Email, CompanyName string
	Created                  time.Time
}

// Machine that was activated.
//
// Concurrency: a plain value.
type Machine struct {
	Mid             string // with the prefix "floating:" for a floating one
	IP              string // may have a port
	FriendlyName    string
	Time            time.Time
	FloatingExpires time.Time
}

// DataObject of a license.
//
// Concurrency: a plain value.
type DataObject struct {
	ID          int64
	Name        string
	StringValue string
	IntValue    int64
}

// fields that decide, and that a feature lock of the token may have masked.
type fields uint16

const (
	hasF1      fields = 1 << iota // F8 is hasF1<<7
	hasExpires fields = 1 << (iota + 7)
	hasBlock
	hasMachines
	hasMaxNoOfMachines
	hasDataObjects
)

// Feature says whether F1 to F8 is on.
//
// Errors: ErrMasked; n is none of them.
func (l *License) Feature(n int) (bool, error) {
	if n < 1 || n > 8 {
		return false, fmt.Errorf("a license has no F%d, only F1 to F8", n)
	}
	return l.F[n-1], l.need(hasF1<<(n-1), fmt.Sprintf("F%d", n))
}

func (l *License) need(f fields, name string) error {
	if l.known&f == 0 {
		return fmt.Errorf("the license %w: %s", ErrMasked, name)
	}
	return nil
}

// Bind says whether l is about this product and key. They are compared as they
// are, upper and lower case included.
//
// Errors: ErrProduct, ErrKey.
func (l *License) Bind(product int, key license.Key) error {
	if err := l.BindProduct(product); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(l.Key.Reveal()), []byte(key.Reveal())) != 1 {
		return fmt.Errorf("the license %w", ErrKey)
	}
	return nil
}

// BindProduct says whether l is about this product.
//
// Errors: ErrProduct.
func (l *License) BindProduct(product int) error {
	if l.ProductID != int64(product) {
		return fmt.Errorf("the license %w: %d, not %d", ErrProduct, l.ProductID, product)
	}
	return nil
}

// unix is a time in Unix seconds. null, 0 and negative numbers are the zero time:
// .NET's own zero is one of them.
type unix time.Time

const endOfTime = 253402300800 // the year 10000, which RFC 3339 can't write

func (u *unix) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if first(b) == '"' {
		return fmt.Errorf("the license %w", ErrISODates)
	}
	var seconds int64
	if err := json.Unmarshal(b, &seconds); err != nil || seconds >= endOfTime {
		return errors.New("a time is no number of Unix seconds")
	}
	if seconds > 0 {
		*u = unix(time.Unix(seconds, 0).UTC())
	}
	return nil
}

// wire is the JSON of a license. Unknown fields are of no concern: newer models of
// the Web API have more.
type wire struct {
	ProductID, ID, GlobalID        int64
	Key                            string
	Created, SignDate              unix
	Expires                        *unix
	Period                         int64
	F1, F2, F3, F4, F5, F6, F7, F8 *bool
	Notes                          string
	Block                          *bool
	TrialActivation                bool
	Customer                       *struct {
		ID                       int64
		Name, Email, CompanyName string
		Created                  unix
	}
	ActivatedMachines []struct {
		Mid, IP, FriendlyName string
		Time, FloatingExpires unix
	}
	MaxNoOfMachines *int64
	AllowedMachines string
	DataObjects     []struct {
		ID                int64
		Name, StringValue string
		IntValue          int64
	}
}

// parse reads what was signed.
func parse(message []byte) (*License, error) {
	var w wire
	if err := json.Unmarshal(message, &w); errors.Is(err, ErrISODates) {
		return nil, err
	} else if err != nil { // its text may quote the license
		return nil, malformed("what was signed is no JSON of a license")
	}
	switch {
	case w.Key == "":
		return nil, malformed("it names no Key")
	case w.ProductID <= 0:
		return nil, malformed("it names no ProductId")
	case time.Time(w.SignDate).IsZero():
		return nil, malformed("it has no SignDate")
	}
	l := &License{
		ProductID: w.ProductID, ID: w.ID, GlobalID: w.GlobalID,
		Key:     license.NewKey(w.Key),
		Created: time.Time(w.Created), SignDate: time.Time(w.SignDate),
		Period: w.Period, Notes: w.Notes, TrialActivation: w.TrialActivation,
	}
	for i, f := range []*bool{w.F1, w.F2, w.F3, w.F4, w.F5, w.F6, w.F7, w.F8} {
		take(l, hasF1<<i, &l.F[i], f)
	}
	take(l, hasExpires, &l.Expires, (*time.Time)(w.Expires))
	take(l, hasBlock, &l.Block, w.Block)
	take(l, hasMaxNoOfMachines, &l.MaxNoOfMachines, w.MaxNoOfMachines)
	if l.Expires.IsZero() { // "Expires":0 is no date that a license has
		l.known &^= hasExpires
	}
	if c := w.Customer; c != nil {
		l.Customer = &Customer{c.ID, c.Name, c.Email, c.CompanyName, time.Time(c.Created)}
	}
	for line := range strings.Lines(w.AllowedMachines) {
		if line = strings.TrimSpace(line); line != "" {
			l.AllowedMachines = append(l.AllowedMachines, line)
		}
	}
	if w.ActivatedMachines != nil {
		l.known |= hasMachines
	}
	for _, m := range w.ActivatedMachines {
		l.ActivatedMachines = append(l.ActivatedMachines, Machine{m.Mid, m.IP, m.FriendlyName, time.Time(m.Time), time.Time(m.FloatingExpires)})
	}
	if w.DataObjects != nil {
		l.known |= hasDataObjects
	}
	for _, o := range w.DataObjects {
		l.DataObjects = append(l.DataObjects, DataObject{o.ID, o.Name, o.StringValue, o.IntValue})
	}
	return l, nil
}

// take copies a field that is there.
func take[T any](l *License, field fields, to, from *T) {
	if from != nil {
		*to = *from
		l.known |= field
	}
}
