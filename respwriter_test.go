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
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// protocols serves h, metered, over HTTP/1.1 and HTTP/2.
func protocols(t *testing.T, h http.HandlerFunc, run func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result)) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f := m.Feature("f")
			results, seen := make(chan Result, 1), make(chan Result, 16)
			metered := Middleware(f, Identify(func(r *http.Request) (Caller, error) {
				if r.Proto != protocol {
					return Caller{}, fmt.Errorf("proto %s", r.Proto)
				}
				return Caller{Subject: "s"}, nil
			}), CountWhen(func(r Result) bool { results <- r; return countsByDefault(r) }))(h)
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { seen <- <-results }() // once the middleware is through
				metered.ServeHTTP(w, r)
			}))
			if protocol == "HTTP/2.0" {
				s.EnableHTTP2 = true
				s.StartTLS()
			} else {
				s.Start()
			}
			t.Cleanup(s.Close)
			run(t, f, s, seen)
		})
	}
}

func get(t *testing.T, s *httptest.Server) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
	require.NoError(t, err)
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestEventsArriveBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for name, flush := range map[string]func(http.ResponseWriter) error{
		"Flusher":            func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil },
		"ResponseController": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			received := make(chan bool)
			protocols(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "data: 1\n\n")
				if err := flush(w); err != nil {
					t.Error(err)
				}
				select {
				case <-received:
				case <-time.After(10 * time.Second):
					t.Error("the event did not arrive while the handler ran")
				}
			}, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
				line, err := bufio.NewReader(get(t, s).Body).ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "data: 1\n", line)
				received <- true
				require.Equal(t, Result{Status: 200}, <-seen)
			})
		})
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	protocols(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "43")
	}, func(t *testing.T, _ *Feature, s *httptest.Server, _ <-chan Result) {
		res := get(t, s)
		_, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, "42", res.Trailer.Get("X-Sum"))
		require.Equal(t, "43", res.Trailer.Get("X-Late"))
	})
}

func TestResponseController(t *testing.T) {
	t.Parallel()
	errs := make(chan error, 8)
	protocols(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		errs <- rc.SetReadDeadline(time.Now().Add(time.Minute))
		errs <- rc.SetWriteDeadline(time.Now().Add(time.Minute))
		if r.ProtoMajor == 1 {
			errs <- rc.EnableFullDuplex()
		} else {
			errs <- nil
		}
		_ = rc.SetWriteDeadline(time.Now().Add(-time.Second))
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		errs <- nil
		if rc.Flush() == nil {
			t.Error("the write deadline has no effect")
		}
	}, func(t *testing.T, _ *Feature, s *httptest.Server, _ <-chan Result) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		require.NoError(t, err)
		if res, err := s.Client().Do(r); err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
			require.Error(t, err)
		}
		for range 4 {
			require.NoError(t, <-errs)
		}
	})
}

func TestInformationalResponse(t *testing.T) {
	t.Parallel()
	protocols(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	}, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
		require.Equal(t, 418, get(t, s).StatusCode)
		require.Equal(t, Result{Status: 418}, <-seen)
		require.Zero(t, f.Total("s").Quantity)
	})
}

func TestPush(t *testing.T) {
	t.Parallel()
	protocols(t, func(w http.ResponseWriter, r *http.Request) {
		p, ok := w.(http.Pusher)
		if ok != (r.ProtoMajor == 2) {
			t.Errorf("%s: pusher visible: %v", r.Proto, ok)
		}
		if ok { // Go's client refuses pushes; the error comes from the server's writer
			if err := p.Push("/style.css", nil); err == nil || err != w.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(http.Pusher).Push("/style.css", nil) {
				t.Errorf("push: %v", err)
			}
		}
	}, func(t *testing.T, _ *Feature, s *httptest.Server, _ <-chan Result) {
		require.Equal(t, 200, get(t, s).StatusCode)
	})
}

func TestHijackAndUpgrade(t *testing.T) {
	t.Parallel()
	protocols(t, func(w http.ResponseWriter, r *http.Request) {
		h, ok := w.(http.Hijacker)
		if ok != (r.ProtoMajor == 1) {
			t.Errorf("%s: hijacker visible: %v", r.Proto, ok)
		}
		if !ok {
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		conn, buffered, err := h.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buffered.Flush()
		line, _ := buffered.ReadString('\n')
		fmt.Fprint(buffered, line)
		_ = buffered.Flush()
	}, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
		if s.EnableHTTP2 {
			require.Equal(t, 501, get(t, s).StatusCode)
			return
		}
		upgradeAndEcho(t, s.Listener.Addr().String())
		require.Equal(t, Result{Hijacked: true}, <-seen)
		require.EqualValues(t, 1, f.Total("s").Quantity)
	})
}

func upgradeAndEcho(t *testing.T, addr string) {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	fmt.Fprint(conn, "hello\n")
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "hello\n", line)
}

func TestUpgradeThroughReverseProxy(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buffered.Flush()
		_, _ = io.Copy(conn, buffered)
	}))
	defer backend.Close()
	to, _ := url.Parse(backend.URL)
	m := open(t)
	seen := make(chan Result, 1)
	front := httptest.NewServer(Middleware(m.Feature("f"), Identify(func(*http.Request) (Caller, error) {
		return Caller{Subject: "s"}, nil
	}), CountWhen(func(r Result) bool { seen <- r; return true }))(httputil.NewSingleHostReverseProxy(to)))
	defer front.Close()
	upgradeAndEcho(t, front.Listener.Addr().String())
	require.True(t, (<-seen).Hijacked)
}

// The server's ReadFrom must see the very reader, or it can't use sendfile.
func TestReadFromGetsTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 1<<20)), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	inner := &spyReadFrom{ResponseWriter: httptest.NewRecorder()}
	w := around(inner)
	n, err := io.Copy(w.shaped(), struct{ io.Reader }{file})
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, n)
	_, err = w.shaped().(io.ReaderFrom).ReadFrom(file)
	require.NoError(t, err)
	require.Same(t, file, inner.src)
	require.Equal(t, 200, w.status)

	protocols(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, path)
	}, func(t *testing.T, _ *Feature, s *httptest.Server, seen <-chan Result) {
		body, err := io.ReadAll(get(t, s).Body)
		require.NoError(t, err)
		require.Len(t, body, 1<<20)
		require.Equal(t, Result{Status: 200}, <-seen)
	})
}

type spyReadFrom struct {
	http.ResponseWriter
	src io.Reader
}

func (s *spyReadFrom) ReadFrom(src io.Reader) (int64, error) {
	s.src = src
	return io.Copy(io.Discard, src)
}

func TestReadFromThatFailsAtOnce(t *testing.T) {
	t.Parallel()
	w := around(&spyReadFrom{ResponseWriter: httptest.NewRecorder()})
	_, err := w.shaped().(io.ReaderFrom).ReadFrom(iotestErrReader{})
	require.Error(t, err)
	require.Zero(t, w.status, "nothing was written")
	require.False(t, w.failed, "it is the source that failed")
}

type iotestErrReader struct{}

func (iotestErrReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestClientLeavesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	entered := entrances()
	protocols(t, func(_ http.ResponseWriter, r *http.Request) {
		entered[r.ProtoMajor] <- true
		<-r.Context().Done()
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
		require.Equal(t, Result{Gone: true, Unseen: true}, <-seen)
		require.Zero(t, f.Total("s").Quantity)
	})
}

// ReverseProxy panics with http.ErrAbortHandler when the client leaves mid-stream:
// the tokens were used all the same.
func TestClientLeavesReverseProxyMidStream(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := fmt.Fprint(w, strings.Repeat("token ", 1000)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}))
	t.Cleanup(backend.Close) // after the parallel subtests
	to, _ := url.Parse(backend.URL)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.FlushInterval = -1
	proxy.ErrorLog = nil
	protocols(t, proxy.ServeHTTP, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
		require.NoError(t, err)
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		_, err = io.ReadFull(res.Body, make([]byte, 100))
		require.NoError(t, err)
		cancel()
		res.Body.Close()
		require.Equal(t, Result{Gone: true, Status: 200}, <-seen)
		require.EqualValues(t, 1, f.Total("s").Quantity)
	})
}
