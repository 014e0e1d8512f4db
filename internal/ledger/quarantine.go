package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// quarantine is the written evidence of what needed, or got, a human decision:
// JSON lines, appended and synced before the slot itself changes. The slots stay
// the truth; a line without its mark is applied again when the ledger opens.
type quarantine struct {
	store *store // nil: in memory, no evidence

	mu      sync.Mutex
	file    *os.File
	end     int64
	reasons map[decisionKey]string // of what waits for a decision
}

// quarantineLine is one line. A decision has Settled; everything else reports.
type quarantineLine struct {
	At           time.Time         `json:"at"`
	ID           string            `json:"id"`
	Route        string            `json:"route"`
	Outcome      string            `json:"outcome,omitempty"`
	Reason       string            `json:"reason,omitempty"`
	Settled      string            `json:"settled,omitempty"`
	Note         string            `json:"note,omitempty"`
	Feature      string            `json:"feature"`
	Subject      string            `json:"subject"`
	Dimensions   map[string]string `json:"dimensions,omitempty"`
	Kind         string            `json:"kind"`
	Quantity     int64             `json:"quantity"`
	Start        time.Time         `json:"start"`
	End          time.Time         `json:"end"`
	FirstAttempt *time.Time        `json:"first_attempt,omitempty"`
	CRC          uint32            `json:"crc"` // CRC-32C of the line with crc 0
}

func newQuarantineLine(r sink.Record, route string) quarantineLine {
	return quarantineLine{
		At: time.Now().UTC(), ID: r.ID, Route: route,
		Feature: r.Feature, Subject: r.Subject, Dimensions: r.Dimensions, Kind: r.Kind.String(),
		Quantity: r.Quantity, Start: r.Start, End: r.End,
	}
}

func (q quarantineLine) encode() []byte {
	q.CRC = 0
	q.Reason, q.Note = strings.ToValidUTF8(q.Reason, "\uFFFD"), strings.ToValidUTF8(q.Note, "\uFFFD")
	b, err := json.Marshal(q)
	if err != nil {
		panic(err) // strings, numbers and times of known form
	}
	q.CRC = crc32.Checksum(b, castagnoli)
	b, _ = json.Marshal(q)
	return append(b, '\n')
}

func decodeQuarantineLine(b []byte) (q quarantineLine, err error) {
	if err := json.Unmarshal(b, &q); err != nil {
		return q, err
	}
	sum := q.CRC
	q.CRC = 0
	again, err := json.Marshal(q)
	if err != nil {
		return q, err
	}
	if crc32.Checksum(again, castagnoli) != sum {
		return q, errors.New("checksum wrong")
	}
	return q, nil
}

type decisionKey struct{ id, route string }

// openQuarantine reads the lines, closes a torn tail, and returns the decisions
// that nothing newer has superseded.
func openQuarantine(l *Ledger) (*quarantine, map[decisionKey]quarantineLine, error) {
	q := &quarantine{store: l.store, reasons: make(map[decisionKey]string)}
	if l.store == nil {
		return q, nil, nil
	}
	path := filepath.Join(l.store.dir, quarantineFile)
	f, err := disk.OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, nil, fmt.Errorf("meter: %w", err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("meter: %w", err), f.Close())
	}
	decisions, reasons, bad := readQuarantine(data)
	q.reasons = reasons
	if bad > 0 {
		l.setAside(path, fmt.Errorf("quarantine: %d lines are unreadable", bad))
	}
	q.file, q.end = f, int64(len(data))
	if torn := data[bytes.LastIndexByte(data, '\n')+1:]; len(torn) > 0 {
		// Nothing was marked for a line that was never finished.
		q.end -= int64(len(torn))
		if err := f.Truncate(q.end); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("meter: %w", err), f.Close())
		}
	}
	if err := disk.SyncDir(l.store.dir); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("meter: %w", err), f.Close())
	}
	return q, decisions, nil
}

// readQuarantine returns the decisions in force, why everything else was
// quarantined, and how many whole lines are unreadable. A torn last line is none: nothing was marked for it.
func readQuarantine(data []byte) (decisions map[decisionKey]quarantineLine, reasons map[decisionKey]string, bad int) {
	decisions, reasons = make(map[decisionKey]quarantineLine), make(map[decisionKey]string)
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		data = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if !whole {
			break
		}
		q, err := decodeQuarantineLine(line)
		if err != nil {
			bad++
			continue
		}
		k := decisionKey{q.ID, q.Route}
		if q.Settled != "" {
			decisions[k] = q
			delete(reasons, k)
		} else {
			reasons[k] = q.Reason
			delete(decisions, k)
		}
	}
	return decisions, reasons, bad
}

// append writes lines, durably.
func (q *quarantine) append(lines []quarantineLine) error {
	q.mu.Lock()
	for _, line := range lines {
		if k := (decisionKey{line.ID, line.Route}); line.Settled != "" {
			delete(q.reasons, k)
		} else {
			q.reasons[k] = line.Reason
		}
	}
	q.mu.Unlock()
	if q.store == nil || len(lines) == 0 {
		return nil
	}
	var b []byte
	for _, line := range lines {
		b = append(b, line.encode()...)
	}
	return q.appendRaw(b)
}

func (q *quarantine) appendRaw(b []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.file == nil {
		return ErrClosed // the directory may be another process's by now
	}
	if err := q.store.before("append quarantine"); err != nil {
		return err
	}
	if _, err := q.file.WriteAt(b, q.end); err != nil {
		return errors.Join(err, q.file.Truncate(q.end))
	}
	if err := disk.Sync(q.file); err != nil {
		// A file whose sync failed is not trusted: open it anew and repeat the
		// lines there; readers take a repeated line once.
		f, openErr := disk.OpenFile(q.file.Name(), os.O_RDWR)
		if openErr == nil {
			openErr = f.Truncate(q.end)
			q.file.Close()
			q.file = f
		}
		return errors.Join(err, openErr)
	}
	q.end += int64(len(b))
	return nil
}

// learn takes over the reasons that another directory's quarantine gave.
func (q *quarantine) learn(reasons map[decisionKey]string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.Copy(q.reasons, reasons)
}

// reason is why a record is quarantined.
func (q *quarantine) reason(id, route string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reasons[decisionKey{id, route}]
}

// close releases the file.
func (q *quarantine) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.file == nil {
		return nil
	}
	err := q.file.Close()
	q.file = nil
	return err
}

// hold puts records of one segment and route into quarantine: first on paper,
// then in the slots. The caller holds sd.mu.
func (l *Ledger) hold(sd *sealed, route int, reasons map[uint32]holding) error {
	if len(reasons) == 0 {
		return nil
	}
	entry := sd.entry[route]
	var lines []quarantineLine
	var blocks []uint32
	for block, why := range reasons {
		r, err := sd.record(block, entry, 0)
		if err != nil {
			return err
		}
		line := newQuarantineLine(r, l.routes[route].Name)
		line.Outcome, line.Reason = why.state.outcome().String(), why.reason
		if first := sd.outcomes(block).first[entry]; first != 0 && first != unknownTime {
			at := time.Unix(int64(first), 0).UTC()
			line.FirstAttempt = &at
		}
		lines, blocks = append(lines, line), append(blocks, block)
	}
	l.log.Warn("meter: records quarantined", "route", l.routes[route].Name, "records", len(lines), "first", lines[0].ID, "outcome", lines[0].Outcome, "reason", lines[0].Reason)
	if err := l.quarantine.append(lines); err != nil {
		l.health.set("quarantine", fmt.Errorf("meter: can't write %s: %w", quarantineFile, err))
		return err
	}
	l.health.clear("quarantine")
	for block, why := range reasons {
		sd.set(block, func(o *outcomes) { o.states[entry] = why.state })
	}
	return sd.persist(blocks, true)
}

type holding struct {
	state  state
	reason string
}

// QuarantinedRecord is a record with the route that it is quarantined on.
type QuarantinedRecord struct {
	sink.Record
	Route        string
	Reason       string
	FirstAttempt time.Time // zero: never attempted, or nobody knows when
}

// Quarantine yields every record that waits for a decision, oldest first.
func (l *Ledger) Quarantine() iter.Seq2[QuarantinedRecord, sink.Outcome] {
	return func(yield func(QuarantinedRecord, sink.Outcome) bool) {
		for _, sd := range l.sealedNow() {
			for _, found := range sd.heldRecords() {
				if !yield(found.QuarantinedRecord, found.state.outcome()) {
					return
				}
			}
		}
	}
}

type heldRecord struct {
	QuarantinedRecord
	state state
}

func (sd *sealed) heldRecords() (found []heldRecord) {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if sd.held == 0 {
		return nil
	}
	img, err := sd.load()
	if err != nil {
		return nil
	}
	for _, block := range img.slots {
		o := sd.outcomes(block)
		for i, owed := range sd.head.routes {
			if !o.states[i].held() {
				continue
			}
			r, err := sd.record(block, i, 0)
			if err != nil {
				continue
			}
			q := QuarantinedRecord{Record: r, Route: owed.name, Reason: sd.ledger.quarantine.reason(r.ID, owed.name)}
			if first := o.first[i]; first != 0 {
				q.Attempt = 1 // at least
				if first != unknownTime {
					q.FirstAttempt = time.Unix(int64(first), 0).UTC()
				}
			}
			found = append(found, heldRecord{q, o.states[i]})
		}
	}
	return found
}
