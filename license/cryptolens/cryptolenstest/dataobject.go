package cryptolenstest

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// DataObject is a named text and number of a key or machine.
//
// Concurrency: a plain value.
type DataObject struct {
	ID     int64 // 0 in AddDataObject: made up
	Name   string
	String string
	Int    int64 // of 32 bits
}

// objectJSON is a data object within a signed license.
type objectJSON struct {
	Id          int64
	Name        string
	StringValue string
	IntValue    int64
}

// AddDataObject gives a key, or one of its machines, a data object. machine "": the key
// itself. It panics if there is no such key.
func (s *Server) AddDataObject(productID int, text, machine string, o DataObject) DataObject {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.must(productID, text)
	if o.ID == 0 {
		o.ID = s.newID()
	}
	k.objects[machine] = append(k.objects[machine], &o)
	return o
}

// DataObjects are those of a key, or of one of its machines. It panics if there is no
// such key.
func (s *Server) DataObjects(productID int, text, machine string) []DataObject {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []DataObject
	for _, o := range s.must(productID, text).objects[machine] {
		list = append(list, *o)
	}
	return list
}

// ResetDataObjects sets the number of every data object of this name, in all keys and
// machines of a product, as a product's cryptolens_dobjreset does when its time comes.
func (s *Server) ResetDataObjects(productID int, name string, value int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.products[productID] {
		for _, objects := range k.objects {
			for _, o := range objects {
				if o.Name == name {
					o.Int = value
				}
			}
		}
	}
}

// owner is whose data objects the request is about.
func (r *request) owner() (machine string, bad *reply) {
	if !strings.HasSuffix(r.endpoint.name, "ToMachineCode") {
		return "", nil
	}
	if r.get("MachineCode") == "" {
		return "", refuse("The input parameters were incorrect.")
	}
	return r.get("MachineCode"), nil
}

func (s *Server) addDataObject(r *request) reply {
	machine, bad := r.owner()
	value, ok := r.int("IntValue", 0)
	name, text := r.get("Name"), r.get("StringValue")
	switch {
	case bad != nil:
		return *bad
	case !ok || name == "" || utf8.RuneCountInString(name) > 100 || utf8.RuneCountInString(text) > 10_000:
		return *refuse("The input parameters were incorrect.")
	case r.bool("CheckForDuplicates") && slices.ContainsFunc(r.key.objects[machine], named(name)):
		return *refuse("There is a data object with this name already (made up).")
	}
	o := &DataObject{s.newID(), name, text, int64(value)}
	r.key.objects[machine] = append(r.key.objects[machine], o)
	return reply{object: object{"id": o.ID}}
}

func named(name string) func(*DataObject) bool {
	return func(o *DataObject) bool { return o.Name == name }
}

func (s *Server) listDataObjects(r *request) reply {
	machine, bad := r.owner()
	if bad != nil {
		return *bad
	}
	list := []object{}
	for _, o := range r.key.objects[machine] {
		if strings.Contains(o.Name, r.get("Contains")) {
			list = append(list, object{"id": o.ID, "name": o.Name, "stringValue": o.String, "intValue": o.Int})
		}
	}
	return reply{object: object{"dataObjects": list}}
}

// object finds the data object of the request, by ID or by name.
func (r *request) object() (*DataObject, *reply) {
	machine, bad := r.owner()
	if bad != nil {
		return nil, bad
	}
	is := named(r.get("Name"))
	if text := r.get("Id"); text != "" && text != "0" {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, refuse("The input parameters were incorrect.")
		}
		is = func(o *DataObject) bool { return o.ID == id }
	}
	var found []*DataObject
	for _, o := range r.key.objects[machine] {
		if is(o) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, refuse("Could not find the data object (made up).")
	}
	return nil, refuse("Several data objects have this name (made up).")
}

func (s *Server) setInt(r *request) reply {
	o, bad := r.object()
	value, ok := r.int("IntValue", 0)
	switch {
	case bad != nil:
		return *bad
	case !ok:
		return *refuse("The input parameters were incorrect.")
	}
	o.Int = int64(value)
	return done()
}

func (s *Server) setString(r *request) reply {
	o, bad := r.object()
	text := r.get("StringValue")
	switch {
	case bad != nil:
		return *bad
	case utf8.RuneCountInString(text) > 10_000:
		return *refuse("The input parameters were incorrect.")
	}
	o.String = text
	return done()
}

// step increments or decrements. The sign of the parameter has no meaning.
func (s *Server) step(sign int64) func(*request) reply {
	return func(r *request) reply {
		o, bad := r.object()
		value, valueOK := r.int("IntValue", 0)
		bound, boundOK := r.int("Bound", 0)
		switch {
		case bad != nil:
			return *bad
		case !valueOK || !boundOK:
			return *refuse("The input parameters were incorrect.")
		}
		n := int64(value)
		if n < 0 {
			n = -n
		}
		next := o.Int + sign*n
		switch {
		case next > math.MaxInt32 || next < math.MinInt32:
			return *refuse("The number would overflow (made up).")
		case r.bool("EnableBound") && sign*next > sign*int64(bound):
			return *refuse("The bound would be passed (made up).")
		}
		o.Int = next
		return done()
	}
}
