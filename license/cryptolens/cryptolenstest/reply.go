package cryptolenstest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// reply is what the API says: a refusal with a message, or the properties of a
// success, beside result and message.
type reply struct {
	refused string
	object  object
}

type object = map[string]any

func refuse(message string) *reply { return &reply{refused: message} }

// done is the success of a method that answers nothing else.
func done() reply { return reply{object: object{"message": nil}} }

// encoded is a reply as it goes over the wire.
type encoded struct {
	status      int
	contentType string
	body        []byte
}

func (s *Server) encode(r reply) encoded {
	e := encoded{status: http.StatusOK, contentType: "application/json; charset=utf-8"}
	o := object{"result": 0, "message": ""}
	for name, value := range r.object {
		o[name] = value
	}
	if r.refused != "" {
		o = object{"result": 1, "message": r.refused}
		if s.RefusalStatus != 0 {
			e.status = s.RefusalStatus
		}
	}
	e.body = encodeJSON(o)
	return e
}

// encodeJSON writes <, > and & as they are, as .NET does.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // nothing here can't be encoded
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func (e encoded) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", e.contentType)
	w.WriteHeader(e.status)
	_, _ = w.Write(e.body) // a client that left is no concern of ours
}

func (r *request) ofData() bool { return strings.HasPrefix(r.endpoint.name, "data/") }
