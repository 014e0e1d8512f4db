package cryptolenssink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

// lossy loses some of the requests and answers; and some requests arrive after their
// client has given them up.
type lossy struct {
	to     http.RoundTripper
	rand   *rand.Rand
	faulty bool
	struck int
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	if !l.faulty || l.rand.IntN(100) >= 30 {
		return l.to.RoundTrip(r)
	}
	l.struck++
	broken := errors.New("connection reset")
	switch l.rand.IntN(4) {
	case 0: // never sent
		return nil, broken
	case 1: // lost on the way there
		_, _ = io.ReadAll(r.Body)
		return nil, broken
	case 2: // lost on the way back
		resp, err := l.to.RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		return nil, broken
	}
	body, _ := io.ReadAll(r.Body)
	late := r.Clone(context.Background())
	late.Body = io.NopCloser(bytes.NewReader(body))
	time.AfterFunc(time.Duration(l.rand.IntN(55_000))*time.Millisecond, func() {
		if resp, err := l.to.RoundTrip(late); err == nil {
			_ = resp.Body.Close()
		}
	})
	return nil, broken
}

// model delivers records as meter does, and keeps the books that the counters are
// compared with.
type model struct {
	*vendor
	t       *testing.T
	rand    *rand.Rand
	net     *lossy
	sink    *cryptolenssink.Counters
	waiting []sink.Record
	away    map[string]time.Time // not to be sent before, by ID
	keys    map[string]int       // by subject: which of its keys it has now
	used    int64
	counted int64 // what was answered nil
	held    int64 // rejected
	n       int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{vendor: newVendor(), t: t, rand: rand.New(rand.NewPCG(seed, 7)), away: map[string]time.Time{}, keys: map[string]int{}}
	m.net = &lossy{to: m.Client().Transport, rand: m.rand}
	m.open()
	return m
}

func (m *model) open() {
	m.sink = m.counters(func(c *cryptolenssink.CountersConfig) {
		c.HTTPClient = &http.Client{Transport: m.net}
		c.Key = func(ctx context.Context, subject string) (license.Key, error) {
			return m.key(ctx, fmt.Sprint(subject, m.keys[subject]))
		}
	})
}

// use makes a record whose quantity is a bit of its own, so that the totals tell which
// ones were counted.
func (m *model) use(subject string) {
	r := record(m.n, 1<<m.n)
	m.n++
	m.used += r.Quantity
	r.Subject = subject
	m.waiting = append(m.waiting, r)
}

// total is what all keys of all subjects have.
func (m *model) total() (total int64) {
	for _, subject := range subjects {
		for key := range 2 {
			total += m.count(fmt.Sprint(subject, key), object)
		}
	}
	return total
}

var subjects = []string{"subject-a", "subject-b"}

// deliver tries some of the waiting records, in any order.
func (m *model) deliver() {
	m.rand.Shuffle(len(m.waiting), func(i, j int) { m.waiting[i], m.waiting[j] = m.waiting[j], m.waiting[i] })
	var batch, rest []sink.Record
	for _, r := range m.waiting {
		if len(batch) < 3 && !time.Now().Before(m.away[r.ID]) {
			batch = append(batch, r)
		} else {
			rest = append(rest, r)
		}
	}
	if len(batch) == 0 {
		return
	}
	m.waiting = rest
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	err := m.sink.Deliver(ctx, batch)
	var apart *sink.BatchError
	for i, r := range batch {
		outcome := err
		if errors.As(err, &apart) {
			outcome = apart.Errs[i]
		}
		m.away[r.ID] = time.Now().Add(sink.RetryDelay(outcome))
		r.Attempt++
		switch {
		case outcome == nil:
			m.counted += r.Quantity
			continue
		case errors.Is(outcome, sink.ErrRejected):
			m.held += r.Quantity
			continue
		case !errors.Is(outcome, sink.ErrNotApplied):
			r.Doubt = true
		}
		m.waiting = append(m.waiting, r)
	}
}

// settle delivers all that waits.
func (m *model) settle() {
	for len(m.waiting) > 0 {
		time.Sleep(time.Minute)
		m.deliver()
	}
}

// Whatever gets lost or late, no record is counted twice, also if a subject's key changes
// or the process does; and without such a change each is counted once.
func TestCountersCountOnce(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct{ process, key bool }{
		"lost and late": {}, "restarts": {process: true}, "keys": {key: true}, "keys and restarts": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var struck, used, held = 0, 0, 0
			for seed := range uint64(30) {
				synctest.Test(t, func(t *testing.T) {
					m := newModel(t, seed)
					m.net.faulty = true
					for range 60 {
						subject := subjects[m.rand.IntN(2)]
						switch n := m.rand.IntN(12); {
						case n < 3 && m.n < 25:
							m.use(subject)
						case n == 3 && change.process:
							time.Sleep(time.Minute) // what is late has come by then
							m.open()
						case n < 6 && change.key:
							m.keys[subject] = 1 - m.keys[subject]
						default:
							m.deliver()
						}
						time.Sleep(time.Duration(m.rand.IntN(20)) * time.Second)
					}
					m.net.faulty = false
					m.settle()
					for key := range 2 { // what is noted anywhere is counted now
						for _, subject := range subjects {
							m.keys[subject] = key
							m.use(subject)
						}
						m.settle()
					}
					require.Equal(t, m.used, m.counted+m.held, "seed %d", seed)
					more := m.total() - m.counted
					require.Zero(t, more&^m.held, "seed %d: %b was counted, %b was said to be, %b is with a person", seed, m.total(), m.counted, m.held)
					if !change.process && !change.key {
						require.Zero(t, m.held, "seed %d", seed)
					}
					struck += m.net.struck
					used += m.n
					held += bits.OnesCount64(uint64(m.held))
				})
			}
			require.Greater(t, struck, 200)
			t.Logf("%d of %d records wait for a person", held, used)
		})
	}
}
