package httpsink

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/inprocess/meter/sink"
)

// maxRequest bounds a request's body. Every server takes as much, by the protocol.
const maxRequest = 1 << 20

// request is a body and the records in it.
type request struct {
	contentType string
	body        []byte
	index       []int    // of the records in Deliver's
	ids         []string // of the records
}

// Deliver sends the records in one request; in several, one after another, if they
// take more than 1 MiB or the server refused a batch with some of them as a whole
// before. After trouble that is not the records' own it sends no more, and says so of
// the records behind.
//
// Blocking: until all are answered, at most Config.Timeout, or until ctx ends.
//
// Errors: nil, or a [*sink.BatchError], or one error if it holds for all. A record is
// [sink.ErrRejected] or [sink.ErrPostponed] if the server says so, and the first as
// well if JSON or CloudEvents.Kinds can't carry it; [sink.ErrNotApplied] if it surely
// was not recorded, and also if the configuration is faulty; anything else is doubt.
// No error holds the secret or the token.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record) error {
	if s.faults != nil {
		return fmt.Errorf("%w: the configuration is faulty: %w", sink.ErrNotApplied, s.faults)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	errs := make([]error, len(records))
	requests := s.requests(records, errs)
	for n, r := range requests {
		each, halt := s.send(ctx, r).judge(s, r)
		for i, err := range each {
			errs[r.index[i]] = err
		}
		s.apart.settle(r.ids, each)
		if !halt {
			continue
		}
		if len(r.ids) == len(records) {
			return each[0] // true of every record, so the whole route may wait
		}
		for _, unsent := range requests[n+1:] {
			for _, i := range unsent.index {
				errs[i] = behind(each[0])
			}
		}
		break
	}
	for _, err := range errs {
		if err != nil {
			return &sink.BatchError{Errs: errs}
		}
	}
	return nil
}

// behind is the error of a record that was not sent because of err before it.
func behind(err error) error {
	unsent := fmt.Errorf("%w: httpsink: not sent, for a request before it failed: %s", sink.ErrNotApplied, err.Error())
	return pause(unsent, sink.RetryDelay(err))
}

// requests divides the records, and puts into errs why some can be in none.
func (s *Sink) requests(records []sink.Record, errs []error) []request {
	var requests []request
	open, size := -1, 0 // the request that may take more records
	parts := make([]json.RawMessage, 0, len(records))
	flush := func() {
		if open >= 0 {
			requests[open].body = s.join(parts)
		}
		open, size, parts = -1, 0, parts[:0]
	}
	for i, r := range records {
		part, err := s.encode(r)
		if err != nil {
			errs[i] = fmt.Errorf("%w: httpsink: record %s: %w", sink.ErrRejected, cut(r.ID), err)
			continue
		}
		alone := s.apart.has(r.ID)
		if alone || size+len(part)+1 > maxRequest-64 {
			flush()
		}
		if open < 0 {
			open = len(requests)
			requests = append(requests, request{contentType: s.contentType()})
		}
		at := &requests[open]
		at.index, at.ids = append(at.index, i), append(at.ids, r.ID)
		parts, size = append(parts, part), size+len(part)+1
		if alone || s.single() {
			flush()
		}
	}
	flush()
	return requests
}

func (s *Sink) single() bool { return s.cfg.CloudEvents != nil && s.cfg.CloudEvents.Single }

func (s *Sink) contentType() string {
	switch {
	case s.cfg.CloudEvents == nil:
		return jsonType
	case s.cfg.CloudEvents.Single:
		return eventType
	}
	return eventsType
}

// encode returns one record's part of a body.
func (s *Sink) encode(r sink.Record) (json.RawMessage, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	var part json.RawMessage
	var err error
	if ce := s.cfg.CloudEvents; ce == nil {
		part, err = json.Marshal(toJSON(r))
	} else if !ce.takes(r.Kind) {
		return nil, fmt.Errorf("kind %v is not in Config.CloudEvents.Kinds", r.Kind)
	} else {
		part, err = json.Marshal(ce.event(r))
	}
	if err == nil && len(part) > maxRequest-64 {
		err = fmt.Errorf("it takes %d bytes, more than a request of %d", len(part), maxRequest)
	}
	return part, err
}

func (c *CloudEvents) takes(kind sink.Kind) bool {
	for _, k := range c.Kinds {
		if k == kind {
			return true
		}
	}
	return false
}

// join makes a body of parts.
func (s *Sink) join(parts []json.RawMessage) []byte {
	var before, after string
	switch {
	case s.cfg.CloudEvents == nil:
		before, after = `{"records":[`, `]}`
	case !s.cfg.CloudEvents.Single:
		before, after = `[`, `]`
	}
	body := []byte(before)
	for i, part := range parts {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, part...)
	}
	return append(body, after...)
}
