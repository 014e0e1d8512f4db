package httpsink

import (
	"errors"
	"time"

	"github.com/inprocess/meter/sink"
)

const (
	eventType  = "application/cloudevents+json"
	eventsType = "application/cloudevents-batch+json"
)

// eventJSON is a CloudEvent 1.0 in JSON.
type eventJSON struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            *dataJSON `json:"data"`
}

// dataJSON is the same at every attempt: the event with an ID never changes.
type dataJSON struct {
	Value      *int64            `json:"value"`
	Kind       string            `json:"kind"`
	Feature    string            `json:"feature"`
	Start      time.Time         `json:"start"`
	End        time.Time         `json:"end"`
	Dimensions map[string]string `json:"dimensions,omitempty"`
	Backdated  bool              `json:"backdated,omitempty"`
}

// event takes the window's last second for the time: at its end begins what may be
// another bill's.
func (c *CloudEvents) event(r sink.Record) eventJSON {
	kind, ok := c.Types[r.Feature]
	if !ok {
		kind = r.Feature
	}
	return eventJSON{
		SpecVersion: "1.0", ID: r.ID, Source: c.Source, Type: kind, Subject: r.Subject,
		Time: r.End.UTC().Add(-time.Second), DataContentType: jsonType,
		Data: &dataJSON{
			Value: &r.Quantity, Kind: r.Kind.String(), Feature: r.Feature,
			Start: r.Start.UTC(), End: r.End.UTC(), Dimensions: r.Dimensions, Backdated: r.Backdated,
		},
	}
}

func (e eventJSON) record() (sink.Record, error) {
	j := recordJSON{ID: e.ID, Feature: e.Type, Subject: e.Subject}
	if e.Data == nil {
		r, _ := j.record()
		return r, errors.New("it has no data")
	}
	if e.Data.Feature != "" {
		j.Feature = e.Data.Feature
	}
	j.Dimensions, j.Kind, j.Quantity, j.Start, j.End = e.Data.Dimensions, e.Data.Kind, e.Data.Value, e.Data.Start, e.Data.End
	j.Backdated = e.Data.Backdated
	r, err := j.record()
	if e.SpecVersion != "1.0" {
		err = errors.New("it is no CloudEvent of version 1.0")
	}
	return r, err
}

func decodeEvents(body []byte, single bool) ([]entry, error) {
	events := make([]eventJSON, 1)
	var err error
	if single {
		err = decode(body, &events[0])
	} else {
		err = decode(body, &events)
	}
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(events))
	for i, e := range events {
		entries[i].Record, entries[i].fault = e.record()
	}
	return entries, nil
}
