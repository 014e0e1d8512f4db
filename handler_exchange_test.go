package meter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stage serves programs, bare and metered, over HTTP/1 and HTTP/2 without TLS.
type stage struct {
	addr    string
	file    string // of more bytes than any step copies
	feature *Feature

	mu   sync.Mutex
	next int
	acts map[string]*act
}

// act is one exchange, seen from behind.
type act struct {
	program program
	seen    seen
	done    chan bool // closed when the handler has ended
	over    bool      // the request's context had ended by then
}

func newStage(t testing.TB) *stage {
	m, err := Open(Config{Dir: InMemory, Window: OnFlush, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	s := &stage{feature: m.Feature("f"), file: filepath.Join(t.TempDir(), "file"), acts: map[string]*act{}}
	require.NoError(t, os.WriteFile(s.file, bytes.Repeat([]byte("f"), 50_000), 0o600))
	play := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := s.act(r)
		a.program.run(w, r, &a.seen)
	})
	metered := Middleware(s.feature, Identify(func(r *http.Request) (Caller, error) {
		return Caller{Subject: "s" + r.Header.Get("X-Act")}, nil
	}))(play)
	mux := http.NewServeMux()
	mux.Handle("/bare", play)
	mux.Handle("/wrap", metered)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := s.act(r)
			if a == nil { // the request behind
				fmt.Fprint(w, "behind")
				return
			}
			if r.ProtoMajor == 2 {
				// Go's client stops sending when an answer of 300 and above comes before it is
				// through, and a handler that goes on reading waits for ever.
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			defer func() {
				a.over = r.Context().Err() != nil
				close(a.done)
			}()
			mux.ServeHTTP(w, r)
		}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = l.Addr().String()
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.Shutdown(ctx)
	})
	return s
}

func (s *stage) act(r *http.Request) *act {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acts[r.Header.Get("X-Act")]
}

func (s *stage) begin(p program) (a *act, id string, end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	a, id = &act{program: p, seen: seen{file: s.file}, done: make(chan bool)}, fmt.Sprintf("%08d", s.next)
	s.acts[id] = a
	return a, id, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.acts, id)
	}
}

// outcome is all that can be told of an exchange, from outside and inside.
type outcome struct {
	wire string
	seen seen
	took int64 // units that were counted
	over bool  // the request's context had ended with the handler
}

const patience = 20 * time.Second

// exchange plays a program over one connection of its own.
func (s *stage) exchange(t testing.TB, path, protocol string, p program) outcome {
	a, id, end := s.begin(p)
	defer end()
	var o outcome
	if protocol == "HTTP/2" {
		o.wire = s.http2(t, path, id, p.ask())
	} else {
		o.wire = s.http1(t, path, id, p.ask())
	}
	select {
	case <-a.done:
	case <-time.After(patience):
		t.Fatalf("%s: the handler does not end", path)
	}
	o.seen, o.took, o.over = a.seen, s.feature.Total("s"+id).Quantity, a.over
	return o
}

var date = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// http1 is every byte that comes back, but the date's. Behind the request stands another
// one, which is answered if the connection is kept.
func (s *stage) http1(t testing.TB, path, id string, a asking) string {
	conn, err := dial(t.Context(), "tcp", s.addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	version := "HTTP/1.1"
	if a.http10 {
		version, a.chunked = "HTTP/1.0", false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\nHost: x\r\nX-Act: %s\r\n", a.method, path, version, id)
	if a.close {
		b.WriteString("Connection: close\r\n")
	}
	if a.expects {
		b.WriteString("Expect: 100-continue\r\n")
	}
	switch {
	case a.chunked:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(a.body), a.body)
	case a.body != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(a.body), a.body)
	default:
		b.WriteString("\r\n")
	}
	b.WriteString("GET /behind HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	_, err = io.WriteString(conn, b.String())
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Fatalf("%s: the connection stays open behind %q", path, answer)
	}
	return date.ReplaceAllString(string(answer), "")
}

// dial makes connections that leave nothing behind: there are more than there are ports.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		err = conn.(*net.TCPConn).SetLinger(0)
	}
	return conn, err
}

// http2 is what a client is told.
func (s *stage) http2(t testing.TB, path, id string, a asking) string {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true, DialContext: dial}
	defer transport.CloseIdleConnections()
	var b strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		fmt.Fprintf(&b, "%d %v\n", code, h)
		return nil
	}})
	body := io.Reader(http.NoBody)
	if a.body != "" {
		body = strings.NewReader(a.body)
		if a.chunked {
			body = io.MultiReader(body) // of unknown length
		}
	}
	r, err := http.NewRequestWithContext(ctx, a.method, "http://"+s.addr+path, body)
	require.NoError(t, err)
	r.Header.Set("X-Act", id)
	res, err := transport.RoundTrip(r)
	if err != nil {
		require.NoError(t, ctx.Err(), "%s: no answer", path)
		fmt.Fprintf(&b, "error: %v\n", err)
		return b.String()
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	require.NoError(t, ctx.Err(), "%s: no end", path)
	res.Header.Del("Date")
	fmt.Fprintf(&b, "%s %d %v\n%s\nerror: %v\n%v", res.Status, res.ContentLength, res.Header, content, err, res.Trailer)
	return b.String()
}
