package cryptolens

import (
	"context"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/inprocess/meter/license"
)

var errUnsigned = errors.New("the reply has no signed license")

// Owner is what data objects belong to: a key or, if Machine is set, one of its
// machines. All fields but Machine are required.
//
// Concurrency: a plain value.
type Owner struct {
	ProductID int
	Key       license.Key
	Machine   string
}

// Ref names a data object of an [Owner], by ID or by a name that only one has.
//
// Concurrency: a plain value.
type Ref struct {
	ID   int64  // 0: by Name
	Name string // "": by ID
}

// DataObject is a named text and number that the vendor keeps with a key or machine.
//
// Concurrency: a plain value.
type DataObject struct {
	ID     int64
	Name   string // at most 100 characters
	String string // at most 10,000 characters
	Int    int64  // of 32 bits
}

// limits of data objects, in characters.
const (
	maxName   = 100
	maxString = 10_000
)

// AddDataObject makes a data object, unless its owner has one of that name, and returns
// its ID. o.ID is not used.
//
// Errors: those named here; a name that is taken is refused in unknown words, so
// [ErrInDoubt].
func (c *Client) AddDataObject(ctx context.Context, of Owner, o DataObject) (id int64, err error) {
	q := c.dataQuery("AddDataObject", of)
	if n := utf8.RuneCountInString(o.Name); n < 1 || n > maxName {
		q.refuse("the data object's name has %d characters: it must have from 1 to %d", n, maxName)
	}
	q.text(o.String)
	q.form.Set("Name", o.Name)
	q.int("IntValue", "value", o.Int)
	q.form.Set("CheckForDuplicates", "true") // else the name would lead to neither
	reply, err := q.post(ctx, q.path("AddDataObject"))
	if err != nil {
		return 0, err
	}
	if err := reply.Field("id", &id); err != nil || id == 0 {
		return 0, &Error{Method: q.method, Message: "the reply has no ID", Err: ErrReply}
	}
	return id, nil
}

// DataObjects are those of an owner whose name contains a text; "": all.
//
// Errors: those named here.
func (c *Client) DataObjects(ctx context.Context, of Owner, contains string) ([]DataObject, error) {
	q := c.dataQuery("ListDataObjects", of)
	q.form.Set("Contains", contains)
	reply, err := q.post(ctx, q.path("ListDataObjects"))
	if err != nil {
		return nil, err
	}
	var rows []struct {
		ID          int64  `json:"id"`
		Name        string `json:"name"`
		StringValue string `json:"stringValue"`
		IntValue    int64  `json:"intValue"`
	}
	if err := reply.Field("dataobjects", &rows); err != nil { // none is [], null or absent
		return nil, &Error{Method: q.method, Message: err.Error(), Err: ErrReply}
	}
	var list []DataObject
	for _, r := range rows {
		list = append(list, DataObject{ID: r.ID, Name: r.Name, String: r.StringValue, Int: r.IntValue})
	}
	return list, nil
}

// SetInt sets the number of a data object, of 32 bits. Doing it again changes nothing
// more, so it may be repeated while nobody else writes there.
//
// Errors: those named here.
func (c *Client) SetInt(ctx context.Context, of Owner, object Ref, value int64) error {
	q := c.objectQuery("SetIntValue", of, object)
	q.int("IntValue", "value", value)
	_, err := q.post(ctx, q.path("SetIntValue"))
	return err
}

// SetString sets the text of a data object.
//
// Errors: those named here.
func (c *Client) SetString(ctx context.Context, of Owner, object Ref, value string) error {
	q := c.objectQuery("SetStringValue", of, object)
	q.text(value)
	_, err := q.post(ctx, q.path("SetStringValue"))
	return err
}

// Increment adds n, at least 1, to the number of a data object. The API does not tell
// the new number.
//
// Errors: those named here; an overflow is refused in unknown words, so [ErrInDoubt].
func (c *Client) Increment(ctx context.Context, of Owner, object Ref, n int64) error {
	return c.step(ctx, "IncrementIntValue", of, object, n, nil)
}

// IncrementUpTo adds n, at least 1, unless the number would then be above bound.
//
// Errors: those named here. The words in which the API refuses are not known, so that
// is [ErrInDoubt]: read the number with DataObjects.
func (c *Client) IncrementUpTo(ctx context.Context, of Owner, object Ref, n, bound int64) error {
	return c.step(ctx, "IncrementIntValue", of, object, n, &bound)
}

// Decrement takes n, at least 1, from the number of a data object.
//
// Errors: as Increment.
func (c *Client) Decrement(ctx context.Context, of Owner, object Ref, n int64) error {
	return c.step(ctx, "DecrementIntValue", of, object, n, nil)
}

// DecrementDownTo takes n, at least 1, unless the number would then be below bound.
//
// Errors: as IncrementUpTo.
func (c *Client) DecrementDownTo(ctx context.Context, of Owner, object Ref, n, bound int64) error {
	return c.step(ctx, "DecrementIntValue", of, object, n, &bound)
}

func (c *Client) step(ctx context.Context, method string, of Owner, object Ref, n int64, bound *int64) error {
	q := c.objectQuery(method, of, object)
	q.count("IntValue", "the number to step by", n)
	if bound != nil {
		q.form.Set("EnableBound", "true")
		q.int("Bound", "bound", *bound)
	}
	_, err := q.post(ctx, q.path(method))
	return err
}

// dataQuery begins a call about the data objects of an owner.
func (c *Client) dataQuery(method string, of Owner) *query {
	q := c.query(method, of.ProductID, of.Key)
	if of.Machine != "" {
		q.form.Set("MachineCode", of.Machine)
	}
	return q
}

func (c *Client) objectQuery(method string, of Owner, object Ref) *query {
	q := c.dataQuery(method, of)
	switch {
	case (object.ID == 0) == (object.Name == ""):
		q.refuse("the data object is to be named by ID or by name, one of the two")
	case object.ID != 0:
		q.form.Set("Id", strconv.FormatInt(object.ID, 10))
	default:
		q.form.Set("Name", object.Name)
	}
	return q
}

// path is that of a method for the kind of owner.
func (q *query) path(method string) string {
	if q.form.Has("MachineCode") {
		return "data/" + method + "ToMachineCode"
	}
	return "data/" + method + "ToKey"
}

func (q *query) int(param, name string, n int64) {
	if n < -maxInt-1 || n > maxInt {
		q.refuse("%s is %d: it must be from %d to %d", name, n, -maxInt-1, maxInt)
	}
	q.form.Set(param, strconv.FormatInt(n, 10))
}

func (q *query) text(s string) {
	if n := utf8.RuneCountInString(s); n > maxString {
		q.refuse("the data object's text has %d characters: it may have at most %d", n, maxString)
	}
	q.form.Set("StringValue", s)
}
