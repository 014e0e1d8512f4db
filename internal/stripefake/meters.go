package stripefake

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
)

// Meter is a billing meter. Only EventName is required.
//
// Concurrency: a plain value.
type Meter struct {
	ID          string // "": made up
	EventName   string
	Status      string // "": active
	Formula     string // "": sum
	TimeWindow  string // "": none, else hour or day
	CustomerKey string // "": stripe_customer_id
	ValueKey    string // "": value
}

func (m Meter) withDefaults(i int) Meter {
	m.ID = cmp.Or(m.ID, fmt.Sprintf("mtr_fake%d", i+1))
	m.Status = cmp.Or(m.Status, "active")
	m.Formula = cmp.Or(m.Formula, "sum")
	m.CustomerKey = cmp.Or(m.CustomerKey, "stripe_customer_id")
	m.ValueKey = cmp.Or(m.ValueKey, "value")
	return m
}

func (m Meter) object() map[string]any {
	var window any // null when unset
	if m.TimeWindow != "" {
		window = m.TimeWindow
	}
	return map[string]any{
		"id": m.ID, "object": "billing.meter", "event_name": m.EventName, "status": m.Status,
		"default_aggregation": map[string]string{"formula": m.Formula},
		"event_time_window":   window,
		"customer_mapping":    map[string]string{"event_payload_key": m.CustomerKey, "type": "by_id"},
		"value_settings":      map[string]string{"event_payload_key": m.ValueKey},
	}
}

// meter finds the active meter of an event name.
func (s *Server) meter(eventName string) (Meter, bool) {
	for _, m := range s.meters {
		if m.EventName == eventName && m.Status == "active" {
			return m, true
		}
	}
	return Meter{}, false
}

func (s *Server) listMeters(r *request) response {
	if r.fault.Answer == Error500 {
		return failure(http.StatusInternalServerError, "api_error", "", "An unknown error occurred")
	}
	limit := 10
	if text := r.form.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return failure(http.StatusBadRequest, "invalid_request_error", "parameter_invalid_integer", "Invalid limit")
		}
		limit = n
	}
	page, after := []any{}, r.form.Get("starting_after")
	more := false
	for _, m := range s.meters {
		switch {
		case after != "":
			if m.ID == after {
				after = ""
			}
		case len(page) == limit:
			more = true
		default:
			page = append(page, m.object())
		}
	}
	return object(map[string]any{"object": "list", "url": "/v1/billing/meters", "has_more": more, "data": page})
}
