package meter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// offer is a writer with any of the optional interfaces, built from the ones of
// the types below.
type offer struct{ calls []string }

func (o *offer) call(name string) { o.calls = append(o.calls, name) }

type (
	flushes  struct{ *offer }
	hijacks  struct{ *offer }
	pushes   struct{ *offer }
	notifies struct{ *offer }
	reads    struct{ *offer }
)

func (f flushes) Flush() { f.call("Flush") }
func (h hijacks) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.call("Hijack")
	return nil, nil, nil
}
func (p pushes) Push(target string, _ *http.PushOptions) error { p.call("Push " + target); return nil }
func (n notifies) CloseNotify() <-chan bool                    { n.call("CloseNotify"); return nil }
func (r reads) ReadFrom(src io.Reader) (int64, error) {
	r.call("ReadFrom")
	return io.Copy(io.Discard, src)
}

type plain struct{ http.ResponseWriter }

// offers lists every combination. The compiler gives a struct the methods of what
// it embeds, so each has to be written out.
func offers(o *offer, w http.ResponseWriter) []http.ResponseWriter {
	p, f, h, u, c, r := plain{w}, flushes{o}, hijacks{o}, pushes{o}, notifies{o}, reads{o}
	return []http.ResponseWriter{
		p,
		struct {
			plain
			flushes
		}{p, f},
		struct {
			plain
			hijacks
		}{p, h},
		struct {
			plain
			flushes
			hijacks
		}{p, f, h},
		struct {
			plain
			pushes
		}{p, u},
		struct {
			plain
			flushes
			pushes
		}{p, f, u},
		struct {
			plain
			hijacks
			pushes
		}{p, h, u},
		struct {
			plain
			flushes
			hijacks
			pushes
		}{p, f, h, u},
		struct {
			plain
			notifies
		}{p, c},
		struct {
			plain
			flushes
			notifies
		}{p, f, c},
		struct {
			plain
			hijacks
			notifies
		}{p, h, c},
		struct {
			plain
			flushes
			hijacks
			notifies
		}{p, f, h, c},
		struct {
			plain
			pushes
			notifies
		}{p, u, c},
		struct {
			plain
			flushes
			pushes
			notifies
		}{p, f, u, c},
		struct {
			plain
			hijacks
			pushes
			notifies
		}{p, h, u, c},
		struct {
			plain
			flushes
			hijacks
			pushes
			notifies
		}{p, f, h, u, c},
		struct {
			plain
			reads
		}{p, r},
		struct {
			plain
			flushes
			reads
		}{p, f, r},
		struct {
			plain
			hijacks
			reads
		}{p, h, r},
		struct {
			plain
			flushes
			hijacks
			reads
		}{p, f, h, r},
		struct {
			plain
			pushes
			reads
		}{p, u, r},
		struct {
			plain
			flushes
			pushes
			reads
		}{p, f, u, r},
		struct {
			plain
			hijacks
			pushes
			reads
		}{p, h, u, r},
		struct {
			plain
			flushes
			hijacks
			pushes
			reads
		}{p, f, h, u, r},
		struct {
			plain
			notifies
			reads
		}{p, c, r},
		struct {
			plain
			flushes
			notifies
			reads
		}{p, f, c, r},
		struct {
			plain
			hijacks
			notifies
			reads
		}{p, h, c, r},
		struct {
			plain
			flushes
			hijacks
			notifies
			reads
		}{p, f, h, c, r},
		struct {
			plain
			pushes
			notifies
			reads
		}{p, u, c, r},
		struct {
			plain
			flushes
			pushes
			notifies
			reads
		}{p, f, u, c, r},
		struct {
			plain
			hijacks
			pushes
			notifies
			reads
		}{p, h, u, c, r},
		struct {
			plain
			flushes
			hijacks
			pushes
			notifies
			reads
		}{p, f, h, u, c, r},
	}
}

// use calls every optional interface that w shows.
func use(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	if h, ok := w.(http.Hijacker); ok {
		_, _, _ = h.Hijack()
	}
	if p, ok := w.(http.Pusher); ok {
		_ = p.Push("/x", nil)
	}
	if n, ok := w.(closeNotifier); ok {
		n.CloseNotify()
	}
	if r, ok := w.(io.ReaderFrom); ok {
		_, _ = r.ReadFrom(strings.NewReader("x"))
	}
}

func TestWriterShowsWhatTheServersDoes(t *testing.T) {
	t.Parallel()
	o := &offer{}
	seen := map[string]bool{}
	for _, inner := range offers(o, httptest.NewRecorder()) {
		o.calls = nil
		use(inner)
		want := o.calls
		seen[fmt.Sprint(want)] = true

		w := around(inner)
		o.calls = nil
		use(w.shaped())
		require.Equal(t, want, o.calls)
		_, flushes := inner.(http.Flusher)
		_, flushErrors := w.shaped().(interface{ FlushError() error })
		require.Equal(t, flushes, flushErrors, "FlushError comes with Flush")
		_, hijacks := inner.(http.Hijacker)
		require.Equal(t, hijacks, w.hijacked)
		require.Same(t, w, unshaped(w.shaped()))
		require.Equal(t, inner, w.shaped().(interface{ Unwrap() http.ResponseWriter }).Unwrap())
	}
	require.Len(t, seen, 32)
}

func around(inner http.ResponseWriter) *responseWriter {
	return &responseWriter{ResponseWriter: inner, request: context.Background()}
}

func unshaped(w http.ResponseWriter) *responseWriter {
	return w.(interface{ self() *responseWriter }).self()
}

func (w *responseWriter) self() *responseWriter { return w }

func TestShapingDoesNotAllocate(t *testing.T) {
	for _, inner := range offers(&offer{}, httptest.NewRecorder()) {
		w := around(inner)
		require.Zero(t, testing.AllocsPerRun(10, func() { sinkhole = w.shaped() }))
	}
}

var sinkhole http.ResponseWriter

func TestFlushErrorPassesOn(t *testing.T) {
	t.Parallel()
	w := around(failingFlush{httptest.NewRecorder()})
	require.ErrorIs(t, http.NewResponseController(w.shaped()).Flush(), io.ErrClosedPipe)
}

type failingFlush struct{ http.ResponseWriter }

func (failingFlush) Flush()            {}
func (failingFlush) FlushError() error { return io.ErrClosedPipe }
