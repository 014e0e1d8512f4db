package httpsink

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// The vector of PROTOCOL.md.
func TestSignature(t *testing.T) {
	t.Parallel()
	body := []byte(`{"records":[]}`)
	got := sign("0123456789abcdef0123456789abcdef", time.Unix(1772366400, 0), body)
	require.Equal(t, "t=1772366400,v1=c83e799ce21d7d81d13baf8e6b89f0506d14b399930c949c0706252108b24bfd", got)
	s, err := parseSignature(got)
	require.NoError(t, err)
	require.True(t, s.by([]string{"x", "0123456789abcdef0123456789abcdef"}, body))
	require.False(t, s.by([]string{"0123456789abcdef0123456789abcdeF"}, body))
	require.False(t, s.by(nil, body))
	require.False(t, s.by([]string{"0123456789abcdef0123456789abcdef"}, append(body, ' ')))
}

func TestSignatureHeaderHasOneForm(t *testing.T) {
	t.Parallel()
	mac := strings.Repeat("ab", 32)
	for text, ok := range map[string]bool{
		"t=1,v1=" + mac:                             true,
		"v1=" + mac + ",t=1":                        true,
		"t=1,v1=" + mac + ",v1=" + mac:              true,
		"t=1,v1=" + mac + ",v2=later":               true,
		"t=1,v1=" + strings.ToUpper(mac):            true,
		"":                                          false,
		"t=1":                                       false,
		"v1=" + mac:                                 false,
		"t=1,t=1,v1=" + mac:                         false,
		"t=01,v1=" + mac:                            false,
		"t=-1,v1=" + mac:                            false,
		"t=+1,v1=" + mac:                            false,
		"t=1.5,v1=" + mac:                           false,
		"t=,v1=" + mac:                              false,
		"t=99999999999999999999,v1=" + mac:          false,
		"t=1, v1=" + mac:                            false,
		"t=1,v1=" + mac[1:]:                         false,
		"t=1,v1=" + mac + "00":                      false,
		"t=1,v1=" + mac + ",":                       false,
		"t=1;v1=" + mac:                             false,
		"t=1" + strings.Repeat(",v1="+mac, 8):       true,
		"t=1" + strings.Repeat(",v1="+mac, 9):       false,
		"t=1,v1=" + mac + strings.Repeat("x", 1024): false,
	} {
		_, err := parseSignature(text)
		require.Equal(t, ok, err == nil, "%q: %v", text, err)
	}
}

// What is taken is exactly what is signed: no two times and no other MAC hide in it.
func FuzzSignature(f *testing.F) {
	f.Add("t=1,v1=" + strings.Repeat("00", 32))
	f.Add(sign(testSecret, time.Unix(1772366400, 0), []byte("body")))
	f.Add("t=1,v1=,v1=zz")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSignature(text)
		if err != nil {
			return
		}
		if s.at < 0 || len(s.macs) < 1 || len(s.macs) > maxMACs || strings.Count(","+text, ",t=") != 1 {
			t.Fatalf("%q was taken as %+v", text, s)
		}
		if text != sign(testSecret, time.Unix(s.at, 0), []byte("body")) && !strings.Contains(strings.ToLower(text), strings.Split(sign(testSecret, time.Unix(s.at, 0), []byte("body")), ",")[1]) && s.by([]string{testSecret}, []byte("body")) {
			t.Fatalf("%q passes for a signature", text)
		}
	})
}

// Whatever comes, what reaches the store is fit, and comes out of the sender's half the
// same as it went in.
func FuzzRequest(f *testing.F) {
	f.Add(0, []byte(records(one("a"), one("b"))))
	f.Add(1, []byte(`[{"specversion":"1.0","id":"a","source":"s","type":"f","subject":"s","data":{"value":1,"kind":"sum","start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z"}}]`))
	f.Add(2, []byte(`{"specversion":"1.0","id":"a","source":"s","type":"f","subject":"s","data":{"value":1,"kind":"max","start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","dimensions":{"a":"b"}}}`))
	f.Add(0, []byte(`{"records":[{"id":"a","quantity":null}]}`))
	f.Add(0, []byte(`{"records":null}`))
	f.Fuzz(func(t *testing.T, form int, body []byte) {
		kind := []string{jsonType, eventsType, eventType}[uint(form)%3]
		stored := memsink.New()
		w := serve(newHandler(t, HandlerConfig{Store: stored}), request2(kind, string(body), testSecret, time.Now()))
		held := stored.Records()
		switch w.Code {
		case http.StatusOK, http.StatusNoContent, http.StatusUnprocessableEntity:
		case http.StatusBadRequest:
			require.Empty(t, held)
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		for _, r := range held {
			require.NoError(t, check(r))
			part, err := json.Marshal(batchJSON{Records: []recordJSON{toJSON(r)}})
			require.NoError(t, err)
			again, err := decodeBatch(part)
			require.NoError(t, err)
			require.NoError(t, again[0].fault)
			require.Equal(t, r, again[0].Record)
		}
	})
}

// Whatever a server answers, "delivered" needs its word for that very record.
func FuzzAnswer(f *testing.F) {
	f.Add(200, jsonType, []byte(`{"results":[{"id":"a","status":"delivered"},{"id":"b","status":"rejected","reason":"x"}]}`))
	f.Add(503, problemType, []byte(`{"status":503,"outcome":"not-applied"}`))
	f.Add(422, problemType, []byte(`{"status":422,"outcome":"in-doubt","results":[{"id":"a","status":"delivered"}]}`))
	f.Add(204, "", []byte(``))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		s := New(Config{URL: "https://example.com", Secret: testSecret})
		e := exchange{sent: true, status: status, header: http.Header{"Content-Type": {kind}}, body: body, complete: true}
		r := request{ids: []string{"a", "b"}}
		each, halt := e.judge(s, r)
		if len(each) != 2 {
			t.Fatalf("%d errors for 2 records", len(each))
		}
		for i, err := range each {
			if err == nil && (halt || !bytes.Contains(body, []byte("delivered")) && !bytes.Contains(body, []byte(`\u`)) || !bytes.Contains(bytes.ToLower(body), []byte(`id`)) && !bytes.Contains(body, []byte(`\u`))) {
				t.Fatalf("record %d passes for delivered by %d %q", i, status, body)
			}
			if err != nil {
				_ = err.Error()
				require.LessOrEqual(t, sink.RetryDelay(err), maxDelay)
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add(strings.Repeat("x", 100))
	f.Fuzz(func(t *testing.T, text string) {
		if got := cut(text); len(got) > maxText+len("…") || strings.ContainsAny(got, "\r\n\x00") {
			t.Fatalf("%q", got)
		}
	})
}
