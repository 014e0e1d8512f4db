package ledger

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/sink"
)

// Feature is what is counted, with all its series.
type Feature struct {
	ledger      *Ledger
	name        string
	kind        sink.Kind
	plain       *index // series without dimensions, by subject
	dimensioned *index // the others, by encoded key
	declared    bool   // by this process; guarded by Ledger.featuresMu
	tallies     tallies
	duplicates  atomic.Int64
}

// Feature declares a feature: ErrName for a bad name, ErrKind if this process
// declared it with another kind.
func (l *Ledger) Feature(name string, kind sink.Kind) (*Feature, error) {
	if err := checkName("feature", name, MaxFeatureName); err != nil {
		return nil, err
	}
	if kind > sink.Last {
		return nil, fmt.Errorf("%w: feature %q: unknown kind %d", ErrKind, name, kind)
	}
	l.featuresMu.Lock()
	defer l.featuresMu.Unlock()
	f := l.features[name]
	if f != nil && f.kind != kind {
		if f.declared {
			return nil, fmt.Errorf("%w: feature %q is declared as %v and as %v: give one of them another name", ErrKind, name, f.kind, kind)
		}
		f = nil // an earlier version of the program counted it otherwise
	}
	if f == nil {
		f = l.newFeature(name, kind)
	}
	f.declared = true
	return f, nil
}

// featureFromDisk is Feature for what recovery finds; nil if the program has
// declared another kind.
func (l *Ledger) featureFromDisk(name string, kind sink.Kind) *Feature {
	l.featuresMu.Lock()
	defer l.featuresMu.Unlock()
	f := l.features[name]
	if f == nil {
		f = l.newFeature(name, kind)
	}
	if f.kind != kind {
		return nil
	}
	return f
}

func (l *Ledger) newFeature(name string, kind sink.Kind) *Feature {
	f := &Feature{ledger: l, name: name, kind: kind, plain: newIndex(), dimensioned: newIndex()}
	// A replaced feature's series may still be counted in: it stays listed.
	list := append(l.featuresNow(), f)
	l.featureList.Store(&list)
	l.features[name] = f
	return f
}

func (l *Ledger) featuresNow() []*Feature {
	list := *l.featureList.Load()
	return list[:len(list):len(list)]
}

// Refusal is why nothing new can be counted now, as far as that is known before
// it is tried: ErrFull, ErrClosed; else nil.
func (l *Ledger) Refusal() error {
	if l.closed.Load() {
		return ErrClosed
	}
	return l.active.Load().refusal
}

// Add counts n of the feature (a Sum) for subject.
func (f *Feature) Add(subject string, n int64) error {
	if s := f.plain.find(subject); s != nil {
		return s.Add(n)
	}
	s, err := f.Series(subject, nil)
	if err != nil {
		return err
	}
	return s.Add(n)
}

// Series resolves the series of a subject and dimensions; its methods are the
// fastest way to count.
func (f *Feature) Series(subject string, dimensions map[string]string) (*Series, error) {
	if len(dimensions) == 0 {
		if s := f.plain.find(subject); s != nil {
			return s, nil
		}
	}
	if err := checkSeries(subject, dimensions); err != nil {
		return nil, err
	}
	if len(dimensions) == 0 {
		return f.plain.findOrAdd(subject, func() *Series { return newSeries(f, subject, 0) }), nil
	}
	key := string(appendKey(nil, f.name, subject, dimensions))
	if len(key) > maxKey {
		return nil, fmt.Errorf("%w: subject and dimensions have %d bytes together, at most %d are allowed", ErrName, len(key), maxKey)
	}
	return f.named(key, subject, 0), nil
}

// named is the series of an encoded key.
func (f *Feature) named(key, subject string, flags uint32) *Series {
	return f.dimensioned.findOrAdd(key, func() *Series {
		s := newSeries(f, key, dimensioned|flags)
		f.link(subject, s)
		return s
	})
}

// link makes a series with dimensions part of its subject's total, unless it is. It is not
// evicted any more. The caller holds the lock of the series' shard.
func (f *Feature) link(subject string, s *Series) {
	x := f.plain
	sh := x.shard(x.hash(subject))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	plain := x.find(subject)
	if plain == nil {
		plain = newSeries(f, subject, 0)
		x.insert(plain)
	}
	f.ledger.totalsMu.Lock()
	defer f.ledger.totalsMu.Unlock()
	s.unmark(evicted)
	if !s.is(linked) {
		s.mark(linked)
		s.next.Store(plain.next.Load())
		plain.next.Store(s)
	}
	s.inherit(plain)
}

// Total is what was counted for subject in the running calendar month, UTC, with
// all dimensions together: the sum of a Sum, the highest of a Max. The level of
// a Last is the sum over its dimensions' latest ones.
func (f *Feature) Total(subject string) (quantity int64, start, end time.Time) {
	l := f.ledger
	month := monthOf(l.tick())
	start, end = monthBounds(month)
	l.totalsMu.Lock()
	defer l.totalsMu.Unlock()
	across := f.kind
	if across == sink.Last {
		across = sink.Sum
	}
	for s := f.plain.find(subject); s != nil; s = s.next.Load() {
		quantity = combine(across, quantity, s.inMonth(month))
	}
	return quantity, start, end
}

// checkSum says why n can't be added; nil if it can.
func (f *Feature) checkSum(n int64) error {
	switch most := f.ledger.maxQuantity; {
	case f.kind != sink.Sum:
		return fmt.Errorf("%w: feature %q is a %v: use Set", ErrKind, f.name, f.kind)
	case n < 0:
		return fmt.Errorf("%w: %d is negative", ErrQuantity, n)
	case n > most:
		return fmt.Errorf("%w: %d is more than the %d that one record can carry", ErrQuantity, n, most)
	}
	return nil
}
