package httpsink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/inprocess/meter/sink"
)

const jsonType = "application/json"

// batchJSON is the body of a request in the protocol's own form.
type batchJSON struct {
	Records []recordJSON `json:"records"`
}

// recordJSON has pointers where an absent member must not pass for a zero.
type recordJSON struct {
	ID         string            `json:"id"`
	Feature    string            `json:"feature"`
	Subject    string            `json:"subject"`
	Dimensions map[string]string `json:"dimensions,omitempty"`
	Kind       string            `json:"kind"`
	Quantity   *int64            `json:"quantity"`
	Start      time.Time         `json:"start"`
	End        time.Time         `json:"end"`
	Attempt    int               `json:"attempt"`
	Doubt      bool              `json:"doubt"`
	Backdated  bool              `json:"backdated,omitempty"`
	Instance   int               `json:"instance"`
}

func toJSON(r sink.Record) recordJSON {
	return recordJSON{
		ID: r.ID, Feature: r.Feature, Subject: r.Subject, Dimensions: r.Dimensions, Kind: r.Kind.String(), Quantity: &r.Quantity,
		Start: r.Start.UTC(), End: r.End.UTC(), Attempt: r.Attempt, Doubt: r.Doubt, Backdated: r.Backdated, Instance: r.Instance,
	}
}

// record says first what of j can't be a record at all.
func (j recordJSON) record() (sink.Record, error) {
	r := sink.Record{
		ID: j.ID, Feature: j.Feature, Subject: j.Subject, Dimensions: j.Dimensions,
		Start: j.Start.UTC(), End: j.End.UTC(), Attempt: max(j.Attempt, 1), Doubt: j.Doubt, Backdated: j.Backdated, Instance: j.Instance,
	}
	if len(r.Dimensions) == 0 {
		r.Dimensions = nil
	}
	kind, known := kindOf(j.Kind)
	switch {
	case !known:
		return r, fmt.Errorf("kind %q is unknown", cut(j.Kind))
	case j.Quantity == nil:
		return r, errors.New("it has no quantity")
	}
	r.Kind, r.Quantity = kind, *j.Quantity
	return r, check(r)
}

func kindOf(name string) (sink.Kind, bool) {
	for _, kind := range []sink.Kind{sink.Sum, sink.Max, sink.Last} {
		if kind.String() == name {
			return kind, true
		}
	}
	return 0, false
}

// check says why nobody could ever bill r. Both ends ask.
func check(r sink.Record) error {
	switch {
	case !plainID(r.ID):
		return errors.New("its ID is not 1 to 64 bytes of [0-9a-z-]")
	case r.Kind > sink.Last:
		return fmt.Errorf("kind %d is unknown", r.Kind)
	case r.Feature == "" || r.Subject == "":
		return errors.New("it has no feature or no subject")
	case r.Quantity < 0 || r.Quantity == 0 && r.Kind == sink.Sum:
		return fmt.Errorf("a quantity of %d is too small for kind %v", r.Quantity, r.Kind)
	case r.Quantity > maxQuantity:
		return fmt.Errorf("a quantity of %d is more than JSON carries exactly, 2^53-1", r.Quantity)
	case !r.End.After(r.Start):
		return errors.New("it does not end after its start")
	case r.Start.Year() < 1970 || r.End.Year() > 9999: // RFC 3339 writes no later ones
		return errors.New("its window is not within the years 1970 to 9999")
	}
	// JSON would replace bad bytes, and so bill two subjects as one.
	valid := utf8.ValidString(r.Feature) && utf8.ValidString(r.Subject)
	for name, value := range r.Dimensions {
		valid = valid && utf8.ValidString(name) && utf8.ValidString(value)
	}
	if !valid {
		return errors.New("feature, subject or a dimension is not UTF-8, so JSON can't hold it")
	}
	return nil
}

func plainID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 64
}

// decode reads exactly one JSON value into v. Members that it doesn't know are for
// later versions.
func decode(body []byte, v any) error {
	if !utf8.Valid(body) || halfCharacter(body) {
		return errors.New("it is not UTF-8, or escapes half a character")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("it is no JSON of the right form: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// halfCharacter reports an escape such as \ud83d without its other half, for which
// encoding/json would put the same character as for any other.
func halfCharacter(body []byte) bool {
	for {
		i := bytes.IndexByte(body, '\\')
		if i < 0 || i+1 >= len(body) {
			return false
		}
		body = body[i:]
		first, ok := escaped(body)
		switch {
		case !ok:
			body = body[2:]
		case !utf16.IsSurrogate(first):
			body = body[6:]
		default:
			second, _ := escaped(body[6:])
			if utf16.DecodeRune(first, second) == unicode.ReplacementChar {
				return true
			}
			body = body[12:]
		}
	}
}

// escaped reads a \u and its four hexadecimal digits at the start of body.
func escaped(body []byte) (rune, bool) {
	if len(body) < 6 || body[0] != '\\' || body[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(body[2:6]), 16, 16)
	return rune(n), err == nil
}

// entry is one record of a request, or why it can be none.
type entry struct {
	sink.Record
	fault error
}

func decodeBatch(body []byte) ([]entry, error) {
	var b struct {
		Records *[]recordJSON `json:"records"`
	}
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if b.Records == nil {
		return nil, errors.New("it has no records")
	}
	entries := make([]entry, len(*b.Records))
	for i, j := range *b.Records {
		entries[i].Record, entries[i].fault = j.record()
	}
	return entries, nil
}
