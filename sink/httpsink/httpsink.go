// Package httpsink delivers usage to a server of one's own over HTTP, and is that
// server's other half: [Sink] sends records, [Handler] takes them and hands them to
// whatever stores them.
//
//	the process that counts          the vendor's server
//	meter → Sink ── JSON, signed ──→ Handler → Store, a sink.Sink
//
// What goes over the wire is on one page, [PROTOCOL.md], and in [openapi.json], for
// servers that are not written in Go. With [Config].CloudEvents, records are sent as
// CloudEvents 1.0 instead, to OpenMeter and whoever else takes them.
//
// # What keeps a customer from being billed twice
//
// Each record carries an ID that is fixed before the first attempt, and the server
// stores an ID once. [Handler] demands a store that does so, in one transaction with
// what it stores, and says "delivered" of a record only after that store has returned
// nil. Attempts for one ID, or one customer's use of one feature, follow one another.
// Before the first record of a feature, [Sink.Prepare] asks the server how long it
// remembers IDs, and refuses one that forgets sooner than Config.DedupeWindow.
//
// The Idempotency-Key names one attempt to send one batch. It stops a proxy that
// repeats requests, and is not what the above rests on.
//
// # What counts as proof
//
// A record is delivered, rejected or not applied if the server's complete answer says
// so, by the record's ID. It is not applied as well if not one byte of the request's
// body left this process, or if a problem document of the protocol says that nothing
// was. All else is doubt: a broken connection, a timeout, a 5xx, a redirect, a page of
// some proxy, an answer that is cut off or for other records.
//
// # OpenMeter and other takers of CloudEvents
//
// The event's id is the record's ID, source is CloudEvents.Source, type the feature
// unless CloudEvents.Types says otherwise, subject the subject, and time the last
// second of the window. data holds value, kind, feature, start, end and, if there are
// any, dimensions: a meter of OpenMeter finds the count at $.value and a dimension at
// $.dimensions.region. Any 2xx but 206 and 207 means delivered. 401, 403, 404, 405,
// 415 and 429 mean not applied; 400, 413 and 422 that the batch was refused as a whole,
// so its events are sent one by one from then on, and one that is refused alone with
// 400 or 422 is rejected.
//
// No dedupe is assumed of a receiver of CloudEvents: what is in doubt goes to
// quarantine, unless DedupeWindow says more. OpenMeter dedupes by source and id where
// that is switched on; its configuration has it off, and 24 hours when it is on by
// Redis. As of its source in 2026, what dedupes at its API notes an ID before it
// writes the event: an event whose write failed is then answered as taken when it
// comes again, and billed to nobody. Deduping in its sink worker doesn't have that
// flaw. None of this was tried against a running OpenMeter.
//
// [PROTOCOL.md]: https://github.com/inprocess/meter/blob/main/sink/httpsink/PROTOCOL.md
// [openapi.json]: https://github.com/inprocess/meter/blob/main/sink/httpsink/openapi.json
package httpsink

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// maxQuantity is what JSON carries exactly between any two languages.
const maxQuantity = 1<<53 - 1

// Sink delivers records to a server. Create it with [New].
//
// Concurrency: safe.
type Sink struct {
	cfg       Config
	faults    error
	transport http.RoundTripper
	own       *http.Transport // nil: the transport was given, its connections are not ours to close
	apart     apart
}

var (
	_ sink.Sink      = (*Sink)(nil)
	_ sink.Limiter   = (*Sink)(nil)
	_ sink.Validator = (*Sink)(nil)
	_ sink.Preparer  = (*Sink)(nil)
	_ sink.Combiner  = (*Sink)(nil)
	_ sink.Addressed = (*Sink)(nil)
	_ io.Closer      = (*Sink)(nil)
)

// New returns a sink for cfg, which it copies. It does no input or output and never
// fails: [Sink.Validate] tells what is wrong with cfg, and meter.Open asks.
func New(cfg Config) *Sink {
	s := &Sink{cfg: cfg, faults: cfg.validate()}
	if ce := cfg.CloudEvents; ce != nil {
		s.cfg.CloudEvents = &CloudEvents{Source: ce.Source, Types: maps.Clone(ce.Types), Kinds: slices.Clone(ce.Kinds), Single: ce.Single}
	}
	s.cfg = s.cfg.withDefaults()
	s.transport = cfg.Transport
	if s.transport == nil {
		s.own = newTransport(s.cfg)
		s.transport = s.own
	}
	return s
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with a secret in it.
func (s *Sink) Validate() error { return s.faults }

// Limits are those of the configuration.
func (s *Sink) Limits() sink.Limits {
	return sink.Limits{
		MaxBatch:     s.cfg.MaxBatch,
		Concurrency:  s.cfg.Concurrency,
		MaxQuantity:  maxQuantity,
		DedupeWindow: max(s.cfg.DedupeWindow, 0),
		Timeout:      s.cfg.Timeout,
	}
}

// Kinds are all three, or with CloudEvents those of the configuration.
func (s *Sink) Kinds() []sink.Kind {
	if s.cfg.CloudEvents != nil {
		return slices.Clone(s.cfg.CloudEvents.Kinds)
	}
	return []sink.Kind{sink.Sum, sink.Max, sink.Last}
}

// Address is the URL; with CloudEvents "cloudevents+" before it and the source behind
// it, for another source is other events to whoever dedupes them.
func (s *Sink) Address() string {
	switch {
	case checkURL(s.cfg.URL, true) != nil:
		return "" // it may hold a password
	case s.cfg.CloudEvents != nil:
		return "cloudevents+" + s.cfg.URL + "#" + s.cfg.CloudEvents.Source
	}
	return s.cfg.URL
}

// Prepare asks the server, by a batch of no records, whether it takes the signature and
// for how long it dedupes. With CloudEvents it does nothing, for nobody answers that.
//
// Blocking: one request.
//
// Errors: the configuration's; the server's refusal; and if the server forgets IDs
// sooner than Config.DedupeWindow. All features wait then. No error holds a secret.
func (s *Sink) Prepare(ctx context.Context, _ []sink.Feature) error {
	if s.faults != nil || s.cfg.CloudEvents != nil {
		return s.faults
	}
	r := request{contentType: s.contentType(), body: s.join(nil)}
	e := s.send(ctx, r)
	each, _ := e.judge(s, r)
	if each[0] != nil {
		return fmt.Errorf("httpsink: asking the server by a batch of no records for how long it remembers IDs: %w", each[0])
	}
	answer, err := decodeAnswer(e.body)
	switch {
	case err != nil || s.Limits().DedupeWindow == 0: // nothing is relied on
		return err
	case answer.DedupeSeconds == nil:
		return fmt.Errorf("httpsink: the server does not say for how long it remembers records: its answer to a batch of no records must have dedupe_seconds")
	case time.Duration(min(*answer.DedupeSeconds, maxSeconds))*time.Second < s.Limits().DedupeWindow.Truncate(time.Second):
		return fmt.Errorf("httpsink: the server remembers records for %d s, less than Config.DedupeWindow of %v: set that to no more than what the server keeps", *answer.DedupeSeconds, s.cfg.DedupeWindow)
	}
	return nil
}

// maxSeconds is [sink.Forever] in whole seconds.
const maxSeconds = int64(sink.Forever / time.Second)

// Close drops idle connections, unless Config.Transport was given. The sink stays
// usable.
//
// Errors: none.
func (s *Sink) Close() error {
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	return nil
}

// Format prints the sink's address, whatever the verb.
func (s *Sink) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Address()) }

// LogValue is the sink's address.
func (s *Sink) LogValue() slog.Value { return slog.StringValue(s.Address()) }
