package signed

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	type query = license.Query
	expires := time.Unix(1893456000, 0).UTC()
	before := expires.Add(-1)
	listed := func(text string) []object { return []object{{"Id": 1, "Name": templateObject, "StringValue": text}} }
	allowed := license.Verdict{Status: license.Allowed, Subject: "70123", Until: expires}
	endless := license.Verdict{Status: license.Allowed, Subject: "70123"}
	denied := func(why license.Reason) license.Verdict {
		return license.Verdict{Status: license.Denied, Reason: why, Subject: "70123"}
	}
	features := Terms{Features: map[string]int{"on": 1, "off": 2}}
	for name, test := range map[string]struct {
		terms Terms
		edit  edit
		query query
		now   time.Time
		want  license.Verdict
		err   error
	}{
		"allowed":                  {query: query{Feature: "any"}, want: allowed},
		"no feature asked for":     {terms: Terms{FeatureTemplate: true}, want: allowed},
		"expired":                  {now: expires, want: denied(license.Expired)},
		"blocked":                  {edit: edit{"Block": true}, want: denied(license.Blocked)},
		"blocked before expired":   {edit: edit{"Block": true}, now: expires, want: denied(license.Blocked)},
		"block masked":             {edit: edit{"Block": nil}, err: ErrMasked},
		"expires masked":           {edit: edit{"Expires": gone}, err: ErrMasked},
		"expires at zero":          {edit: edit{"Expires": 0}, err: ErrMasked},
		"perpetual":                {terms: Terms{TimeLimited: Perpetual}, edit: edit{"Expires": nil}, now: expires, want: endless},
		"limited by F1":            {terms: Terms{TimeLimited: 1}, now: expires, want: denied(license.Expired)},
		"limited by F1, not yet":   {terms: Terms{TimeLimited: 1}, want: allowed},
		"not limited by F2":        {terms: Terms{TimeLimited: 2}, now: expires, want: endless},
		"F2 masked":                {terms: Terms{TimeLimited: 2}, edit: edit{"F2": nil}, err: ErrMasked},
		"F1 on":                    {terms: features, query: query{Feature: "on"}, want: allowed},
		"F2 off":                   {terms: features, query: query{Feature: "off"}, want: denied(license.NotEntitled)},
		"F1 masked":                {terms: features, edit: edit{"F1": gone}, query: query{Feature: "on"}, err: ErrMasked},
		"feature of no flag":       {terms: features, query: query{Feature: "free"}, want: allowed},
		"template required, none":  {terms: Terms{FeatureTemplate: true}, query: query{Feature: "free"}, want: denied(license.NotEntitled)},
		"in the template":          {edit: edit{"DataObjects": listed(`["a",["b",["c"]]]`)}, query: query{Feature: "b.c"}, want: allowed},
		"not in the template":      {edit: edit{"DataObjects": listed(`["a",["b",["c"]]]`)}, query: query{Feature: "c"}, want: denied(license.NotEntitled)},
		"the flag beats the list":  {terms: features, edit: edit{"DataObjects": listed(`["off"]`)}, query: query{Feature: "off"}, want: denied(license.NotEntitled)},
		"template broken":          {edit: edit{"DataObjects": listed(`{"a":1}`)}, query: query{Feature: "a"}, err: ErrTemplate},
		"template masked":          {edit: edit{"DataObjects": nil}, query: query{Feature: "a"}, err: ErrMasked},
		"machine":                  {query: query{Machine: "m1"}, want: allowed},
		"another machine":          {query: query{Machine: "m9"}, want: denied(license.NotEntitled)},
		"any number of machines":   {edit: edit{"MaxNoOfMachines": 0}, query: query{Machine: "m9"}, want: allowed},
		"machines masked":          {edit: edit{"ActivatedMachines": nil}, query: query{Machine: "m1"}, err: ErrMasked},
		"machine limit masked":     {edit: edit{"MaxNoOfMachines": gone}, query: query{Machine: "m1"}, err: ErrMasked},
		"floating machine":         {query: query{Machine: "m2"}, now: time.Unix(1767225599, 0), want: allowed},
		"floating machine gone":    {query: query{Machine: "m2"}, now: time.Unix(1767225600, 0), want: denied(license.NotEntitled)},
		"machine in overdraft":     {query: query{Machine: "m3"}, want: allowed},
		"the prefix is no machine": {query: query{Machine: "floating:m2"}, want: denied(license.NotEntitled)},
		"nor a suffix":             {query: query{Machine: "1"}, want: denied(license.NotEntitled)},
		"no ID to bill":            {edit: edit{"GlobalId": 0}, err: ErrMasked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.now.IsZero() {
				test.now = before
			}
			v, err := test.terms.Verdict(open(t, test.edit), test.query, test.now)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.want, v)
		})
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	l := open(t, nil)
	by := func(f func(License) string) (string, error) {
		v, err := Terms{Subject: f}.Verdict(l, license.Query{}, l.SignDate)
		return v.Subject, err
	}
	subject, err := by(func(l License) string { return l.Customer.Email })
	require.NoError(t, err)
	require.Equal(t, "ada@example.com", subject)
	_, err = by(func(License) string { return "" })
	require.ErrorContains(t, err, "names nobody to bill")
	for _, leak := range []string{testKey, "key:" + testKey} {
		_, err = by(func(License) string { return leak })
		require.ErrorContains(t, err, "which is a secret")
		require.NotContains(t, err.Error(), "CANARY")
	}
	short := *l
	short.Key = license.NewKey("3")
	_, err = Terms{Subject: func(License) string { return "cus_3" }}.Verdict(&short, license.Query{}, l.SignDate)
	require.NoError(t, err)
	_, err = Terms{Subject: func(License) string { return "3" }}.Verdict(&short, license.Query{}, l.SignDate)
	require.Error(t, err)
}

func TestFaultsOfTerms(t *testing.T) {
	t.Parallel()
	var faults []string
	Terms{Features: map[string]int{"a": 9}, TimeLimited: -2}.Validate(func(field string, err error) {
		faults = append(faults, field+" "+err.Error())
	})
	require.Len(t, faults, 2)
	require.Contains(t, faults[0], `Features["a"] is 9: it must be 1 to 8`)
	require.Contains(t, faults[1], "TimeLimited is -2")
	Terms{Features: map[string]int{"": 1}}.Validate(func(field string, err error) { require.Equal(t, "Features", field) })
	Terms{Features: map[string]int{"a": 1, "b": 8}, TimeLimited: 8}.Validate(func(string, error) { t.Fatal() })
	_, err := open(t, nil).Feature(9)
	require.ErrorContains(t, err, "only F1 to F8")
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	for text, features := range map[string]string{
		``:                                "",
		`[]`:                              "",
		`["A","B"]`:                       "A B",
		`["f1",["f2",["voice","image"]]]`: "f1 f2 f2.voice f2.image",
		`["f1",["f2",[["voice",["all"]],"image"]]]`: "f1 f2 f2.voice f2.voice.all f2.image",
		`[["D",[["D1",["S1","S2"]]]]]`:              "D D.D1 D.D1.S1 D.D1.S2",
		`[["D",["D1",["S1","S2"]]]]`:                "D D.D1 D.D1.S1 D.D1.S2", // as the SDKs' own tests have it
		`["A",["B","C","D"]]`:                       "A A.B A.C A.D",
		`["D",["S1","S2"]]`:                         "D D.S1 D.S2",
		`["D",["D1",["x"]]]`:                        "D D1 D1.x",
		`[["D",[]]]`:                                "D",
		`[["D 1",[["D1.1",["a"]]]]]`:                "D_1 D_1.D1.1 D_1.D1.1.a",
	} {
		for feature := range strings.FieldsSeq(features) {
			has, err := inTemplate(text, strings.ReplaceAll(feature, "_", " "))
			require.NoError(t, err, text)
			require.True(t, has, "%s in %s", feature, text)
		}
		for _, feature := range []string{"", "a", "voice", "f1.f2", "f2.voice.all.x", "S1", "D.", ".D", "A.B", "f1", "f2.image", "D.D1", "D.S1"} {
			has, err := inTemplate(text, feature)
			require.NoError(t, err, text)
			require.Equal(t, strings.Contains(" "+features+" ", " "+feature+" ") && feature != "", has, "%q in %s", feature, text)
		}
	}
	for _, text := range []string{`x`, `{}`, `"A"`, `[1]`, `[null]`, `[""]`, `[[]]`, `[["A"]]`, `["A",["B",[1]]]`, `[["",["B"]]]`, `["A",[["B",["C"]],5]]`} {
		_, err := inTemplate(text, "A")
		require.Error(t, err, text)
	}
}

// What one list of several has is there; a broken one is an error all the same.
func TestSeveralTemplates(t *testing.T) {
	t.Parallel()
	l := &License{known: hasDataObjects, DataObjects: []DataObject{{Name: templateObject, StringValue: `["a"]`}, {Name: "x"}, {Name: templateObject, StringValue: `["b"]`}}}
	for feature, want := range map[string]bool{"a": true, "b": true, "c": false} {
		has, listed, err := l.Templated(feature)
		require.NoError(t, err)
		require.True(t, listed)
		require.Equal(t, want, has)
	}
	l.DataObjects[2].StringValue = "b"
	_, _, err := l.Templated("a")
	require.True(t, errors.Is(err, ErrTemplate))
}

func FuzzTemplate(f *testing.F) {
	f.Add(`["f1",["f2",[["voice",["all"]],"image"]]]`, "f2.voice.all")
	f.Add(`[["D",["D1",["S1","S2"]]]]`, "D.D1.S2")
	f.Add(strings.Repeat("[", 1000), "")
	f.Fuzz(func(t *testing.T, text, feature string) {
		has, err := inTemplate(text, feature)
		_, same := inTemplate(text, "")
		require.Equal(t, err, same, "whatever is looked for, a broken list is one")
		if has {
			require.NotEmpty(t, feature)
			require.Contains(t, text, "[")
		}
	})
}
