package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/filesink"
)

// fault is what a witness does beside passing records on.
type fault string

const (
	none      fault = ""
	outages   fault = "outages"   // fails at random, in every way that is allowed
	forgets   fault = "forgets"   // the same, and knows no ID again: whatever is sent is billed
	takesAll  fault = "takes all" // never fails, and knows no ID again
	drops     fault = "drops"     // not allowed: loses a record of a batch
	repeats   fault = "repeats"   // not allowed: bills a record again, under another ID
	reassigns fault = "reassigns" // not allowed: bills another subject
	inflates  fault = "inflates"  // not allowed: changes a body between two attempts
)

// witness stands before the sink and writes down what every attempt carries: an
// ID must have the same body in all of them, and nobody else would see that.
type witness struct {
	*filesink.Sink
	path  string
	fault fault

	mu  sync.Mutex
	rng *rand.Rand
}

func newWitness(file *filesink.Sink, root string, f fault, seed uint64) *witness {
	return &witness{Sink: file, path: filepath.Join(root, "attempts.jsonl"), fault: f, rng: rand.New(rand.NewPCG(seed, 1))}
}

// behave changes what it does from now on.
func (w *witness) behave(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

var errOutage = errors.New("an outage")

func (w *witness) Deliver(ctx context.Context, records []sink.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault == inflates {
		records[0].Quantity += 1000
	}
	if err := appendLines(w.path, records); err != nil {
		return fmt.Errorf("%w: %w", sink.ErrNotApplied, err)
	}
	switch w.fault {
	case outages:
		return w.deliverBadly(ctx, records, w.Sink.Deliver)
	case takesAll:
		return w.bill(ctx, records)
	case forgets:
		return w.deliverBadly(ctx, records, w.bill)
	case drops:
		return w.Sink.Deliver(ctx, records[1:])
	case repeats:
		again := records[0]
		again.ID += "-0"
		records = append(records, again)
	case reassigns:
		records[0].Subject = subjectName(1 << 31)
	case inflates:
		return errOutage // so that there is another attempt, by a sink that does not lie
	}
	return w.Sink.Deliver(ctx, records)
}

// Limits are those of a file that refuses an ID for ever, or of a biller that forgets.
func (w *witness) Limits() sink.Limits {
	if w.fault == forgets || w.fault == takesAll {
		return sink.Limits{}
	}
	return w.Sink.Limits()
}

// bill is a biller that takes everything for new.
func (w *witness) bill(_ context.Context, records []sink.Record) error {
	err := appendLines(filepath.Join(filepath.Dir(w.path), "usage.jsonl"), records)
	time.Sleep(time.Duration(w.rng.Int64N(int64(20 * time.Millisecond)))) // the answer is on its way
	return err
}

func (w *witness) deliverBadly(ctx context.Context, records []sink.Record, deliver func(context.Context, []sink.Record) error) error {
	switch w.rng.IntN(6) {
	case 0:
		return fmt.Errorf("%w: %w", sink.ErrNotApplied, errOutage)
	case 1:
		return errOutage // in doubt, and in truth not applied
	case 2: // in doubt, and in truth applied
		return errors.Join(errOutage, deliver(ctx, records))
	case 3: // some of each
		errs := make([]error, len(records))
		for i := range records {
			switch w.rng.IntN(4) {
			case 0:
				errs[i] = fmt.Errorf("%w: %w", sink.ErrNotApplied, errOutage)
			case 1:
				errs[i] = errOutage
			case 2:
				errs[i] = errors.Join(errOutage, deliver(ctx, records[i:i+1]))
			default:
				errs[i] = deliver(ctx, records[i:i+1])
			}
		}
		return &sink.BatchError{Errs: errs}
	}
	return deliver(ctx, records)
}

// line is a record in the file of the sink, and in that of the witness.
type line struct {
	ID         string            `json:"id"`
	Feature    string            `json:"feature"`
	Subject    string            `json:"subject"`
	Dimensions map[string]string `json:"dimensions"`
	Kind       string            `json:"kind"`
	Quantity   int64             `json:"quantity"`
	Start      string            `json:"start"`
	End        string            `json:"end"`
}

// body is all of a record but its ID.
func (l line) body() string {
	return fmt.Sprint(l.Feature, l.Subject, l.Dimensions, l.Kind, l.Quantity, l.Start, l.End)
}

func lineOf(r sink.Record) line {
	const layout = "2006-01-02T15:04:05Z"
	return line{r.ID, r.Feature, r.Subject, r.Dimensions, r.Kind.String(), r.Quantity, r.Start.Format(layout), r.End.Format(layout)}
}

// appendLines appends records to a file. Each call begins a line of its own, whatever a
// kill left of the one before.
func appendLines(path string, records []sink.Record) error {
	var text bytes.Buffer
	for _, r := range records {
		b, err := json.Marshal(lineOf(r))
		if err != nil {
			return err
		}
		text.WriteByte('\n')
		text.Write(b)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text.Bytes())
	return errors.Join(err, f.Close())
}

// readLines reads what can be read of JSON lines. torn is how many can't.
func readLines(path string) (lines []line, torn int, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	for text := range bytes.Lines(data) {
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		var l line
		if json.Unmarshal(text, &l) != nil {
			torn++
			continue
		}
		lines = append(lines, l)
	}
	return lines, torn, err
}
