package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// prepare asks about features now. A sink that does not return when ctx ends
// keeps the turn, and its answer still counts.
func (p *preparer) prepare(ctx context.Context, features []sink.Feature) error {
	if p.route.life.Err() != nil {
		return p.route.wrong("features not prepared", errStopped)
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return p.route.wrong("features not prepared", context.Cause(ctx))
	}
	select {
	case errs := <-p.ask(ctx, slices.Clone(features)):
		for i, err := range errs {
			if err != nil {
				errs[i] = p.route.wrong(fmt.Sprintf("feature %q", features[i].Name), err)
			}
		}
		return errors.Join(errs...)
	case <-ctx.Done():
		return p.route.wrong("features not prepared", context.Cause(ctx))
	}
}

// ask asks the sink in the background. The turn must be taken; it is given back
// when the sink has really returned.
func (p *preparer) ask(ctx context.Context, features []sink.Feature) (answers <-chan []error) {
	ctx, cancel := context.WithCancel(ctx)
	halt := context.AfterFunc(p.route.life, cancel)
	out := make(chan []error, 1)
	go func() {
		errs, vague := p.call(ctx, features)
		for i := range errs {
			// One feature must not hold back the others only because the sink
			// does not say which it is.
			if vague && len(features) > 1 && ctx.Err() == nil {
				alone, _ := p.call(ctx, features[i:i+1])
				errs[i] = alone[0]
			}
		}
		halt()
		cancel()
		p.note(features, errs, time.Now())
		<-p.turn
		out <- errs
		p.route.rouse()
	}()
	return out
}

// call is one call of the sink, with an answer per feature; vague when the sink
// gave one error, in time, for all.
func (p *preparer) call(ctx context.Context, features []sink.Feature) (errs []error, vague bool) {
	ctx, cancel := context.WithTimeout(ctx, p.route.limits.Timeout)
	defer cancel()
	p.began(time.Now())
	defer p.began(time.Time{})
	err := guard(func() error { return p.sink.Prepare(ctx, slices.Clone(features)) })
	p.route.panics.note(err)
	defer func() {
		if riddle := recover(); riddle != nil {
			err = fmt.Errorf("sink returned a %T that %s when it was looked at", err, panicked(riddle))
			errs, vague = slices.Repeat([]error{err}, len(features)), true
		}
	}()
	errs, apart := spread(err, len(features))
	for _, err := range errs {
		sink.RetryDelay(err) // an error that panics shall do it here
	}
	return errs, !apart && err != nil && ctx.Err() == nil
}

func (p *preparer) began(at time.Time) {
	p.mu.Lock()
	p.since = at
	p.mu.Unlock()
}

// note remembers the sink's answers.
func (p *preparer) note(features []sink.Feature, errs []error, now time.Time) {
	var reports []func()
	delays := make([]time.Duration, len(errs))
	for i, err := range errs {
		delays[i] = sink.RetryDelay(err)
	}
	p.mu.Lock()
	for i, feature := range features {
		name, err := slog.String("feature", feature.Name), errs[i]
		before, failing := p.refused[feature.Name]
		if err == nil {
			p.ready[feature.Name] = true
			delete(p.refused, feature.Name)
			if failing {
				reports = append(reports, func() {
					p.route.log.LogAttrs(context.Background(), slog.LevelInfo, "sink is ready for the feature now",
						name, slog.Int("failures", before.tries), slog.Duration("after", now.Sub(before.since)))
				})
			}
			continue
		}
		delete(p.ready, feature.Name)
		after := trouble{err: err, since: before.since, tries: before.tries + 1}
		after.resume = now.Add(max(routePause(after.tries), delays[i]))
		if !failing {
			after.since = now
			reports = append(reports, func() {
				p.route.log.LogAttrs(context.Background(), slog.LevelWarn, "sink is not ready for the feature: its records stay pending",
					name, slog.String("error", text(err)))
			})
		}
		p.refused[feature.Name] = after
	}
	p.mu.Unlock()
	for _, report := range reports {
		report()
	}
}
