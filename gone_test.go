package meter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A handler that never looks at its context answers somebody who has left.
func TestClientLeavesAndTheHandlerWritesAllTheSame(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(http.ResponseWriter){
		"status": func(w http.ResponseWriter) { w.WriteHeader(201) },
		"body":   func(w http.ResponseWriter) { fmt.Fprintln(w, "late") },
		"copy":   func(w http.ResponseWriter) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			entered := entrances()
			protocols(t, func(w http.ResponseWriter, r *http.Request) {
				entered[r.ProtoMajor] <- true
				<-r.Context().Done() // stands for the time that its work takes
				write(w)
			}, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
				ctx, cancel := context.WithCancel(t.Context())
				r, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
				require.NoError(t, err)
				go func() { <-entered[major(s)]; cancel() }()
				res, err := s.Client().Do(r)
				if err == nil {
					res.Body.Close()
				}
				require.Error(t, err)
				result := <-seen
				require.True(t, result.Unseen, "%+v", result)
				require.NotZero(t, result.Status)
				require.Zero(t, f.Total("s").Quantity)
			})
		})
	}
}

// entrances tell when a handler has been entered, by major version of HTTP.
func entrances() map[int]chan bool {
	return map[int]chan bool{1: make(chan bool, 1), 2: make(chan bool, 1)}
}

func major(s *httptest.Server) int {
	if s.EnableHTTP2 {
		return 2
	}
	return 1
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// ReverseProxy panics with http.ErrAbortHandler when its upstream dies mid-stream,
// too: then the client is there, and has half of what it asked for.
func TestUpstreamDiesMidStream(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(upstream.Close) // after the parallel subtests
	to, _ := url.Parse(upstream.URL)
	proxy := httputil.NewSingleHostReverseProxy(to)
	for name, handler := range map[string]http.HandlerFunc{
		"ReverseProxy": proxy.ServeHTTP,
		"copied": func(w http.ResponseWriter, r *http.Request) {
			res, err := http.Get(upstream.URL)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if _, err := io.Copy(w, res.Body); err != nil {
				panic(http.ErrAbortHandler)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			protocols(t, handler, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
				r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				require.NoError(t, err)
				res, err := s.Client().Do(r)
				if err == nil {
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				require.Error(t, err)
				require.Equal(t, Result{Panicked: true, Status: 200}, <-seen)
				require.Zero(t, f.Total("s").Quantity)
			})
		})
	}
}

// hides is a writer of the kind that knows Unwrap and no optional interface.
type hides struct{ inner http.ResponseWriter }

func (h hides) Header() http.Header         { return h.inner.Header() }
func (h hides) Write(p []byte) (int, error) { return h.inner.Write(p) }
func (h hides) WriteHeader(status int)      { h.inner.WriteHeader(status) }
func (h hides) Unwrap() http.ResponseWriter { return h.inner }

// Whoever took over the connection wrote to it past us, so the end of the context,
// here that of the server, says nothing about what the client got.
func TestHijackedSessionOutlastsItsContext(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"shown":        func(w http.ResponseWriter) http.ResponseWriter { return w },
		"hidden":       func(w http.ResponseWriter) http.ResponseWriter { return hides{w} },
		"hidden twice": func(w http.ResponseWriter) http.ResponseWriter { return hides{hides{w}} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, func(c *Config) {
				c.Identify = func(*http.Request) (Caller, error) { return Caller{Subject: "s"}, nil }
			})
			seen := make(chan Result, 2)
			note := CountWhen(func(r Result) bool { seen <- r; return countsByDefault(r) })
			outer, inner := m.Feature("outer"), m.Feature("inner")
			metered := Middleware(outer, note)(Middleware(inner, note)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, buffered, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nan hour of service\n")
				_ = buffered.Flush()
				<-r.Context().Done()
			})))
			served := make(chan bool)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(served)
				metered.ServeHTTP(wrap(w), r)
			}))
			base, stop := context.WithCancel(t.Context())
			server.Config.BaseContext = func(net.Listener) context.Context { return base }
			server.Start()
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			for lines, line := bufio.NewReader(conn), ""; line != "an hour of service\n"; {
				line, err = lines.ReadString('\n')
				require.NoError(t, err)
			}
			stop()
			<-served
			for range 2 {
				require.Equal(t, Result{Hijacked: true, Gone: true}, <-seen)
			}
			require.EqualValues(t, 1, m.billed(t, "outer", "s"))
			require.EqualValues(t, 1, m.billed(t, "inner", "s"))
		})
	}
}

// Only who unwraps gets to see what a writer hides, and no more than is there.
func TestHiddenHijackerStaysHidden(t *testing.T) {
	t.Parallel()
	o := &offer{}
	server := struct {
		plain
		flushes
		hijacks
	}{plain{httptest.NewRecorder()}, flushes{o}, hijacks{o}}
	w := around(hides{server})
	shown := w.shaped()
	use(shown)
	require.Empty(t, o.calls)
	require.NoError(t, http.NewResponseController(shown).Flush())
	_, _, err := http.NewResponseController(shown).Hijack()
	require.NoError(t, err)
	require.Equal(t, []string{"Flush", "Hijack"}, o.calls)
	require.True(t, w.hijacked)

	w = around(hides{httptest.NewRecorder()})
	require.Equal(t, w.ResponseWriter, w.Unwrap(), "there is nothing to hide")
	_, _, err = http.NewResponseController(w.shaped()).Hijack()
	require.ErrorIs(t, err, http.ErrNotSupported)
	require.False(t, w.hijacked)
}
