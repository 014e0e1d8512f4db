package signed

import (
	"encoding/json"
	"fmt"
)

// templateObject is the data object that lists the features of a license.
const templateObject = "cryptolens_features"

// Templated says whether the license's own list of features, in its data object
// cryptolens_features, has this one, and whether there is such a list. A feature in
// a bundle is named with its path, as in "ModuleB.Submodule 1". If several data
// objects have that name, what any of them lists is there.
//
// Errors: ErrMasked, ErrTemplate.
func (l *License) Templated(feature string) (has, listed bool, err error) {
	if err := l.need(hasDataObjects, "DataObjects"); err != nil {
		return false, false, err
	}
	for _, o := range l.DataObjects {
		if o.Name != templateObject {
			continue
		}
		listed = true
		found, err := inTemplate(o.StringValue, feature)
		if err != nil {
			return false, true, fmt.Errorf("the license %w", ErrTemplate)
		}
		has = has || found
	}
	return has, listed, nil
}

// inTemplate looks for a feature in a list such as ["A",["B",["B1",["B2",["C"]]]]],
// which has A, B, B.B1, B.B2 and B.B2.C. An empty text lists nothing.
func inTemplate(text, feature string) (bool, error) {
	if text == "" {
		return false, nil
	}
	var list []any
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return false, err
	}
	return search(list, "", feature)
}

// search goes through the whole list, so that a mistake in it shows whatever is
// looked for.
func search(list []any, path, feature string) (found bool, err error) {
	if name, parts, ok := lonely(list); ok {
		list = []any{[]any{name, parts}}
	}
	for _, item := range list {
		name, parts, ok := bundle(item)
		if !ok {
			return false, ErrTemplate
		}
		if path+name == feature {
			found = true
		}
		in, err := search(parts, path+name+".", feature)
		if err != nil {
			return false, err
		}
		found = found || in
	}
	return found, nil
}

// bundle reads "name" or ["name",[parts…]].
func bundle(item any) (name string, parts []any, ok bool) {
	if name, ok := item.(string); ok {
		return name, nil, name != ""
	}
	pair, _ := item.([]any)
	if len(pair) != 2 {
		return "", nil, false
	}
	name, _ = pair[0].(string)
	parts, ok = pair[1].([]any)
	return name, parts, ok && name != ""
}

// lonely reads a list that is itself one bundle, ["name",["part","part"]], which
// Cryptolens's own SDKs take for [["name",["part","part"]]]. It can't be two items,
// because the second would be none.
func lonely(list []any) (name string, parts []any, ok bool) {
	name, parts, ok = bundle(any(list))
	if ok {
		_, _, two := bundle(list[1])
		ok = !two
	}
	return name, parts, ok
}
