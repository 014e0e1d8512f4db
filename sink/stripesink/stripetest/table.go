package stripetest

import (
	"fmt"
	"slices"
)

// table holds objects of one kind, in the order in which they came.
type table[T any] struct {
	byID map[string]T
	ids  []string
}

// add panics if the ID is taken, for that is a mistake in a test.
func (t *table[T]) add(id string, v T) {
	if t.byID == nil {
		t.byID = map[string]T{}
	}
	if _, taken := t.byID[id]; taken {
		panic(fmt.Sprintf("stripetest: %s exists already", id))
	}
	t.byID[id] = v
	t.ids = append(t.ids, id)
}

// get panics if there is none, for that is a mistake in a test.
func (t *table[T]) get(id string) T {
	v, ok := t.byID[id]
	if !ok {
		panic(fmt.Sprintf("stripetest: there is no %s", id))
	}
	return v
}

// must panics unless a field has one of the values, for that is a mistake in a test.
func must(field, value string, values ...string) {
	if !slices.Contains(values, value) {
		panic(fmt.Sprintf("stripetest: %s is %q: use one of %q", field, value, values))
	}
}

// newest are all objects, the newest first, as Stripe lists them.
func (t *table[T]) newest(want func(T) bool) []T {
	var all []T
	for _, id := range slices.Backward(t.ids) {
		if v := t.byID[id]; want(v) {
			all = append(all, v)
		}
	}
	return all
}

// page answers with the part of a list that the request asks for.
func page[T any](r *request, all []T, id func(T) string, show func(T) object) response {
	limit := r.int("limit", 10)
	if limit < 1 || limit > 100 {
		r.invalid("limit", "parameter_invalid_integer", "This value must be between 1 and 100.")
		return response{}
	}
	if after := r.get("starting_after"); after != "" {
		at := slices.IndexFunc(all, func(v T) bool { return id(v) == after })
		if at < 0 {
			return missing("object", after, "starting_after")
		}
		all = all[at+1:]
	}
	data, more := []any{}, int64(len(all)) > limit
	for _, v := range all[:min(int64(len(all)), limit)] {
		data = append(data, show(v))
	}
	return ok(object{"object": "list", "url": r.URL.Path, "has_more": more, "data": data})
}
