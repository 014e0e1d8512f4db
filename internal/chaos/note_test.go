package chaos

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/inprocess/meter/sink"
)

// note is what a child tells its parent. Each is one write of fewer bytes than a
// pipe takes at once, so that no kill can tear it.
type note struct {
	kind    noteKind
	worker  uint8
	feature uint8
	subject uint32
	n       int64
}

type noteKind uint8

const (
	started  noteKind = iota + 1 // the process runs
	ready                        // the meter is open
	intent                       // about to count n
	burst                        // about to count 1, n times
	counted                      // the last intent or burst is acknowledged
	unsynced                     // ditto, but a power cut may take it
	refused                      // the last intent or burst was answered: not counted
	ended                        // the child has finished by itself
)

const noteSize = 16

// pipe is the child's end.
type pipe struct{ file *os.File }

func (p pipe) send(n note) {
	var b [noteSize]byte
	b[0], b[1], b[2] = byte(n.kind), n.worker, n.feature
	binary.LittleEndian.PutUint32(b[4:], n.subject)
	binary.LittleEndian.PutUint64(b[8:], uint64(n.n))
	if _, err := p.file.Write(b[:]); err != nil {
		os.Exit(1) // the parent is gone
	}
}

// readNotes hands over what a child says until it is dead.
func readNotes(r io.Reader, visit func(note)) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		var b [noteSize]byte
		switch _, err := io.ReadFull(in, b[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("a torn note: %w", err)
		}
		visit(note{
			kind: noteKind(b[0]), worker: b[1], feature: b[2],
			subject: binary.LittleEndian.Uint32(b[4:]), n: int64(binary.LittleEndian.Uint64(b[8:])),
		})
	}
}

// The features that children count.
const (
	requests uint8 = iota // through the middleware
	units                 // through a Counter, several goroutines at one subject
	fresh                 // through Feature.Add, ever new subjects
	seats                 // Last
	peak                  // Max
)

var features = [...]struct {
	name string
	kind sink.Kind
}{{"requests", sink.Sum}, {"units", sink.Sum}, {"fresh", sink.Sum}, {"seats", sink.Last}, {"peak", sink.Max}}

func subjectName(n uint32) string { return fmt.Sprintf("subject-%d", n) }

// seriesKey is whom a count is billed to.
type seriesKey struct{ feature, subject string }

func (n note) key() seriesKey {
	return seriesKey{features[n.feature].name, subjectName(n.subject)}
}

// signal is closed once.
type signal struct {
	once sync.Once
	ch   chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

func (s *signal) fire() { s.once.Do(func() { close(s.ch) }) }
