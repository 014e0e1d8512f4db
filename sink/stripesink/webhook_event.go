package stripesink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// The types of events by which Stripe reports what it could not bill.
const (
	errorReport  = "v1.billing.meter.error_report_triggered"
	noMeterFound = "v1.billing.meter.no_meter_found"
)

var (
	eventID  = regexp.MustCompile(`^evt_[A-Za-z0-9_]{1,250}$`)
	recordID = regexp.MustCompile(`^[0-9a-z-]{1,64}$`)
	// freshKey is what idempotencyKey adds to a record's ID.
	freshKey = regexp.MustCompile(`-[A-Z2-7]{26}$`)
)

// event is what is read of an event, a thin one or the whole of it. Data stays raw, for
// that of other types looks different.
type event struct {
	stripe.APIResource `json:"-"`

	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Livemode bool            `json:"livemode"`
	Data     json.RawMessage `json:"data"`
	Related  struct {
		ID string `json:"id"`
	} `json:"related_object"`
}

func (e *event) reportsErrors() bool { return e.Type == errorReport || e.Type == noMeterFound }

// report is the data of an event that reports errors.
type report struct {
	Reason *struct {
		ErrorCount int64 `json:"error_count"`
		ErrorTypes []struct {
			Code         string `json:"code"`
			SampleErrors []struct {
				Message string `json:"error_message"`
				Request struct {
					Identifier string `json:"identifier"`
				} `json:"request"`
			} `json:"sample_errors"`
		} `json:"error_types"`
	} `json:"reason"`
}

// decodeEvent reads a delivery.
func decodeEvent(body []byte) (event, error) {
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return event{}, errors.New("no event: not readable as JSON")
	}
	if !eventID.MatchString(e.ID) || e.Type == "" {
		return event{}, errors.New("no event: it lacks an ID or a type")
	}
	return e, nil
}

// decodeReport reads an event's data; false if it has none.
func decodeReport(data json.RawMessage) (report, bool) {
	var r report
	if len(bytes.TrimSpace(data)) == 0 || json.Unmarshal(data, &r) != nil || r.Reason == nil {
		return report{}, false
	}
	return r, true
}

// handle reopens what e names. An error means that Stripe shall send e again.
func (h *webhookHandler) handle(ctx context.Context, e event) error {
	s := h.sink
	if s.faults != nil {
		return s.faults
	}
	if live := stripeapi.Live(s.cfg.Key); e.Livemode != live {
		h.log.Warn("stripesink: webhook event ignored: it is of the other mode than the key", "event", e.ID, "livemode", e.Livemode)
		return nil
	}
	rep, ok := decodeReport(e.Data)
	if !ok {
		full, err := s.fetchEvent(ctx, e)
		if err != nil {
			return err
		}
		if rep, ok = decodeReport(full.Data); !ok {
			return fmt.Errorf("stripesink: event %s has no report in its data", e.ID)
		}
		e = full
	}
	var failed []error
	var named int64
	for _, kind := range rep.Reason.ErrorTypes {
		for _, sample := range kind.SampleErrors {
			named++
			reason := stripeapi.Clean(fmt.Sprintf("Stripe could not bill it (%s): %s", kind.Code, sample.Message), s.cfg.Key)
			if err := h.reopenSample(ctx, sample.Request.Identifier, reason); err != nil {
				failed = append(failed, err)
			}
		}
	}
	log := h.log.With("event", e.ID, "meter", stripeapi.Clean(e.Related.ID, s.cfg.Key), "errors", rep.Reason.ErrorCount, "named", named)
	if rep.Reason.ErrorCount > named {
		log.Warn("stripesink: Stripe could not bill usage and names only samples of it: Reconcile finds the rest")
	} else {
		log.Warn("stripesink: Stripe could not bill usage")
	}
	return errors.Join(failed...)
}

// reopenSample reopens the record that Stripe names; nil also if it is none of ours.
func (h *webhookHandler) reopenSample(ctx context.Context, identifier, reason string) error {
	id := freshKey.ReplaceAllString(identifier, "")
	if !recordID.MatchString(id) {
		h.log.Warn("stripesink: Stripe could not bill an event that is none of this library's",
			"identifier", stripeapi.Clean(identifier, h.sink.cfg.Key), "reason", reason)
		return nil
	}
	switch err := h.reopen(ctx, id, reason); {
	case errors.Is(err, sink.ErrUnknownRecord):
		h.log.Warn("stripesink: Stripe could not bill a record that is not here", "record", id, "reason", reason)
	case err != nil:
		return fmt.Errorf("stripesink: reopening record %s: %w", id, err)
	default:
		h.log.Warn("stripesink: record reopened", "record", id, "reason", reason)
	}
	return nil
}

// fetchEvent asks Stripe for the whole of a thin event.
func (s *Sink) fetchEvent(ctx context.Context, thin event) (full event, err error) {
	what := "reading event " + thin.ID
	a := ask(ctx, s.cfg.Key, func(ctx context.Context) error {
		return s.api.GetV2(ctx, s.cfg.Key, stripe.FormatURLPath("/v2/core/events/%s", thin.ID), &full)
	})
	err = a.needing("read access to events", a.failure(what, "v2.core.event"))
	if err == nil && (full.ID != thin.ID || full.Type != thin.Type || full.Livemode != thin.Livemode) {
		err = fmt.Errorf("stripesink: %s: the answer is another event, so perhaps not Stripe's", what)
	}
	return full, err
}
