package meter

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// program is a handler made of steps, two bytes each, behind two that say how it is
// asked. Any bytes are one.
type program []byte

const programMost = 2 + 2*16 // bytes that count

// ask is how the program is asked.
func (p program) ask() (a asking) {
	if len(p) < 2 {
		return asking{method: "GET"}
	}
	method := []string{"GET", "POST", "HEAD", "GET"}[p[0]&3]
	body := []string{"", "", "few", strings.Repeat("many more ", 400)}[p[1]&3]
	if method == "HEAD" {
		body = "" // in HTTP/2 the end of the headers is that of the exchange, and of all reading, at some moment
	}
	return asking{
		method:  method,
		http10:  p[0]&4 != 0,
		close:   p[0]&8 != 0,
		chunked: p[0]&16 != 0 && body != "",
		expects: p[0]&32 != 0 && body != "",
		body:    body,
	}
}

type asking struct {
	method                          string
	http10, close, chunked, expects bool
	body                            string
}

// seen is what a handler can tell, and what it should be billed by: by the rules of
// Result, from what it did and not from what a writer noted.
type seen struct {
	file     string // a long one
	log      []string
	status   int
	hijacked bool
	failed   bool // a write did not reach the client
	panicked bool
	aborted  bool // by http.ErrAbortHandler, before the exchange was over as far as it could tell
}

var port = regexp.MustCompile(`127\.0\.0\.1:\d+`)

func (s *seen) note(format string, args ...any) {
	s.log = append(s.log, port.ReplaceAllString(fmt.Sprintf(format, args...), "addr"))
}

// wrote notes that a final status has left, if none had.
func (s *seen) wrote(status int) {
	if s.status == 0 && !s.hijacked {
		s.status = status
	}
}

// sent notes how a write ended.
func (s *seen) sent(what string, n any, err error) {
	s.note("%s: %v %v", what, n, err)
	for _, mistake := range []error{nil, http.ErrContentLength, http.ErrBodyNotAllowed, http.ErrHijacked, io.ErrShortWrite, errSource} {
		if err == mistake || mistake != nil && errors.Is(err, mistake) {
			return
		}
	}
	s.failed = true
}

func (s *seen) counts() bool { return s.status < 400 && !s.panicked }

var errSource = errors.New("the source fails")

// failing gives n bytes, and then an error.
type failing struct{ left int }

func (f *failing) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errSource
	}
	n := min(len(p), f.left)
	for i := range n {
		p[i] = 'f'
	}
	f.left -= n
	return n, nil
}

// sizes lie around those of the server's buffers.
var sizes = [...]int{0, 1, 10, 511, 512, 513, 2047, 2048, 2049, 4095, 4096, 4097, 10_000, 40_000, 3, 100}

var statuses = [...]int{
	200, 201, 204, 206, 304, 400, 404, 500, 503, 299, 999, // final
	100, 102, 103, 199, 101, // informational, the last one final in HTTP/1
	0, 99, 1000, -1, // none
}

// run is the handler.
func (p program) run(w http.ResponseWriter, r *http.Request, s *seen) {
	s.panicked = true
	defer func() { s.note("ended with %d", s.status) }()
	steps := p[min(len(p), 2):min(len(p), programMost)]
	for len(steps) >= 2 {
		if end := s.step(w, r, steps[0], int(steps[1])); end {
			break
		}
		steps = steps[2:]
	}
	s.panicked = false
}

func (s *seen) step(w http.ResponseWriter, r *http.Request, what byte, n int) (end bool) {
	size := sizes[n%len(sizes)]
	rc := http.NewResponseController(w)
	switch what % 20 {
	case 0, 1:
		s.writeHeader(w, r, statuses[n%len(statuses)])
	case 2, 3:
		s.wrote(200)
		n, err := w.Write([]byte(strings.Repeat("w", size)))
		s.sent("write", n, err)
	case 4:
		s.wrote(200)
		n, err := io.WriteString(w, strings.Repeat("s", size))
		s.sent("write string", n, err)
	case 5:
		f, ok := w.(http.Flusher)
		s.note("flusher: %v", ok)
		if ok {
			s.wrote(200)
			f.Flush()
		}
	case 6:
		s.wrote(200)
		s.sent("flush", "", rc.Flush())
	case 7, 8:
		source, end := s.source(what%20 == 8, n/16, size)
		if size > 0 { // of nothing nothing is written
			s.wrote(200)
		}
		n, err := io.Copy(w, source)
		end()
		s.sent("read from", n, err)
	case 9:
		h := w.Header()
		switch n % 10 {
		case 0:
			h.Set("Content-Length", fmt.Sprint(sizes[n/10%len(sizes)]))
		case 1:
			h.Set("Content-Length", "nonsense")
		case 2:
			h.Set("Connection", "close")
		case 3:
			h["Date"] = nil
		case 4:
			h.Set("Transfer-Encoding", "identity")
		case 5:
			h.Set("Content-Type", "text/x-steps")
		case 6:
			h["Content-Type"] = nil
		case 7:
			h.Add("X-Several", fmt.Sprint(n))
		case 8:
			h.Set("X-Broken", "a\r\nb")
		case 9:
			clear(h)
		}
	case 10:
		w.Header().Add("Trailer", "X-Declared")
	case 11:
		w.Header().Set("X-Declared", fmt.Sprint(n))
	case 12:
		w.Header().Set(http.TrailerPrefix+"X-Undeclared", fmt.Sprint(n))
	case 13:
		got, err := io.ReadFull(r.Body, make([]byte, size))
		s.note("read: %d %v", got, err)
	case 14:
		got, err := io.Copy(io.Discard, r.Body)
		s.note("read all: %d %v", got, err)
	case 15:
		later := time.Now().Add(time.Hour)
		s.note("deadlines: %v %v", rc.SetReadDeadline(later), rc.SetWriteDeadline(later))
	case 16:
		s.note("full duplex: %v", rc.EnableFullDuplex())
	case 17:
		s.hijack(w, rc, n)
	case 18:
		p, ok := w.(http.Pusher)
		s.note("pusher: %v", ok)
		if ok {
			s.note("push: %v", p.Push("/pushed", nil))
		}
	case 19:
		switch n % 4 {
		case 0:
			s.panicked = !s.failed && r.Context().Err() == nil
			s.aborted = s.panicked
			panic(http.ErrAbortHandler)
		case 1:
			panic("a step")
		}
		return true
	}
	return false
}

// source is where a copy comes from: the server and the standard library treat each in
// a way of its own.
func (s *seen) source(fails bool, kind, size int) (from io.Reader, end func()) {
	text := strings.NewReader(strings.Repeat("r", size))
	switch {
	case fails:
		return &failing{size}, func() {}
	case kind%3 == 0:
		return text, func() {} // it writes by itself
	case kind%3 == 1:
		return struct{ io.Reader }{text}, func() {}
	}
	file, err := os.Open(s.file)
	if err != nil {
		s.note("%v", err)
		return text, func() {}
	}
	return io.LimitReader(file, int64(size)), func() { _ = file.Close() }
}

func (s *seen) writeHeader(w http.ResponseWriter, r *http.Request, status int) {
	s.note("write header: %d", status)
	w.WriteHeader(status) // panics for some
	if status >= 200 || status == http.StatusSwitchingProtocols && r.ProtoMajor == 1 {
		s.wrote(status)
	}
}

func (s *seen) hijack(w http.ResponseWriter, rc *http.ResponseController, n int) {
	h, ok := w.(http.Hijacker)
	s.note("hijacker: %v", ok)
	hijack := rc.Hijack
	if ok && n&1 != 0 {
		hijack = h.Hijack
	}
	conn, buffered, err := hijack()
	s.note("hijack: %v", err)
	if err != nil {
		return
	}
	s.hijacked = true
	_, err = buffered.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	s.note("hijacked: %v %v %v", err, buffered.Flush(), conn.Close())
}
