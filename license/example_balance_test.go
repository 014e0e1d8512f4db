package license_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/inprocess/meter/license"
)

// accounts is a Balance over two tables, here in memory: what is left, and the transfers
// that were made. In a database each method is one transaction.
type accounts struct {
	mu   sync.Mutex
	left map[string]int64
	made map[string]bool // by ID, a unique key
}

func (a *accounts) Read(_ context.Context, subject string) (license.Funds, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return license.Funds{Units: a.left[subject]}, nil
}

func (a *accounts) Move(_ context.Context, t license.Transfer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.made[t.ID] {
		return nil // by an attempt whose answer was lost
	}
	change := -t.Units
	if t.Back {
		change = t.Units
	}
	if a.left[t.Subject]+change < 0 {
		return license.ErrNotApplied
	}
	a.left[t.Subject] += change
	a.made[t.ID] = true
	return nil
}

// A balance in one's own database: a transfer that comes again changes nothing more.
func ExampleBalance() {
	var b license.Balance = &accounts{left: map[string]int64{"cus_1": 100}, made: map[string]bool{}}
	ctx := context.Background()
	draw := license.Transfer{ID: "A1", Subject: "cus_1", Units: 60}
	fmt.Println(b.Move(ctx, draw), b.Move(ctx, draw))
	fmt.Println(b.Move(ctx, license.Transfer{ID: "A2", Subject: "cus_1", Units: 60}))
	left, _ := b.Read(ctx, "cus_1")
	fmt.Println(left.Units)
	// Output:
	// <nil> <nil>
	// not applied
	// 40
}
