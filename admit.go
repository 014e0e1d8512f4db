package meter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
)

// Decision is what was decided about a caller, before the call runs.
//
// Concurrency: read-only.
type Decision struct {
	Feature string
	Caller  Caller          // with the subject that is billed
	Verdict license.Verdict // zero without a Checker
	Refusal *RefusedError   // nil: let through
	Shadow  bool            // Config.Shadow: let through in spite of Refusal
}

// admit decides about who, and makes c their call if they may. unknown is why who
// could not be identified, nil if they could.
func (f *Feature) admit(c *Call, ctx context.Context, cfg *callConfig, who Caller, unknown *RefusedError) error {
	m := f.meter
	if m.closing.Load() {
		return f.refusal(license.Unavailable, who.Subject, ErrClosed)
	}
	if err := m.ledger.Refusal(); err != nil {
		return f.refusal(license.Unavailable, who.Subject, err) // before the work, not after it
	}
	if f.kind != sink.Sum {
		return fmt.Errorf("%w: feature %q is of kind %v: %w", ErrKind, f.name, f.kind, errNoSum)
	}
	dims := dimensionsOf(ctx)
	if dims != nil && dims.err != nil {
		return dims.err
	}
	var verdict license.Verdict
	subject, refusal := "", unknown
	if refusal == nil {
		subject, refusal = f.check(ctx, who, &verdict)
	}
	if refusal == nil && cfg.limiter != nil {
		if ok, retryAfter := cfg.limiter.allow(subject, time.Now()); !ok {
			refusal = f.refusal(license.TooFast, subject, nil)
			refusal.RetryAfter = retryAfter
		}
	}
	c.feature, c.caller, c.subject, c.dims, c.preset = f, who, subject, dims, cfg.preset
	c.state.Store(unset)
	if m.cfg.OnDecision != nil {
		m.cfg.OnDecision(ctx, Decision{f.name, c.Caller(), verdict, refusal, m.cfg.Shadow})
	}
	if refusal != nil && !m.cfg.Shadow {
		return refusal
	}
	return nil
}

// check says who is billed for a call by who, or why there is none. Refused, it
// still names the subject if it is known.
func (f *Feature) check(ctx context.Context, who Caller, verdict *license.Verdict) (string, *RefusedError) {
	m := f.meter
	if who.Subject == "" && who.Key.IsZero() {
		return "", f.refusal(license.NoKey, "", ErrNoCaller)
	}
	if why := badValue(who.Subject, maxSubject); why != "" {
		return "", f.refusal(license.NoKey, "", fmt.Errorf("%w: subject: %s", ErrName, why))
	}
	if m.cfg.Checker == nil {
		if who.Subject == "" {
			m.warnNoChecker.Do(func() {
				m.log().WarnContext(ctx, "meter: a key without a Config.Checker names nobody to bill; calls are refused", "feature", f.name)
			})
			return "", f.refusal(license.NoKey, "", ErrNoCaller)
		}
		return who.Subject, nil
	}
	if err := badKey(who.Key.Reveal()); err != nil {
		return "", f.refusal(license.NoKey, "", err)
	}
	if why := badValue(who.Machine, maxMachine); why != "" {
		return "", f.refusal(license.NoKey, "", fmt.Errorf("%w: machine: %s", ErrName, why))
	}
	v, err := ask(ctx, m.cfg.Checker, license.Query{Key: who.Key, Subject: who.Subject, Feature: f.name, Machine: who.Machine})
	subject := who.Subject
	if err == nil && v.Subject != "" {
		subject = v.Subject
		if why := badValue(subject, maxSubject); why != "" {
			subject, err = "", fmt.Errorf("%w: subject of the verdict: %s", ErrName, why)
		}
	}
	if err != nil {
		v = license.Verdict{} // unknown, whatever came with the error
	} else if !v.Until.IsZero() && !time.Now().Before(v.Until) {
		v.Status, err = license.Unknown, errUntil
	}
	*verdict = v
	switch {
	case v.Status == license.Denied:
		reason := v.Reason
		if reason == "" {
			reason = license.NotEntitled
		}
		return subject, f.refusal(reason, subject, nil)
	case v.Status != license.Allowed && !m.cfg.AllowUnknown:
		f.warn(ctx, "the Checker gave no verdict", err)
		return subject, f.refusal(license.Unavailable, subject, err)
	case subject == "":
		f.warn(ctx, "the verdict names no Subject to bill", err)
		return "", f.refusal(license.Unavailable, "", errors.Join(ErrNoCaller, err))
	}
	return subject, nil
}

var errUntil = errors.New("meter: the verdict was valid until a time that has passed")

// ask turns a panic into an error, for a Checker's bug must not end connections.
func ask(ctx context.Context, c license.Checker, q license.Query) (v license.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = license.Verdict{}, &checkerPanic{p, debug.Stack()}
		}
	}()
	v, err = c.Check(ctx, q)
	if err != nil {
		_, _ = err.Error(), errors.Is(err, errUntil) // an error that panics shall do it here
	}
	return v, err
}

// checkerPanic tells of a panic without its text, which may hold a key; the
// runtime's own texts don't.
type checkerPanic struct {
	value any
	stack []byte
}

func (e *checkerPanic) Error() string {
	if err, ok := e.value.(runtime.Error); ok {
		return "meter: the Checker panicked: " + err.Error()
	}
	return fmt.Sprintf("meter: the Checker panicked with a %T", e.value)
}

func (f *Feature) refusal(reason license.Reason, subject string, cause error) *RefusedError {
	return &RefusedError{Feature: f.name, Subject: subject, Reason: reason, Cause: cause}
}

// warn tells why calls are refused that are not the caller's fault, each reason at
// most once a minute: in an outage it is every call.
func (f *Feature) warn(ctx context.Context, why string, err error) {
	now := time.Now().Unix()
	last, _ := f.meter.warned.LoadOrStore(why, new(atomic.Int64))
	at := last.(*atomic.Int64)
	if before := at.Load(); now-before >= 60 && at.CompareAndSwap(before, now) {
		attrs := []slog.Attr{slog.String("because", why), slog.String("feature", f.name)}
		if err != nil {
			attrs = append(attrs, slog.Any("error", err))
		}
		if p, ok := err.(*checkerPanic); ok {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
		f.meter.log().LogAttrs(ctx, slog.LevelWarn, "meter: calls are refused (told once a minute)", attrs...)
	}
}
