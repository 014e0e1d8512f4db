package meter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
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
	Over    bool            // let through, though it takes the subject past a soft quota
	Shadow  bool            // Config.Shadow: let through in spite of Refusal
}

// admit decides about who, and makes c their call if they may. unknown is why who
// could not be identified, nil if they could.
//
// The order is what a refusal costs: nothing is asked about a caller who can't be
// one, and what the Checker or the quota refuses takes nothing of the subject's rate.
func (f *Feature) admit(c *Call, ctx context.Context, cfg *callConfig, who Caller, unknown *RefusedError) error {
	m := f.meter
	if err := f.cannotCount(); err != nil { // before the work, not after it
		refusal := f.refusal(license.Unavailable, who.Subject, err)
		f.decisions.note(refusal)
		return refusal
	}
	if f.kind != sink.Sum {
		return fmt.Errorf("%w: feature %q is of kind %v: %w", ErrKind, f.name, f.kind, errNoSum)
	}
	c.feature, c.caller, c.dims, c.preset = f, who, dimensionsOf(ctx), cfg.preset
	c.state.Store(unset)
	if c.dims != nil && c.dims.err != nil {
		return c.dims.err
	}
	var verdict license.Verdict
	var read clock
	refusal := unknown
	if refusal == nil {
		c.subject, refusal = f.check(ctx, &c.caller, &verdict, &read)
	}
	if refusal == nil && cfg.limiter != nil {
		c.account = cfg.limiter.account(c.subject)
	}
	over := false
	if refusal == nil && (f.limit != nil || f.prepay != nil || verdict.Quota != nil || f.ledger.Tallied()) && !c.repeats() {
		if over, refusal = c.reserve(ctx, cfg, verdict.Quota); refusal != nil {
			c.account = nil // nothing is taken of it, or told
		}
	}
	if refusal == nil && cfg.limiter != nil {
		if refusal = c.take(cfg, read.since(m.start)); refusal != nil {
			c.release()
			c.tally = nil // under Shadow the call goes on
		}
	}
	f.decisions.note(refusal)
	if m.cfg.OnDecision != nil {
		f.tell(ctx, c, Decision{f.name, c.Caller(), verdict, refusal, over, m.cfg.Shadow})
	}
	if refusal != nil && !m.cfg.Shadow {
		return refusal
	}
	return nil
}

// cannotCount is why no call may begin, whoever asks.
func (f *Feature) cannotCount() error {
	if f.meter.closing.Load() {
		return ErrClosed
	}
	return f.meter.ledger.Refusal()
}

// clock is read once per call, for that costs more than counting.
type clock struct{ at time.Time }

// wall is the time of day.
func (c *clock) wall() time.Time {
	if c.at.IsZero() {
		c.at = time.Now()
	}
	return c.at
}

// since is for measuring: start, and what has passed since then. It is cheaper.
func (c *clock) since(start time.Time) time.Time {
	if c.at.IsZero() {
		c.at = start.Add(time.Since(start))
	}
	return c.at
}

// take takes one call of the subject's allowance.
func (c *Call) take(cfg *callConfig, now time.Time) *RefusedError {
	ok := c.account.tokens.AllowN(now, 1)
	if !ok || cfg.tellsRate {
		c.left = c.account.tokens.TokensAt(now)
	}
	if ok {
		return nil
	}
	refusal := c.feature.refusal(license.TooFast, c.subject, nil)
	refusal.RetryAfter = cfg.limiter.next(c.left)
	return refusal
}

// unfit refuses a caller of whom something is told that can't be. That is a mistake of
// whoever identifies callers, or of the request.
func (f *Feature) unfit(ctx context.Context, what, why string) *RefusedError {
	err := fmt.Errorf("%w: %s: %s", ErrName, what, why)
	f.warn(ctx, refused, "Identify named a caller that can't be billed", err)
	return f.refusal(license.NoKey, "", err)
}

// check says who is billed for a call by who, or why there is none. Refused, it
// still names the subject if it is known. read is not read before the Checker has
// answered, which may take its time.
func (f *Feature) check(ctx context.Context, who *Caller, v *license.Verdict, read *clock) (string, *RefusedError) {
	m := f.meter
	if who.Subject == "" && who.Key.IsZero() {
		return "", f.refusal(license.NoKey, "", ErrNoCaller)
	}
	if why := badValue(who.Subject, maxSubject); why != "" {
		return "", f.unfit(ctx, "subject", why)
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
		return "", f.unfit(ctx, "machine", why)
	}
	wait, err := f.ask(ctx, who, v)
	subject := who.Subject
	if v.Subject != "" {
		subject = v.Subject // the license server knows better than the host
		if why := badValue(subject, maxSubject); why != "" {
			subject, err = "", fmt.Errorf("%w: subject of the verdict: %s", ErrName, why)
			*v = license.Verdict{}
		}
	}
	ends := !v.Until.IsZero()
	if ends && !read.wall().Before(v.Until) {
		v.Status, err = license.Unknown, errUntil
	}
	switch {
	case v.Status == license.Denied:
		refusal := f.refusal(v.Reason, subject, nil)
		if v.Reason == "" {
			refusal.Reason = license.NotEntitled
		}
		if ends {
			refusal.RetryAfter = v.Until.Sub(read.wall())
		}
		return subject, refusal
	case v.Status != license.Allowed && !m.cfg.AllowUnknown:
		f.warn(ctx, refused, "the Checker gave no verdict", err)
		refusal := f.refusal(license.Unavailable, subject, err)
		refusal.RetryAfter = wait
		return subject, refusal
	case subject == "":
		f.warn(ctx, refused, "the verdict names no Subject to bill", err)
		return "", f.refusal(license.Unavailable, "", errors.Join(ErrNoCaller, err))
	}
	return subject, nil
}

// retrier is an error that knows when asking again may help, as a cache's while it
// leaves a broken license server alone.
type retrier interface{ RetryAfter() time.Duration }

var errUntil = errors.New("meter: the verdict was valid until a time that has passed")

// ask asks the Checker. With an error v is zero, and wait is when to ask again, if
// the error knows. A panic is an error, for a Checker's bug must not end connections,
// and so is one of the error's own methods.
func (f *Feature) ask(ctx context.Context, who *Caller, v *license.Verdict) (wait time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			*v, wait, err = license.Verdict{}, 0, &panicked{"Checker", p, debug.Stack()}
		}
	}()
	*v, err = f.meter.cfg.Checker.Check(ctx, license.Query{Key: who.Key, Subject: who.Subject, Feature: f.name, Machine: who.Machine})
	if err != nil {
		*v = license.Verdict{}
		if r := retrier(nil); errors.As(err, &r) {
			wait = r.RetryAfter()
		}
		err = withoutKey(err, who.Key)
	}
	return wait, err
}

// withoutKey hides a key that a Checker has put into its error, as net/url does
// with an address that has one. An error that panics shall do it here.
func withoutKey(err error, key license.Key) error {
	text := err.Error()
	_ = errors.Is(err, errUntil)
	hidden := text
	for _, secret := range spellings(key.Reveal()) {
		if secret != "" {
			hidden = strings.ReplaceAll(hidden, secret, "[key]")
		}
	}
	if hidden == text {
		return err
	}
	return &keylessError{err, hidden}
}

// spellings are the ways in which a key comes to stand in an error's text.
func spellings(key string) []string {
	quoted := strconv.Quote(key)
	return []string{
		key, quoted[1 : len(quoted)-1],
		url.QueryEscape(key), url.PathEscape(key), (&url.URL{Path: key}).EscapedPath(),
	}
}

// keylessError is an error with another text. It answers for what has the key, and
// does not unwrap to it: who logs the parts of an error would log it.
type keylessError struct {
	err  error
	text string
}

func (e *keylessError) Error() string        { return e.text }
func (e *keylessError) Is(target error) bool { return errors.Is(e.err, target) }
func (e *keylessError) As(target any) bool   { return errors.As(e.err, target) }

// panicked tells of a panic without its text, which may hold a key; the runtime's
// own texts don't.
type panicked struct {
	who   string
	value any
	stack []byte
}

func (e *panicked) Error() string {
	if err, ok := e.value.(runtime.Error); ok {
		return fmt.Sprintf("meter: the %s panicked: %v", e.who, err)
	}
	return fmt.Sprintf("meter: the %s panicked with a %T", e.who, e.value)
}

func (f *Feature) refusal(reason license.Reason, subject string, cause error) *RefusedError {
	return &RefusedError{Feature: f.name, Subject: subject, Reason: reason, Cause: cause}
}

// What warn tells of.
const (
	refused  = "meter: calls are refused (told once a minute)"
	unbilled = "meter: calls run that nobody is billed for (told once a minute)"
	untold   = "meter: thresholds are not told (told once a minute)"
	unheard  = "meter: decisions are not heard (told once a minute)"
)

// warn tells what happens to calls that is not the caller's fault, for each reason
// at most once a minute: in an outage it is every call.
func (f *Feature) warn(ctx context.Context, what, why string, err error) {
	now := time.Now().Unix()
	last, _ := f.meter.warned.LoadOrStore(why, new(atomic.Int64))
	at := last.(*atomic.Int64)
	if before := at.Load(); now-before >= 60 && at.CompareAndSwap(before, now) {
		attrs := []slog.Attr{slog.String("because", why), slog.String("feature", f.name)}
		if err != nil {
			attrs = append(attrs, slog.Any("error", err))
		}
		if p, ok := err.(*panicked); ok {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
		f.meter.log().LogAttrs(ctx, slog.LevelWarn, what, attrs...)
	}
}
