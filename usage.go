package meter

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/license"
)

// usageOf is what a client is told of one feature.
type usageOf struct {
	Feature  string     `json:"feature"`
	Unit     string     `json:"unit,omitempty"`
	Kind     string     `json:"kind"`
	Quantity int64      `json:"quantity"`
	Held     int64      `json:"held,omitempty"`
	Used     int64      `json:"used,omitempty"`
	Drawn    *int64     `json:"drawn,omitempty"`
	Limit    *int64     `json:"limit,omitempty"`
	Left     *int64     `json:"left,omitempty"`
	Start    *time.Time `json:"start,omitempty"`
	End      *time.Time `json:"end,omitempty"`
}

// Usage answers a caller with what it has used in the running period, and with nobody
// else's use, as JSON; at GET and HEAD:
//
//	{"subject":"cus_1","usage":[{"feature":"report","kind":"sum","quantity":58,
//	  "limit":100,"left":42,"start":"2026-11-01T00:00:00Z","end":"2026-12-01T00:00:00Z"}]}
//
// The caller is found by identify, nil for [Config.Identify], and must be known to the
// Checker, as for [Middleware], also under [Config.AllowUnknown]: who claims to be
// somebody is shown nothing while nobody can tell whether that is so. Keys are not
// shown. features are told of in their order; none: all that are declared, by name,
// each as the latest declaration with a Limit or Prepaid has it. A feature that the Checker denies
// is left out, but not when it is unpaid or used up; when none is left, the answer is
// the refusal. Nothing is counted, reserved, taken of a rate or changed of a quota.
//
// limit and left are there if a quota is; held is what running calls have reserved of
// it, used what others are known to have used. With [Prepaid] quantity is all that was
// used since something was drawn first, drawn what is drawn here of what was bought, and
// not used; it is no limit, for the balance has more.
//
// Usage panics, at wiring, when nothing says who calls.
func (m *Meter) Usage(identify Identify, features ...*Feature) http.Handler {
	if identify == nil {
		identify = m.cfg.Identify
	}
	if identify == nil {
		panic("meter: Usage can't tell who calls; set Config.Identify or give it an Identify such as meter.KeyHeader")
	}
	if i := slices.Index(features, nil); i >= 0 {
		panic(fmt.Sprintf("meter: Usage: feature %d is nil", i))
	}
	return &usage{m, identify, slices.Clone(features)}
}

type usage struct {
	meter    *Meter
	identify Identify
	features []*Feature
}

func (u *usage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	features := u.features
	if len(features) == 0 {
		features = u.meter.limitedFeatures()
		slices.SortFunc(features, func(a, b *Feature) int { return strings.Compare(a.name, b.name) })
	}
	var answer struct {
		Subject string    `json:"subject"`
		Usage   []usageOf `json:"usage"`
	}
	var refusal *RefusedError
	for _, f := range features {
		subject, told, refused := u.look(f, r)
		switch {
		case refused != nil:
			refusal = refused
		case answer.Subject == "" || answer.Subject == subject:
			answer.Subject, answer.Usage = subject, append(answer.Usage, told)
		}
	}
	if answer.Subject == "" {
		if refusal == nil {
			http.NotFound(w, r) // nothing is declared
			return
		}
		WriteProblem(w, r, refusal)
		return
	}
	body, _ := json.Marshal(answer) // such plain values can't fail
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}

// look finds the caller's use of f.
func (u *usage) look(f *Feature, r *http.Request) (subject string, told usageOf, refusal *RefusedError) {
	ctx := r.Context()
	who, refusal := f.who(u.identify, r)
	if refusal != nil {
		return "", told, refusal
	}
	var verdict license.Verdict
	subject, refusal = f.check(ctx, &who, &verdict, &clock{})
	if refusal != nil && (verdict.Subject == "" || refusal.Reason != license.Unpaid && refusal.Reason != license.OverQuota) {
		return "", told, refusal
	}
	if verdict.Status == license.Unknown && u.meter.cfg.Checker != nil { // let through by AllowUnknown
		return "", told, f.refusal(license.Unavailable, subject, nil)
	}
	t := f.Total(subject)
	if f.prepay == nil && (verdict.Quota != nil || f.limit != nil) {
		if q, err := f.quotaOf(ctx, subject, verdict.Quota); err == nil {
			t = f.totalUnder(subject, q)
		}
	}
	told = usageOf{Feature: f.name, Unit: f.unit, Kind: f.kind.String(), Quantity: t.Quantity, Held: t.Held, Used: t.Used}
	if f.prepay != nil {
		told.Drawn = &t.Drawn
	}
	if t.Limit >= 0 {
		left := t.Left()
		told.Limit, told.Left = &t.Limit, &left
	}
	if !t.Start.IsZero() {
		told.Start = &t.Start
	}
	if !t.End.IsZero() {
		told.End = &t.End
	}
	return subject, told, nil
}
