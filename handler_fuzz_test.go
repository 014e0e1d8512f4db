package meter

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHandlersBehaveAsUnwrapped plays random handlers bare and metered, over HTTP/1.1 and
// HTTP/2, and tells no difference on the wire nor from within. METER_HANDLER_SEED repeats
// one of them.
func TestHandlersBehaveAsUnwrapped(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first, n := rand.Uint64(), 300
	if text := os.Getenv("METER_HANDLER_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		first, n = seed, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		s.compare(t, random(seed))
		if t.Failed() {
			t.Fatalf("METER_HANDLER_SEED=%d", seed)
		}
	}
}

func random(seed uint64) program {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := make(program, 2+2*rng.IntN(10))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func FuzzHandler(f *testing.F) {
	for seed := range uint64(20) {
		f.Add([]byte(random(seed)))
	}
	s := newStage(f)
	f.Fuzz(func(t *testing.T, p []byte) { s.compare(t, p) })
}

// compare plays a program bare and metered, over both protocols.
func (s *stage) compare(t *testing.T, p program) {
	t.Helper()
	t.Logf("program %v", []byte(p))
	for _, protocol := range []string{"HTTP/1", "HTTP/2"} {
		s.compareOver(t, protocol, p)
	}
}

// compareOver plays a program several times if need be: what a connection that breaks off
// has brought, or can still be read, is sometimes a matter of luck. A difference is one
// between all that came of it bare and all that came of it metered.
func (s *stage) compareOver(t *testing.T, protocol string, p program) {
	t.Helper()
	var bare, metered outcome
	seen := map[string]string{} // by what it was, the path on which it came to pass
	for range 6 {
		bare, metered = s.exchange(t, "/bare", protocol, p), s.exchange(t, "/wrap", protocol, p)
		s.checkCount(t, protocol, p, metered)
		for path, o := range map[string]outcome{"/bare": bare, "/wrap": metered} {
			as := fmt.Sprintf("%q %s", o.seen.log, o.wire)
			if other, known := seen[as]; known && other != path {
				return
			}
			seen[as] = path
		}
	}
	require.Equal(t, bare.seen.log, metered.seen.log, "%s: %v: what the handler sees", protocol, p.ask())
	require.Equal(t, bare.wire, metered.wire, "%s: %v %v: what the client sees", protocol, p.ask(), bare.seen.log)
	t.Fatal("each differs from itself")
}

func (s *stage) checkCount(t *testing.T, protocol string, p program, o outcome) {
	t.Helper()
	// A HEAD over HTTP/2 is over with its headers, which is a client that has left if the
	// handler then gives up, and comes to pass at some moment of its own.
	if ended := o.over || protocol == "HTTP/2" && p.ask().method == "HEAD"; o.seen.aborted && ended {
		return
	}
	require.Equal(t, o.seen.counts(), o.took == 1, "%s: %v %v: counted", protocol, p.ask(), o.seen.log)
}
