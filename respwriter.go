package meter

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
)

// responseWriter learns what a handler wrote. Handlers ask a writer for optional
// interfaces by assertion, so it must show those of the server's writer and no
// other: a writer without Flush that showed one would make a handler believe that
// its events leave. shaped gives it the right method set.
//
// WriteString is always there, for it does what io.WriteString does without it.
// What only http.ResponseController asks for (deadlines, full duplex) is found
// through Unwrap.
type responseWriter struct {
	http.ResponseWriter
	request  context.Context // its end says that the client has left
	upgrades bool            // 101 is final, as in HTTP/1; in HTTP/2 it is one more that informs
	status   int             // first final status; 0: nothing written
	late     bool            // the client had left before that
	failed   bool            // a write did not reach the client
	hijacked bool
}

// Unwrap is for http.ResponseController, which would take over the connection
// behind our back where the server's writer hides its Hijack behind an Unwrap.
func (w *responseWriter) Unwrap() http.ResponseWriter {
	if _, shown := w.ResponseWriter.(http.Hijacker); !shown && hidesHijacker(w.ResponseWriter) {
		return unwrapped{w.ResponseWriter, w}
	}
	return w.ResponseWriter
}

// Informational statuses may come from other goroutines (httputil.ReverseProxy's
// do) and must touch nothing.
func (w *responseWriter) WriteHeader(status int) {
	w.ResponseWriter.WriteHeader(status) // panics for a bad one
	if status >= 200 || status == http.StatusSwitchingProtocols && w.upgrades {
		w.wrote(status)
	}
}

// What a handler writes once it has taken the connection over goes nowhere.
func (w *responseWriter) wrote(status int) {
	if w.status == 0 && !w.hijacked {
		w.status, w.late = status, w.left()
	}
}

// left reports whether the client has left. A deadline that has passed doesn't say
// so: it may be the host's own.
func (w *responseWriter) left() bool {
	return errors.Is(w.request.Err(), context.Canceled)
}

// note notes an error of a write. Some are the handler's mistake, which the client
// never notices.
func (w *responseWriter) note(err error) {
	if err != nil && !errors.Is(err, http.ErrContentLength) && !errors.Is(err, http.ErrBodyNotAllowed) && !errors.Is(err, http.ErrHijacked) {
		w.failed = true
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.wrote(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.note(err)
	return n, err
}

func (w *responseWriter) WriteString(s string) (int, error) {
	w.wrote(http.StatusOK)
	n, err := io.WriteString(w.ResponseWriter, s)
	w.note(err)
	return n, err
}

func (w *responseWriter) flush() error {
	w.wrote(http.StatusOK)
	if f, ok := w.ResponseWriter.(interface{ FlushError() error }); ok {
		err := f.FlushError()
		w.note(err)
		return err
	}
	w.ResponseWriter.(http.Flusher).Flush()
	return nil
}

func (w *responseWriter) hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := w.ResponseWriter.(http.Hijacker).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, buffered, err
}

func (w *responseWriter) push(target string, opts *http.PushOptions) error {
	return w.ResponseWriter.(http.Pusher).Push(target, opts)
}

func (w *responseWriter) closeNotify() <-chan bool {
	return w.ResponseWriter.(closeNotifier).CloseNotify()
}

func (w *responseWriter) readFrom(src io.Reader) (int64, error) {
	first, left := w.status == 0 && !w.hijacked, w.left()
	noting := &source{Reader: src}
	from := io.Reader(noting)
	if isFile(src) {
		from = src // as it is, or the server can't use sendfile
	}
	n, err := w.ResponseWriter.(io.ReaderFrom).ReadFrom(from)
	// Of nothing nothing is written, and the status can still change.
	if first && (n > 0 || noting.gave || errors.Is(err, http.ErrContentLength)) {
		w.status, w.late = http.StatusOK, left
	}
	if !noting.failed {
		w.note(err)
	}
	return n, err
}

// source tells an error of reading from one of writing.
type source struct {
	io.Reader
	gave   bool // something to write
	failed bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.gave = s.gave || n > 0
	s.failed = s.failed || err != nil && !errors.Is(err, io.EOF)
	return n, err
}

func isFile(src io.Reader) bool {
	if part, ok := src.(*io.LimitedReader); ok {
		src = part.R
	}
	_, ok := src.(*os.File)
	return ok
}

// unwrapped is a writer that hides a Hijacker, and shows it: only those who unwrap
// get to see it, and they would find it anyway.
type unwrapped struct {
	http.ResponseWriter
	by *responseWriter
}

func (u unwrapped) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func (u unwrapped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(u.ResponseWriter).Hijack()
	u.by.hijacked = u.by.hijacked || err == nil
	return conn, buffered, err
}

func hidesHijacker(w http.ResponseWriter) bool {
	for {
		hides, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = hides.Unwrap()
		if _, ok := w.(http.Hijacker); ok {
			return true
		}
	}
}

// closeNotifier is http.CloseNotifier, which is deprecated but still asserted by
// frameworks.
type closeNotifier interface{ CloseNotify() <-chan bool }
