package stripetest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// reportWindow is the time whose errors Stripe reports together.
const reportWindow = 10 * time.Second

// stampLayout is that of times in API v2.
const stampLayout = "2006-01-02T15:04:05.000Z"

// firstV2 is the first version of the API with the events of API v2.
const firstV2 = "2024-09-30"

// reject is an event that was accepted and is billed to nobody.
type reject struct {
	at                               time.Time
	meter, code, message, identifier string // meter "": there is none
}

// report is an event of API v2 that tells of rejects of one meter and window.
type report struct {
	id      string
	created time.Time
	rejects []reject
}

func (s *Server) reject(m *meter, e *event, message string) {
	r := reject{at: e.received, code: e.Problem, message: message, identifier: e.Identifier}
	if m != nil {
		r.meter = m.ID
	}
	s.rejects = append(s.rejects, r)
}

// report makes reports of all rejects so far. Stripe does it after some seconds.
func (s *Server) report() []report {
	type key struct {
		window int64
		meter  string
	}
	groups := map[key][]reject{}
	for _, r := range s.rejects {
		k := key{r.at.Truncate(reportWindow).Unix(), r.meter}
		groups[k] = append(groups[k], r)
	}
	s.rejects = nil
	for _, k := range slices.SortedFunc(maps.Keys(groups), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.window, b.window), cmp.Compare(a.meter, b.meter))
	}) {
		s.reports = append(s.reports, report{s.newID("evt"), s.now(), groups[k]})
	}
	return s.reports
}

func (r report) kind() string {
	if r.rejects[0].meter == "" {
		return "v1.billing.meter.no_meter_found"
	}
	return "v1.billing.meter.error_report_triggered"
}

// thin is the report as webhooks deliver it.
func (s *Server) thin(r report) object {
	o := object{
		"id": r.id, "object": "v2.core.event", "type": r.kind(), "livemode": s.Live,
		"created": r.created.UTC().Format(stampLayout), "context": nil, "reason": nil, "related_object": nil,
	}
	if meter := r.rejects[0].meter; meter != "" {
		o["related_object"] = object{"id": meter, "type": "billing.meter", "url": "/v1/billing/meters/" + meter}
	}
	return o
}

// getReport answers with the report and its data.
func (s *Server) getReport(r *request) response {
	if version := r.Header.Get("Stripe-Version"); version < firstV2 {
		return failure(http.StatusBadRequest, "invalid_request_error", "", "",
			"API v2 needs the header Stripe-Version, of "+firstV2+" or later; this request has '"+version+"'.")
	}
	for _, found := range s.report() {
		if found.id == r.PathValue("id") {
			o := s.thin(found)
			o["data"] = s.reportData(found)
			return ok(o)
		}
	}
	return failure(http.StatusNotFound, "invalid_request_error", "not_found", "", "Requested resource was not found.")
}

func (s *Server) reportData(r report) object {
	byCode := map[string][]reject{}
	for _, one := range r.rejects {
		byCode[one.code] = append(byCode[one.code], one)
	}
	types := []any{}
	for _, code := range slices.Sorted(maps.Keys(byCode)) {
		samples := []any{}
		for _, one := range byCode[code][:min(len(byCode[code]), cmp.Or(s.Samples, 1))] {
			samples = append(samples, object{
				"error_message": one.message, "request": object{"identifier": one.identifier},
			})
		}
		types = append(types, object{"code": code, "error_count": len(byCode[code]), "sample_errors": samples})
	}
	start := r.rejects[0].at.UTC().Truncate(reportWindow)
	summary := "There is 1 invalid event"
	if n := len(r.rejects); n > 1 {
		summary = fmt.Sprintf("There are %d invalid events", n)
	}
	return object{
		"developer_message_summary": summary,
		"reason":                    object{"error_count": len(r.rejects), "error_types": types},
		"validation_start":          start.Format(stampLayout),
		"validation_end":            start.Add(reportWindow).Format(stampLayout),
	}
}
