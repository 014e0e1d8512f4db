package main

import (
	"bufio"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// message says that a tenant has orders to pay for.
type message struct {
	ID, Tenant string
	Orders     int64
}

// queue stands for one that delivers at least once: a message comes until it is
// acknowledged, and sometimes after that.
type queue struct {
	messages []message
	path     string // of the acknowledgments
	acked    map[string]bool
}

func openQueue(dir string, n int) (*queue, error) {
	q := &queue{path: filepath.Join(dir, "acknowledged"), acked: map[string]bool{}}
	tenants := []string{"ada", "bob", "eve"}
	for i := range n {
		q.messages = append(q.messages, message{fmt.Sprint("orders/0/", i), tenants[i%len(tenants)], int64(1 + i%4)})
	}
	f, err := os.Open(q.path)
	if errors.Is(err, os.ErrNotExist) {
		return q, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		q.acked[lines.Text()] = true
	}
	return q, lines.Err()
}

// deliveries yields what comes, numbered: what was not acknowledged, and a tenth of
// it twice; now and then something that was acknowledged long ago.
func (q *queue) deliveries() iter.Seq2[int, message] {
	return func(yield func(int, message) bool) {
		n := 0
		deliver := func(msg message) bool {
			n++
			return yield(n, msg)
		}
		for i, msg := range q.messages {
			if q.acked[msg.ID] && i%10 != 0 {
				continue
			}
			if !deliver(msg) || i%10 == 3 && !deliver(msg) || i%25 == 24 && !deliver(q.messages[rand.IntN(i)]) {
				return
			}
		}
	}
}

func (q *queue) acknowledge(id string) error {
	f, err := os.OpenFile(q.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, id)
	q.acked[id] = true
	return errors.Join(err, f.Close())
}
