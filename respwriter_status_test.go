package meter

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a handler does that reaches nobody is no status.
func TestStatusIsWhatTheClientGot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		result  map[int]Result // by major version
	}{
		"error after copying nothing": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("")})
			w.WriteHeader(http.StatusBadGateway)
		}, map[int]Result{1: {Status: 502}, 2: {Status: 502}}},
		"copy beyond the length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "0")
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("more")})
			w.WriteHeader(http.StatusBadGateway)
		}, map[int]Result{1: {Status: 200}, 2: {Status: 200}}},
		"error in a connection taken over": {func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 {
				return
			}
			conn, buffered, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			http.Error(w, "failed", http.StatusInternalServerError)
			fmt.Fprint(buffered, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_ = buffered.Flush()
			_ = conn.Close()
		}, map[int]Result{1: {Hijacked: true}, 2: {}}},
		"101, which is nothing in HTTP/2": {func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 {
				w.WriteHeader(http.StatusSwitchingProtocols)
			}
			w.WriteHeader(http.StatusBadRequest)
		}, map[int]Result{1: {Status: 400}, 2: {Status: 400}}},
	} {
		t.Run(name, func(t *testing.T) {
			protocols(t, test.handler, func(t *testing.T, f *Feature, s *httptest.Server, seen <-chan Result) {
				want := test.result[major(s)]
				got := get(t, s).StatusCode
				require.Equal(t, want, <-seen)
				if want.Status != 0 {
					require.Equal(t, want.Status, got)
				}
				require.Equal(t, countsByDefault(want), f.Total("s").Quantity == 1)
			})
		})
	}
}
