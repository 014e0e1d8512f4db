package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Usage that is reported after its window has ended is counted in the running segment,
// in a series of its own whose key names the window that it belongs to: a record with a
// time of its own. All that keeps and moves counts does the same with it as with any.

const (
	// usualBucket is the window of backdated usage where windows end by Flush alone.
	usualBucket = time.Minute
	// MaxAhead is how far ahead of this machine's clock an event may be dated.
	MaxAhead = 5 * time.Minute
)

// interval is the time [start, end) in which something was used, in seconds.
type interval struct{ start, end int64 }

// appendBackdated encodes the name of a backdated series: that of the series, with its
// time under a name that no dimension has.
func appendBackdated(b []byte, feature, subject string, dimensions map[string]string, used interval) []byte {
	var at [2 * binary.MaxVarintLen64]byte
	text := binary.AppendVarint(binary.AppendVarint(at[:0], used.start), used.end-used.start)
	b = appendText(appendText(b, feature), subject)
	b = appendText(appendText(b, ""), string(text))
	return appendDimensions(b, dimensions)
}

// usedIn is the time that a key names; not ok if it is no backdated one.
func usedIn(key []byte) (used interval, ok bool) {
	for range 2 { // feature and subject
		n, read := binary.Uvarint(key)
		if read <= 0 || n > uint64(len(key)-read) {
			return used, false
		}
		key = key[read+int(n):]
	}
	if len(key) < 2 || key[0] != 0 {
		return used, false
	}
	n, read := binary.Uvarint(key[1:])
	if read <= 0 || n > uint64(len(key)-1-read) {
		return used, false
	}
	text := key[1+read:][:n]
	start, read := binary.Varint(text)
	if read <= 0 {
		return used, false
	}
	length, more := binary.Varint(text[read:])
	if more <= 0 || start < 0 || length <= 0 || start > maxSecond || length > maxSecond {
		return used, false
	}
	return interval{start, start + length}, true
}

// maxSecond is the last one of the year 9999.
const maxSecond = 253402300799

// undated is the key of what a backdated one counts, whenever that was.
func undated(key []byte) []byte {
	if _, ok := usedIn(key); !ok {
		return key
	}
	feature, subject, dimensions, err := decodeKey(key)
	if err != nil {
		return key
	}
	return appendKey(nil, feature, subject, dimensions)
}

// when says of a count in which window it was made, and when that was used which it
// counts: the same second but for backdated usage. Both are starts of windows.
type when struct{ counted, used int64 }

// when is that of what the series counts in seg.
func (s *Series) when(seg *segment) when {
	at := when{seg.head.start, seg.head.start}
	if s.is(backdated) {
		if used, ok := usedIn([]byte(s.name())); ok {
			at.used = used.start
		}
	}
	return at
}

// when is that of what the slot at block holds. The caller holds mu.
func (sd *sealed) when(block uint32) when {
	at := when{sd.head.start, sd.head.start}
	if used, ok := usedIn(sd.img.key(block)); ok {
		at.used = used.start
	}
	return at
}

// SeriesAt is Series for what was used at a time, to the second; zero: now. ErrTime if
// that is further ahead than MaxAhead, or so long ago that a route would not take it.
func (f *Feature) SeriesAt(subject string, dimensions map[string]string, at time.Time) (*Series, error) {
	l := f.ledger
	if at.IsZero() || at.Unix() >= l.began.Load() {
		if !at.IsZero() && at.Unix() > time.Now().Add(MaxAhead).Unix() {
			return nil, fmt.Errorf("%w: %s is more than %v ahead of this machine's clock", ErrTime, at.UTC().Format(time.RFC3339), MaxAhead)
		}
		return f.Series(subject, dimensions)
	}
	if err := checkSeries(subject, dimensions); err != nil {
		return nil, err
	}
	used := l.bucket(at.Unix())
	if t := f.Tally(subject); t != nil {
		used = t.divide(used, at.Unix())
	}
	if err := l.checkAge(at, used); err != nil {
		return nil, err
	}
	key := string(appendBackdated(nil, f.name, subject, dimensions, used))
	if len(key) > maxKey {
		return nil, fmt.Errorf("%w: subject and dimensions have %d bytes together, at most %d are allowed", ErrName, len(key), maxKey)
	}
	s := f.named(key, subject, backdated)
	l.backdates.Store(true) // only now: it is there to be found
	return s, nil
}

// AddAt is Series.Add for what was used at a time, to the second; zero: now.
func (f *Feature) AddAt(subject string, dimensions map[string]string, at time.Time, n int64) error {
	for {
		s, err := f.SeriesAt(subject, dimensions, at)
		if err != nil {
			return err
		}
		if at.IsZero() || s.is(backdated) {
			return s.Add(n)
		}
		_, err = s.addBy(n, s.tally(), 0, false, at)
		if !errors.Is(err, errPassed) {
			return err
		}
	}
}

// errPassed says that the window has ended in which something was used, before it was
// counted there.
var errPassed = errors.New("window has passed")

// begins reports whether the segment's window begins after a time; zero: now.
func (seg *segment) begins(after time.Time) bool {
	return !after.IsZero() && seg.head.start > after.Unix()
}

// checkAge says why what was used at a time can't be counted any more; nil if it can.
func (l *Ledger) checkAge(at time.Time, used interval) error {
	if at.Unix() < 0 {
		return fmt.Errorf("%w: %s is before 1970", ErrTime, at.UTC().Format(time.RFC3339))
	}
	// Until its record can be sent the running window has to end.
	age := time.Since(time.Unix(used.start, 0)) + max(l.window, 0)
	for i := range l.routes {
		if r := &l.routes[i]; r.MaxAge > 0 && age > r.MaxAge {
			return fmt.Errorf("%w: %s is too long ago: route %q takes what is at most %v old", ErrTime, at.UTC().Format(time.RFC3339), r.Name, r.MaxAge)
		}
	}
	return nil
}

// bucket is the window that a second before the running one belongs to: where windows
// regularly begin and end, which months do, too. Where they end with bills it is the
// second itself, for when other bills have ended is not remembered.
func (l *Ledger) bucket(second int64) interval {
	length := l.window
	if length <= 0 {
		length = usualBucket
	}
	if slices.ContainsFunc(l.routes, func(r Route) bool { return r.Ends }) {
		length = time.Second
	}
	at := time.Unix(second, 0)
	start := at.Truncate(length)
	from, to := monthBounds(monthOf(second))
	b := interval{max(start.Unix(), from.Unix()), min(start.Add(length).Unix(), to.Unix(), l.began.Load())}
	b.end = max(b.end, b.start+1)
	return b
}

// divide cuts a window where the running period of a quota of its own begins, so that it
// belongs to the same one as a second in it.
func (t *Tally) divide(used interval, second int64) interval {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roll(t.feature.ledger.began.Load())
	switch begin := t.own.start; {
	case t.own.end == 0 || begin <= used.start || begin >= used.end:
	case second < begin:
		used.end = begin
	default:
		used.start = begin
	}
	return used
}

// tidyBackdated forgets backdated series that have been sealed, for each is of a time
// that is over. Their part in the running month goes to the subject's own series.
func (l *Ledger) tidyBackdated() {
	if !l.backdates.Swap(false) {
		return
	}
	for _, f := range l.featuresNow() {
		done := make(map[*Series]bool)
		left := false
		f.dimensioned.evict(l, func(s *Series) bool {
			if !s.is(backdated) {
				return false
			}
			_, subject, _, err := decodeKey([]byte(s.name()))
			plain := f.plain.find(subject)
			if err != nil || plain == nil || s.seg.Load() != nil {
				left = true
				return false
			}
			s.forgetTally()
			plain.total = combine(f.kind, plain.total, s.total)
			s.total = 0
			done[plain] = true
			return true
		})
		if left {
			l.backdates.Store(true)
		}
		for plain := range done {
			plain.unlinkLocked()
		}
	}
}

// unlinkLocked is unlinkEvicted for who holds no lock.
func (s *Series) unlinkLocked() {
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.feature.ledger.totalsMu.Lock()
	defer s.feature.ledger.totalsMu.Unlock()
	s.unlinkEvicted()
}
