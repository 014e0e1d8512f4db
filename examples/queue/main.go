// Queue counts the messages of a queue that delivers some of them more than once,
// and kills the consumer in the middle.
//
//	go run ./examples/queue
//
// Read consumer.go: it is what you would write. queue.go stands for the queue, and
// this file starts two consumers and compares the bills with the messages.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const messages = 1000

func main() {
	var err error
	if len(os.Args) == 3 { // started by run
		err = consumer(os.Args[1], os.Args[2])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "queue:", err)
		os.Exit(1)
	}
}

func consumer(dir, dieAt string) error {
	at, err := strconv.Atoi(dieAt)
	if err != nil {
		return err
	}
	q, err := openQueue(dir, messages)
	if err != nil {
		return err
	}
	_, err = consume(context.Background(), dir, q, at)
	return err
}

func billsPath(dir string) string { return filepath.Join(dir, "bills.jsonl") }

func run() error {
	dir, err := os.MkdirTemp("", "meter-queue-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	if err := start(ctx, dir, 400); err == nil {
		return errors.New("the first consumer was to be killed")
	}
	q, err := openQueue(dir, messages)
	if err != nil {
		return err
	}
	fmt.Printf("1. A consumer counted, acknowledged %d of %d messages, and killed itself\n   between counting a message and acknowledging it.\n\n", len(q.acked), messages)
	if err := start(ctx, dir, -1); err != nil {
		return err
	}
	if q, err = openQueue(dir, messages); err != nil {
		return err
	}
	fmt.Printf("2. Another one got what was not acknowledged, some of it twice, and some of what\n   was acknowledged. Acknowledged now: %d.\n\n", len(q.acked))
	return compare(ctx, dir, q)
}

// start runs a consumer as a process of its own.
func start(ctx context.Context, dir string, dieAt int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, dir, strconv.Itoa(dieAt))
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// compare delivers every message once more, and then holds the bills against them.
func compare(ctx context.Context, dir string, q *queue) error {
	q.acked = map[string]bool{}
	books, err := consume(ctx, dir, q, -1)
	if err != nil {
		return err
	}
	f, err := os.Open(billsPath(dir))
	if err != nil {
		return err
	}
	defer f.Close()
	billed := map[string]int64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var bill struct {
			Subject  string `json:"subject"`
			Quantity int64  `json:"quantity"`
		}
		if err := json.Unmarshal(lines.Bytes(), &bill); err != nil {
			return err
		}
		billed[bill.Subject] += bill.Quantity
	}
	ordered := map[string]int64{}
	for _, msg := range q.messages {
		ordered[msg.Tenant] += msg.Orders
	}
	fmt.Println("3. Then all of them were delivered once more. Who ordered what, and what is billed:")
	for _, tenant := range []string{"ada", "bob", "eve"} {
		fmt.Printf("   %-4s  ordered %d, billed %d\n", tenant, ordered[tenant], billed[tenant])
		if ordered[tenant] != billed[tenant] {
			return fmt.Errorf("%s is billed wrongly", tenant)
		}
	}
	fmt.Printf("\n   The books of the consumer that took them once more; duplicates are what it did not count again:\n%v", books)
	return lines.Err()
}
