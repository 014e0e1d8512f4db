package meter

import (
	"bufio"
	"io"
	"net"
	"net/http"
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
	status   int // first final status; 0: nothing written
	hijacked bool
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Informational statuses may come from other goroutines (httputil.ReverseProxy's
// do) and must touch nothing.
func (w *responseWriter) WriteHeader(status int) {
	w.ResponseWriter.WriteHeader(status) // panics for a bad one
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.wrote(status)
	}
}

func (w *responseWriter) wrote(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.wrote(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

func (w *responseWriter) WriteString(s string) (int, error) {
	w.wrote(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

func (w *responseWriter) flush() error {
	w.wrote(http.StatusOK)
	if f, ok := w.ResponseWriter.(interface{ FlushError() error }); ok {
		return f.FlushError()
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

// readFrom hands src on as it is: the server uses sendfile for files only.
func (w *responseWriter) readFrom(src io.Reader) (int64, error) {
	n, err := w.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
	if n > 0 || err == nil {
		w.wrote(http.StatusOK)
	}
	return n, err
}

// closeNotifier is http.CloseNotifier, which is deprecated but still asserted by
// frameworks.
type closeNotifier interface{ CloseNotify() <-chan bool }
