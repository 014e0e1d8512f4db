package cryptolens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Reply is the JSON object that every method answers with.
//
// Concurrency: read-only.
type Reply struct {
	OK      bool   // result is 0
	Message string // may be empty
	Body    []byte // the whole reply, as it came
	fields  map[string]json.RawMessage
}

// Decode reads a reply. Property names are matched regardless of case.
//
// Errors: for anything that is not one JSON object with a result that is a whole
// number. A reply that may mean two things, for it has a property twice, means nothing.
func Decode(body []byte) (Reply, error) {
	r := Reply{Body: body}
	text := bytes.Trim(bytes.TrimPrefix(body, []byte("\ufeff")), " \t\r\n")
	switch {
	case len(text) == 0:
		return r, errors.New("the reply is empty")
	case text[0] == '<':
		return r, errors.New("the reply is a web page")
	case text[0] != '{' || !json.Valid(text):
		return r, errors.New("the reply is no JSON object")
	}
	var err error
	if r.fields, err = properties(text); err != nil {
		return r, err
	}
	// Without a pointer a missing result would read as 0, which is success.
	var result *int
	if err := r.Field("result", &result); err != nil {
		return r, err
	}
	if result == nil {
		return r, errors.New("the reply has no result")
	}
	if err := r.Field("message", &r.Message); err != nil {
		return r, err
	}
	r.OK = *result == 0
	return r, nil
}

// properties splits an object, which is valid, by its names in lower case.
func properties(object []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		name = strings.ToLower(name)
		if _, twice := fields[name]; twice {
			return nil, errors.New("the reply has a property twice")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		fields[name] = value
	}
	if _, err := d.Token(); err != nil && err != io.EOF {
		return nil, err
	}
	return fields, nil
}

// Field decodes the property with this name, in lower case, into v, which stays as
// it is if there is none.
//
// Errors: for a value that v can't hold; without the value.
func (r Reply) Field(name string, v any) error {
	raw, ok := r.fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("the reply's %s is of a wrong type", name)
	}
	return nil
}
