package httpsink

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Enum       []string          `json:"enum"`
	Items      *schema           `json:"items"`
	MaxItems   int               `json:"maxItems"`
	Maximum    int64             `json:"maximum"`
	Pattern    string            `json:"pattern"`
}

type media struct {
	Schema   schema
	Example  json.RawMessage
	Examples map[string]struct{ Value json.RawMessage }
}

type openAPI struct {
	Paths map[string]map[string]struct {
		RequestBody struct{ Content map[string]media }
		Responses   map[string]struct{ Content map[string]media }
	}
	Components struct {
		SecuritySchemes map[string]struct{ Name string }
		Schemas         map[string]schema
	}
}

func readOpenAPI(t *testing.T) (doc openAPI) {
	t.Helper()
	text, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &doc))
	return doc
}

// The schemas have the members that the code has, and ask for those that it asks for.
func TestOpenAPIHasTheFieldsOfTheCode(t *testing.T) {
	t.Parallel()
	schemas := readOpenAPI(t).Components.Schemas
	forms := map[string]any{
		"Batch": batchJSON{}, "Record": recordJSON{}, "Answer": answerJSON{}, "Result": resultJSON{}, "Problem": problemJSON{},
		"Event": eventJSON{}, "EventData": dataJSON{},
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(forms)), slices.Collect(maps.Keys(schemas)))
	jsonTypes := map[reflect.Kind]string{
		reflect.String: "string", reflect.Int: "integer", reflect.Int64: "integer", reflect.Bool: "boolean", reflect.Slice: "array", reflect.Map: "object",
	}
	for name, form := range forms {
		s := schemas[name]
		require.Equal(t, "object", s.Type, name)
		var members []string
		for field := range reflect.TypeOf(form).Fields() {
			member, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			members = append(members, member)
			kind := field.Type
			if kind.Kind() == reflect.Pointer {
				kind = kind.Elem()
			}
			property := s.Properties[member]
			switch {
			case kind == reflect.TypeFor[time.Time]():
				require.Equal(t, "string", property.Type, "%s.%s", name, member)
			case kind == reflect.TypeFor[dataJSON]():
				require.Equal(t, "#/components/schemas/EventData", property.Ref)
			default:
				require.Equal(t, jsonTypes[kind.Kind()], property.Type, "%s.%s", name, member)
			}
		}
		require.ElementsMatch(t, members, slices.Collect(maps.Keys(s.Properties)), name)
		require.Subset(t, members, s.Required, name)
	}
	require.Equal(t, []string{"sum", "max", "last"}, schemas["Record"].Properties["kind"].Enum)
	require.Equal(t, []string{delivered, rejected, notApplied, postponed, inDoubt}, schemas["Result"].Properties["status"].Enum)
	require.Equal(t, []string{notApplied, inDoubt}, schemas["Problem"].Properties["outcome"].Enum)
	require.EqualValues(t, maxQuantity, schemas["Record"].Properties["quantity"].Maximum)
	require.Equal(t, mostBatch, schemas["Batch"].Properties["records"].MaxItems)
	require.Equal(t, signatureHeader, readOpenAPI(t).Components.SecuritySchemes["signature"].Name)
}

// Without a member that the document requires, the handler stores nothing.
func TestOpenAPIRequiresWhatTheCodeNeeds(t *testing.T) {
	t.Parallel()
	doc := readOpenAPI(t)
	content := doc.Paths["/v1/usage"]["post"].RequestBody.Content
	var batch struct{ Records []map[string]any }
	require.NoError(t, json.Unmarshal(content[jsonType].Examples["batch"].Value, &batch))
	full := batch.Records[0]
	for member := range doc.Components.Schemas["Record"].Properties {
		without := maps.Clone(full)
		delete(without, member)
		body, err := json.Marshal(map[string]any{"records": []any{without}})
		require.NoError(t, err)
		stored := memsink.New()
		serve(newHandler(t, HandlerConfig{Store: stored}), signed(string(body)))
		required := slices.Contains(doc.Components.Schemas["Record"].Required, member)
		require.Equal(t, required, len(stored.Records()) == 0, member)
	}
}

// The examples go through the code: requests are taken and stored, answers understood,
// and what the handler answers is what the document shows.
func TestOpenAPIExamples(t *testing.T) {
	t.Parallel()
	post := readOpenAPI(t).Paths["/v1/usage"]["post"]
	require.ElementsMatch(t, []string{jsonType, eventsType, eventType}, slices.Collect(maps.Keys(post.RequestBody.Content)))
	want := sink.Record{
		ID: "k3v7-000001", Feature: "tax-report", Subject: "cus_1", Dimensions: map[string]string{"region": "eu"}, Quantity: 3,
		Start: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), End: time.Date(2026, 3, 1, 12, 1, 0, 0, time.UTC), Attempt: 1,
	}
	for kind, content := range post.RequestBody.Content {
		for name, example := range content.Examples {
			stored := memsink.New()
			w := serve(newHandler(t, HandlerConfig{Store: stored}), request2(kind, string(example.Value), testSecret, time.Now()))
			require.Contains(t, post.Responses, fmt.Sprint(w.Code))
			require.Less(t, w.Code, 300, "%s", w.Body)
			if name != "question" {
				require.Equal(t, []sink.Record{want}, stored.Records(), kind)
			}
		}
	}
	s := New(Config{URL: "https://example.com", Secret: testSecret})
	for status, response := range post.Responses {
		for kind, content := range response.Content {
			examples := map[string]json.RawMessage{"": content.Example}
			if content.Examples != nil {
				examples = map[string]json.RawMessage{}
				for name, example := range content.Examples {
					examples[name] = example.Value
				}
			}
			for name, body := range examples {
				code := 0
				_, err := fmt.Sscan(status, &code)
				require.NoError(t, err)
				e := exchange{sent: true, complete: true, status: code, header: http.Header{"Content-Type": {kind}}, body: body}
				ids := []string{"k3v7-000001", "k3v7-000002"}
				if code == http.StatusUnprocessableEntity {
					ids = ids[:1]
				}
				if name == "question" {
					ids = nil
				}
				each, _ := e.judge(s, request{ids: ids})
				got := make([]string, len(each))
				for i, err := range each {
					got[i] = statusOf(err)
				}
				require.Equal(t, outcomes[status+name], got, "%s %s", status, name)
				if kind == problemType {
					p, err := decodeProblem(body)
					require.NoError(t, err)
					require.Equal(t, code, p.Status)
					require.Equal(t, http.StatusText(code), p.Title)
				}
			}
		}
	}
}

// outcomes of two records for each example of a response.
var outcomes = map[string][]string{
	"200results": {delivered, notApplied}, "200question": {delivered},
	"400": {notApplied, notApplied}, "401": {notApplied, notApplied}, "405": {notApplied, notApplied}, "413": {notApplied, notApplied},
	"415": {notApplied, notApplied}, "422": {rejected}, "429": {notApplied, notApplied}, "500": {inDoubt, inDoubt}, "503": {notApplied, notApplied},
}

// The page shows what works: its JSON is of the code's forms, its vector right.
func TestProtocolPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("PROTOCOL.md")
	require.NoError(t, err)
	require.Contains(t, string(page), sign("0123456789abcdef0123456789abcdef", time.Unix(1772366400, 0), []byte(`{"records":[]}`)))
	blocks := strings.Split(string(page), "```json\n")[1:]
	require.Len(t, blocks, 3)
	for i := range blocks {
		blocks[i], _, _ = strings.Cut(blocks[i], "```")
	}
	entries, err := decodeBatch([]byte(blocks[0]))
	require.NoError(t, err)
	require.NoError(t, entries[0].fault)
	a, err := decodeAnswer([]byte(blocks[1]))
	require.NoError(t, err)
	require.Len(t, a.Results, 2)
	p, err := decodeProblem([]byte(blocks[2]))
	require.NoError(t, err)
	require.Equal(t, notApplied, p.Outcome)
	for _, word := range []string{delivered, rejected, notApplied, postponed, inDoubt, signatureHeader, jsonType, eventsType, eventType, problemType} {
		require.Contains(t, string(page), word)
	}
	for _, reason := range readOpenAPI(t).Components.Schemas["Problem"].Properties["reason"].Enum {
		require.Contains(t, string(page), "`"+reason+"`")
	}
}
