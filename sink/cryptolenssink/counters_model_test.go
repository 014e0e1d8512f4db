package cryptolenssink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

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
	counted map[string]int64     // by subject: what was answered nil
	held    int64                // rejected
	n       int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{vendor: newVendor(), t: t, rand: rand.New(rand.NewPCG(seed, 7)), away: map[string]time.Time{}, counted: map[string]int64{}}
	m.net = &lossy{to: m.Client().Transport, rand: m.rand}
	m.open()
	return m
}

func (m *model) open() {
	m.sink = m.counters(func(c *cryptolenssink.CountersConfig) { c.HTTPClient = &http.Client{Transport: m.net} })
}

func (m *model) use() {
	m.n++
	r := record(m.n, 1+m.rand.Int64N(3))
	r.Subject = fmt.Sprint("subject", m.rand.IntN(2))
	m.waiting = append(m.waiting, r)
}

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
			m.counted[r.Subject] += r.Quantity
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

// Whatever gets lost or late, each record is counted once.
func TestCountersCountOnce(t *testing.T) {
	t.Parallel()
	struck := 0
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, seed)
			m.net.faulty = true
			var used int64
			for range 60 {
				switch m.rand.IntN(10) {
				case 0, 1, 2:
					m.use()
					used += m.waiting[len(m.waiting)-1].Quantity
				case 3:
					time.Sleep(time.Minute) // what is late has come by then
					m.open()
				default:
					m.deliver()
				}
				time.Sleep(time.Duration(m.rand.IntN(20)) * time.Second)
			}
			m.net.faulty = false
			for len(m.waiting) > 0 {
				time.Sleep(time.Minute)
				m.deliver()
			}
			require.Zero(t, m.held, "seed %d", seed)
			var total int64
			for _, subject := range []string{"subject0", "subject1"} {
				require.Equal(t, m.counted[subject], m.count(subject, object), "seed %d", seed)
				total += m.counted[subject]
			}
			require.Equal(t, used, total, "seed %d", seed)
			struck += m.net.struck
		})
	}
	require.Greater(t, struck, 600)
}
