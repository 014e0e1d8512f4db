package meter

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// One type per combination of optional interfaces; only the compiler can give a
// value a method set. Each holds one pointer, so that making an interface of it
// allocates nothing, and has one method more than the type it embeds. The letters
// say which: Flush (with FlushError), Hijack, Push, CloseNotify, ReadFrom.
type (
	rwF     struct{ *responseWriter }
	rwH     struct{ *responseWriter }
	rwFH    struct{ rwF }
	rwP     struct{ *responseWriter }
	rwFP    struct{ rwF }
	rwHP    struct{ rwH }
	rwFHP   struct{ rwFH }
	rwC     struct{ *responseWriter }
	rwFC    struct{ rwF }
	rwHC    struct{ rwH }
	rwFHC   struct{ rwFH }
	rwPC    struct{ rwP }
	rwFPC   struct{ rwFP }
	rwHPC   struct{ rwHP }
	rwFHPC  struct{ rwFHP }
	rwR     struct{ *responseWriter }
	rwFR    struct{ rwF }
	rwHR    struct{ rwH }
	rwFHR   struct{ rwFH }
	rwPR    struct{ rwP }
	rwFPR   struct{ rwFP }
	rwHPR   struct{ rwHP }
	rwFHPR  struct{ rwFHP }
	rwCR    struct{ rwC }
	rwFCR   struct{ rwFC }
	rwHCR   struct{ rwHC }
	rwFHCR  struct{ rwFHC }
	rwPCR   struct{ rwPC }
	rwFPCR  struct{ rwFPC }
	rwHPCR  struct{ rwHPC }
	rwFHPCR struct{ rwFHPC }
)

// shaped returns w with the optional interfaces of the writer that it wraps.
func (w *responseWriter) shaped() http.ResponseWriter {
	const flush, hijack, push, notify, readFrom = 1, 2, 4, 8, 16
	has := 0
	if _, ok := w.ResponseWriter.(http.Flusher); ok {
		has |= flush
	}
	if _, ok := w.ResponseWriter.(http.Hijacker); ok {
		has |= hijack
	}
	if _, ok := w.ResponseWriter.(http.Pusher); ok {
		has |= push
	}
	if _, ok := w.ResponseWriter.(closeNotifier); ok {
		has |= notify
	}
	if _, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		has |= readFrom
	}
	switch has {
	case flush:
		return rwF{w}
	case hijack:
		return rwH{w}
	case flush | hijack:
		return rwFH{rwF{w}}
	case push:
		return rwP{w}
	case flush | push:
		return rwFP{rwF{w}}
	case hijack | push:
		return rwHP{rwH{w}}
	case flush | hijack | push:
		return rwFHP{rwFH{rwF{w}}}
	case notify:
		return rwC{w}
	case flush | notify:
		return rwFC{rwF{w}}
	case hijack | notify:
		return rwHC{rwH{w}}
	case flush | hijack | notify:
		return rwFHC{rwFH{rwF{w}}}
	case push | notify:
		return rwPC{rwP{w}}
	case flush | push | notify:
		return rwFPC{rwFP{rwF{w}}}
	case hijack | push | notify:
		return rwHPC{rwHP{rwH{w}}}
	case flush | hijack | push | notify:
		return rwFHPC{rwFHP{rwFH{rwF{w}}}}
	case readFrom:
		return rwR{w}
	case flush | readFrom:
		return rwFR{rwF{w}}
	case hijack | readFrom:
		return rwHR{rwH{w}}
	case flush | hijack | readFrom:
		return rwFHR{rwFH{rwF{w}}}
	case push | readFrom:
		return rwPR{rwP{w}}
	case flush | push | readFrom:
		return rwFPR{rwFP{rwF{w}}}
	case hijack | push | readFrom:
		return rwHPR{rwHP{rwH{w}}}
	case flush | hijack | push | readFrom:
		return rwFHPR{rwFHP{rwFH{rwF{w}}}}
	case notify | readFrom:
		return rwCR{rwC{w}}
	case flush | notify | readFrom:
		return rwFCR{rwFC{rwF{w}}}
	case hijack | notify | readFrom:
		return rwHCR{rwHC{rwH{w}}}
	case flush | hijack | notify | readFrom:
		return rwFHCR{rwFHC{rwFH{rwF{w}}}}
	case push | notify | readFrom:
		return rwPCR{rwPC{rwP{w}}}
	case flush | push | notify | readFrom:
		return rwFPCR{rwFPC{rwFP{rwF{w}}}}
	case hijack | push | notify | readFrom:
		return rwHPCR{rwHPC{rwHP{rwH{w}}}}
	case flush | hijack | push | notify | readFrom:
		return rwFHPCR{rwFHPC{rwFHP{rwFH{rwF{w}}}}}
	}
	return w
}

func (w rwF) Flush()            { _ = w.flush() }
func (w rwF) FlushError() error { return w.flush() }

func (w rwH) Hijack() (net.Conn, *bufio.ReadWriter, error)  { return w.hijack() }
func (w rwFH) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w rwP) Push(t string, o *http.PushOptions) error   { return w.push(t, o) }
func (w rwFP) Push(t string, o *http.PushOptions) error  { return w.push(t, o) }
func (w rwHP) Push(t string, o *http.PushOptions) error  { return w.push(t, o) }
func (w rwFHP) Push(t string, o *http.PushOptions) error { return w.push(t, o) }

func (w rwC) CloseNotify() <-chan bool    { return w.closeNotify() }
func (w rwFC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w rwHC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w rwFHC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w rwPC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w rwFPC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w rwHPC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w rwFHPC) CloseNotify() <-chan bool { return w.closeNotify() }

func (w rwR) ReadFrom(src io.Reader) (int64, error)     { return w.readFrom(src) }
func (w rwFR) ReadFrom(src io.Reader) (int64, error)    { return w.readFrom(src) }
func (w rwHR) ReadFrom(src io.Reader) (int64, error)    { return w.readFrom(src) }
func (w rwFHR) ReadFrom(src io.Reader) (int64, error)   { return w.readFrom(src) }
func (w rwPR) ReadFrom(src io.Reader) (int64, error)    { return w.readFrom(src) }
func (w rwFPR) ReadFrom(src io.Reader) (int64, error)   { return w.readFrom(src) }
func (w rwHPR) ReadFrom(src io.Reader) (int64, error)   { return w.readFrom(src) }
func (w rwFHPR) ReadFrom(src io.Reader) (int64, error)  { return w.readFrom(src) }
func (w rwCR) ReadFrom(src io.Reader) (int64, error)    { return w.readFrom(src) }
func (w rwFCR) ReadFrom(src io.Reader) (int64, error)   { return w.readFrom(src) }
func (w rwHCR) ReadFrom(src io.Reader) (int64, error)   { return w.readFrom(src) }
func (w rwFHCR) ReadFrom(src io.Reader) (int64, error)  { return w.readFrom(src) }
func (w rwPCR) ReadFrom(src io.Reader) (int64, error)   { return w.readFrom(src) }
func (w rwFPCR) ReadFrom(src io.Reader) (int64, error)  { return w.readFrom(src) }
func (w rwHPCR) ReadFrom(src io.Reader) (int64, error)  { return w.readFrom(src) }
func (w rwFHPCR) ReadFrom(src io.Reader) (int64, error) { return w.readFrom(src) }
