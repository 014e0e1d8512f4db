package stripetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// object is a JSON object.
type object = map[string]any

// response is what a handler answers, kept as bytes so that it can be replayed.
type response struct {
	status int
	header http.Header
	body   []byte
	object object // not yet in body
}

// ok answers 200 with o.
func ok(o object) response { return response{status: http.StatusOK, object: o} }

// expanded is the response with what the request wants expanded, and ready to send.
func (res response) expanded(s *Server, r *request) response {
	if res.object == nil {
		return res
	}
	for _, path := range r.list("expand") {
		if !s.expand(res.object, strings.Split(path, ".")) {
			return invalid("expand", "", "This property cannot be expanded (%s).", path)
		}
	}
	return res.encoded()
}

func (res response) encoded() response {
	body, err := json.MarshalIndent(res.object, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("stripetest: %v", err))
	}
	res.body, res.object = body, nil
	return res
}

// failure answers with Stripe's error object; code and param may be "".
func failure(status int, kind, code, param, message string) response {
	e := map[string]string{"type": kind, "message": message}
	if code != "" {
		e["code"] = code
	}
	if param != "" {
		e["param"] = param
	}
	return response{status: status, object: object{"error": e}}.encoded()
}

// invalid answers 400 to what is wrong with a parameter.
func invalid(param, code, format string, args ...any) response {
	return failure(http.StatusBadRequest, "invalid_request_error", code, param, fmt.Sprintf(format, args...))
}

// missing answers 404: there is no such thing, or no more.
func missing(what, id, param string) response {
	return failure(http.StatusNotFound, "invalid_request_error", "resource_missing", param, fmt.Sprintf("No such %s: '%s'", what, id))
}

func unknownError() response {
	return failure(http.StatusInternalServerError, "api_error", "", "", "An unknown error occurred")
}

func throttled(reason string) response {
	res := failure(http.StatusTooManyRequests, "invalid_request_error", "rate_limit", "", "Too many requests.")
	res.header = http.Header{"Stripe-Rate-Limited-Reason": {reason}}
	return res
}

// lockTimeout answers to one change too many of one thing at a time: to a meter
// event with 409, as has been seen, else as Stripe documents.
func lockTimeout(r *request) response {
	status := http.StatusTooManyRequests
	if strings.HasPrefix(r.lock, eventLock) {
		status = http.StatusConflict
	}
	return failure(status, "invalid_request_error", "lock_timeout", "",
		"This object cannot be accessed right now because another API request or Stripe process is currently accessing it.")
}

func write(w http.ResponseWriter, res response) {
	for name, values := range res.header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(res.status)
	_, _ = io.Copy(w, bytes.NewReader(res.body)) // a client that left is no concern of ours
}
