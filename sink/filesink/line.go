package filesink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/inprocess/meter/sink"
)

// maxLine bounds a line, so that a file of anything can be read in bounded
// memory.
const maxLine = 64 << 10

// line has the fields in the order of the file.
type line struct {
	ID         string            `json:"id"`
	Feature    string            `json:"feature"`
	Subject    string            `json:"subject"`
	Dimensions map[string]string `json:"dimensions"`
	Kind       string            `json:"kind"`
	Quantity   int64             `json:"quantity"`
	Start      time.Time         `json:"start"`
	End        time.Time         `json:"end"`
	Attempt    int               `json:"attempt"`
}

// encode appends r's line to buf. Its error means that no file could ever hold r.
func encode(buf *bytes.Buffer, r sink.Record) error {
	if err := check(r); err != nil {
		return err
	}
	dimensions := r.Dimensions
	if dimensions == nil {
		dimensions = map[string]string{}
	}
	before := buf.Len()
	encoder := json.NewEncoder(buf)
	encoder.SetEscapeHTML(false) // the lines are not HTML, and people read them
	err := encoder.Encode(line{
		ID: r.ID, Feature: r.Feature, Subject: r.Subject, Dimensions: dimensions, Kind: r.Kind.String(),
		Quantity: r.Quantity, Start: r.Start.UTC(), End: r.End.UTC(), Attempt: r.Attempt,
	})
	if size := buf.Len() - before; err == nil && size > maxLine {
		err = fmt.Errorf("its line of %d bytes is longer than %d", size, maxLine)
	}
	if err != nil {
		buf.Truncate(before)
	}
	return err
}

func check(r sink.Record) error {
	if !plainID([]byte(r.ID)) {
		return fmt.Errorf("ID %q is not 1 to 64 bytes of [0-9a-z-]", r.ID)
	}
	if r.Kind > sink.Last {
		return fmt.Errorf("kind %d is unknown", r.Kind)
	}
	// JSON would replace bad bytes, and so bill two subjects as one.
	valid := utf8.ValidString(r.Feature) && utf8.ValidString(r.Subject)
	for name, value := range r.Dimensions {
		valid = valid && utf8.ValidString(name) && utf8.ValidString(value)
	}
	if !valid {
		return fmt.Errorf("feature, subject or a dimension is not UTF-8, so JSON can't hold it")
	}
	return nil
}

func plainID(text []byte) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return 0 < len(text) && len(text) <= 64
}

var lineStart = []byte(`{"id":"`)

// decode returns the ID of a line without its newline; false when it is no
// record.
func decode(text []byte) (id, bool) {
	// The lines that encode made; a reader of a million wants no reflection.
	if rest, ok := bytes.CutPrefix(text, lineStart); ok {
		if value, rest, ok := bytes.Cut(rest, []byte(`","feature":"`)); ok && plainID(value) && len(rest) > 0 {
			return idOf(value), json.Valid(text)
		}
	}
	var l struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text, &l); err != nil || l.ID == "" {
		return id{}, false
	}
	return idOf([]byte(l.ID)), true
}
