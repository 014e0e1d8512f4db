package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/inprocess/meter/sink"
)

// Store is a sink of one's own: a directory with a file per record, named by the
// record's ID. The ID is what makes it safe: a record that comes again, even after
// a restart, finds its file there and is not stored twice. With a database, the ID
// would be the primary key of an INSERT … ON CONFLICT DO NOTHING.
//
// Concurrency: meter calls Deliver from one goroutine, as Limits says.
type Store struct{ dir string }

// Limits says that an ID counts once for ever. Without it, meter would not dare to
// send a record again after an unclear answer.
func (Store) Limits() sink.Limits { return sink.Limits{DedupeWindow: sink.Forever} }

// Deliver stores records. Each has an answer of its own.
func (s Store) Deliver(ctx context.Context, records []sink.Record) error {
	answers := make([]error, len(records))
	for i, r := range records {
		answers[i] = s.deliver(ctx, r)
	}
	if errors.Join(answers...) == nil {
		return nil
	}
	return &sink.BatchError{Errs: answers}
}

// deliver answers as precisely as it can, for that is what decides: rejected is
// final, not applied is tried again, anything else is doubt.
func (s Store) deliver(ctx context.Context, r sink.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", sink.ErrNotApplied, err)
	}
	if r.Kind > sink.Last {
		return fmt.Errorf("%w: kind %d is unknown", sink.ErrRejected, r.Kind)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("%w: %w", sink.ErrRejected, err)
	}
	name := filepath.Join(s.dir, r.ID+".json")
	if _, err := os.Stat(name); err == nil {
		return s.sync() // an earlier attempt stored it
	}
	if err := write(name+".tmp", body); err != nil {
		return fmt.Errorf("%w: %w", sink.ErrNotApplied, err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return fmt.Errorf("%w: %w", sink.ErrNotApplied, err)
	}
	return s.sync() // its error is doubt: who knows what a power cut would leave
}

func write(name string, body []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	return errors.Join(err, f.Sync(), f.Close())
}

// sync makes the new name durable. Windows has no such call.
func (s Store) sync() error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Total is what the store has for a subject: the invoice.
func (s Store) Total(feature, subject string) (total int64, err error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return 0, err
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return 0, err
		}
		var r sink.Record
		if err := json.Unmarshal(body, &r); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if r.Feature == feature && r.Subject == subject {
			total += r.Quantity
		}
	}
	return total, nil
}
