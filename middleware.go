package meter

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/inprocess/meter/license"
)

// Result says how a call ended.
//
// A client has left when the request's context was canceled, as far as a server can
// tell: net/http cancels it for one that only closed its sending side, and a host
// that cancels the context of its own accord says the same of clients that are there.
//
// Concurrency: a plain value.
type Result struct {
	Err    error // what a function returned
	Status int   // what a handler wrote; 0: nothing, which the server turns into 200
	// Panicked, also when it ended its goroutine with runtime.Goexit, or gave up with
	// http.ErrAbortHandler though the client was there, as httputil.ReverseProxy does
	// when its upstream dies.
	Panicked bool
	Hijacked bool // a handler took over the connection
	// Gone: the request's context had ended when the handler did; or a write had
	// failed, and the handler gave up with http.ErrAbortHandler.
	Gone bool
	// Unseen: the client had left before anything was written, so nobody saw what
	// came later. Never when Hijacked, for then the handler wrote to the connection.
	Unseen bool
}

func countsByDefault(r Result) bool {
	return r.Err == nil && r.Status < 400 && !r.Panicked && !r.Unseen
}

func (c *callConfig) counts(r Result) bool {
	if c.countWhen == nil {
		return countsByDefault(r)
	}
	return c.countWhen(r)
}

// Middleware meters every request as one call of f. It finds the caller with the
// Identify among opts, the feature's, or Config.Identify, and panics at wiring
// when there is none, when an option is bad, or when f is no Sum. Refused requests
// are answered by [WriteProblem] or Refuse, never reach the handler, and count
// nothing.
//
// The handler reaches its call with [CallFrom] and [SetQuantity]. The response
// writer is transparent: it has Flush, Hijack, Push, ReadFrom and CloseNotify
// exactly if the server's has them, and [net/http.ResponseController] finds the
// rest. Panics go on unchanged, with their stack.
//
// Guarantee: a request that counts (see [CountWhen]) is in the ledger before the
// server ends the response. A client that has all of the body by then may be ahead
// of the count by the rest of the handler, and a kill in that moment loses the
// count: when a Content-Length was reached and sent, after a flush of all there is,
// with a file, on HEAD. If a request could not be counted and nothing was written
// yet, the client gets 503 instead of a product that nobody pays for; else the
// failure is logged, for what a handler wrote can't be taken back.
//
// HEAD counts as GET does, for the same handler runs. A connection that is taken
// over counts once, when its handler returns.
//
// Two middlewares around one handler count two features. Put Middleware outside
// of http.TimeoutHandler, whose 503 it could not see from inside.
func Middleware(f *Feature, opts ...Option) func(http.Handler) http.Handler {
	h := metered{feature: f, cfg: f.mustWith("Middleware", opts)}
	if h.identify = h.cfg.identify; h.identify == nil {
		h.identify = f.meter.cfg.Identify
	}
	if h.identify == nil {
		panic(fmt.Sprintf("meter: Middleware of feature %q can't tell who calls; set Config.Identify or give it an Identify such as meter.KeyHeader", f.name))
	}
	if h.cfg.limiter != nil && !f.meter.cfg.Shadow {
		cfg := *h.cfg // may be the feature's
		cfg.tellsRate = true
		h.cfg = &cfg
	}
	if h.refuse = h.cfg.refuse; h.refuse == nil {
		h.refuse = WriteProblem
	}
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic(fmt.Sprintf("meter: Middleware of feature %q around a nil handler", f.name))
		}
		around := h
		around.next = next
		return &around
	}
}

type metered struct {
	feature  *Feature
	cfg      *callConfig
	identify Identify
	refuse   func(http.ResponseWriter, *http.Request, error)
	next     http.Handler
}

// exchange is all that a request costs beside its copy: context, call and
// response writer in one object. It is not pooled, for a handler's goroutine may
// hold any of them for longer than the request lasts.
type exchange struct {
	ctx    callContext
	writer responseWriter
}

// ratedExchange has room for the RateLimit fields, too.
type ratedExchange struct {
	exchange
	rate rateText
}

func (h *metered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, rate := h.exchange()
	x.ctx.Context = r.Context()
	x.writer.ResponseWriter, x.writer.request, x.writer.upgrades = w, r.Context(), r.ProtoMajor == 1
	who, unknown := h.feature.who(h.identify, r)
	var bad error
	if h.cfg.keyed {
		x.ctx.call.repeat, bad = idempotencyKey(r.Header)
	}
	err := h.feature.admit(&x.ctx.call, r.Context(), h.cfg, who, unknown)
	if err == nil && bad != nil { // who calls comes first
		x.ctx.call.Cancel() // and free what it holds
		err = bad
	}
	if err != nil {
		h.tell(w, x, rate, err)
		h.refuse(w, r, err)
		return
	}
	inner := r // until there is one
	returned := false
	defer func() {
		// The server removes the files of the form it knows, the outer request's.
		r.MultipartForm = inner.MultipartForm
		if returned {
			h.end(x, r, Result{})
			return
		}
		// Recovering is the only way to learn the value. This frame still stands on
		// those that panicked, so the stack that the server prints has them.
		v := recover()
		gone := v == http.ErrAbortHandler && (x.writer.failed || r.Context().Err() != nil)
		h.end(x, r, Result{Gone: gone, Panicked: !gone})
		if v != nil {
			panic(v)
		}
	}()
	h.tell(w, x, rate, nil)
	inner = r.WithContext(&x.ctx)
	h.next.ServeHTTP(x.writer.shaped(), inner)
	returned = true
}

// tell tells the client how it stands with rate and quota.
func (h *metered) tell(w http.ResponseWriter, x *exchange, rate *rateText, err error) {
	call := &x.ctx.call
	if rate != nil && call.account != nil {
		h.cfg.limiter.fields.write(w.Header(), rate, call.left)
	}
	if h.feature.meter.cfg.Shadow {
		return
	}
	if call.tally != nil {
		h.feature.tellQuota(w.Header(), call.standing())
	} else if err == nil && call.repeat != "" {
		h.feature.tellQuota(w.Header(), h.feature.Total(call.subject))
	} else if refusal, ok := err.(*RefusedError); ok && refusal.Total != nil { //nolint:errorlint // it is admit's own
		h.feature.tellQuota(w.Header(), *refusal.Total)
	}
}

func (h *metered) exchange() (*exchange, *rateText) {
	if h.cfg.tellsRate {
		x := &ratedExchange{}
		return &x.exchange, &x.rate
	}
	return &exchange{}, nil
}

// who finds the caller of a request.
func (f *Feature) who(identify Identify, r *http.Request) (Caller, *RefusedError) {
	who, err := identify(r)
	if err == nil {
		return who, nil
	}
	if refusal, ok := errors.AsType[*RefusedError](err); ok {
		if refusal != nil {
			named := *refusal
			named.Feature = f.name
			return who, &named
		}
		err = errNilRefusal
	}
	f.warn(r.Context(), refused, "Identify failed", err)
	return who, f.refusal(license.Unavailable, who.Subject, err)
}

// errNilRefusal is a common slip: a variable of type *RefusedError, returned as an
// error without having been set.
var errNilRefusal = errors.New("meter: Identify returned a nil *RefusedError, which is an error; return nil")

func (h *metered) end(x *exchange, r *http.Request, result Result) {
	result.Status, result.Hijacked = x.writer.status, x.writer.hijacked
	result.Gone = result.Gone || r.Context().Err() != nil
	result.Unseen = !result.Hijacked && (x.writer.late || result.Gone && result.Status == 0)
	call := &x.ctx.call
	defer call.Cancel() // also when a CountWhen panics
	if !h.cfg.counts(result) {
		return
	}
	err := call.settle()
	if err == nil {
		return
	}
	h.feature.notCounted(r.Context(), call, err)
	if result.Status == 0 && !result.Hijacked && !result.Panicked && !result.Gone && !errors.Is(err, ErrUnsynced) && !errors.Is(err, ErrConflict) {
		h.refuse(x.writer.ResponseWriter, r, h.feature.refusal(license.Unavailable, call.subject, err))
	}
}

// notCounted tells the log what no caller can be told any more.
func (f *Feature) notCounted(ctx context.Context, c *Call, err error) {
	if errors.Is(err, ErrConflict) {
		f.meter.log().WarnContext(ctx, "meter: call not counted again: its Idempotency-Key was used before for another quantity, which stands", "feature", f.name, "subject", c.subject, "quantity", c.Quantity())
		return
	}
	if errors.Is(err, ErrUnsynced) {
		f.meter.log().WarnContext(ctx, "meter: call counted, but not yet safe from power loss", "feature", f.name, "subject", c.subject, "error", err)
		return
	}
	f.meter.log().ErrorContext(ctx, "meter: call not counted", "feature", f.name, "subject", c.subject, "quantity", c.Quantity(), "error", err)
}
