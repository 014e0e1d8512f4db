package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/inprocess/meter"
)

// bills is what the file says, read without any help from the library.
type bills struct {
	lines    int
	repeated int // lines whose ID stands there already
	quantity map[account]int64
}

func readBills(path string) (bills, error) {
	b := bills{quantity: map[account]int64{}}
	file, err := os.Open(path)
	if err != nil {
		return b, err
	}
	defer file.Close()
	ids := map[string]bool{}
	for lines := json.NewDecoder(file); ; {
		var line struct {
			ID, Feature, Subject string
			Quantity             int64
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return b, nil
		} else if err != nil {
			return b, fmt.Errorf("%s: %w", path, err)
		}
		b.lines++
		if ids[line.ID] {
			b.repeated++
		}
		ids[line.ID] = true
		b.quantity[account{line.Feature, line.Subject}] += line.Quantity
	}
}

func (b bills) of(feature string) (n int64) {
	for a, quantity := range b.quantity {
		if a.feature == feature {
			n += quantity
		}
	}
	return n
}

// compare prints what clients counted beside what was billed, and returns what is
// wrong with it.
func compare(clients map[account]tally, billed bills) error {
	var wrong error
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "customer\tfeature\tsent\tanswered\tin flight when killed\tbilled\t")
	for _, customer := range customers {
		for _, feature := range features {
			a := account{feature, customer}
			t, n := clients[a], billed.quantity[a]
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t\n", customer, feature, t.sent, t.answered, t.sent-t.answered, n)
			if n < t.answered || n > t.sent {
				wrong = errors.Join(wrong, fmt.Errorf("%s was billed %d of %s, having sent %d and got %d", customer, n, feature, t.sent, t.answered))
			}
		}
	}
	return errors.Join(wrong, table.Flush())
}

// check compares the meter's own books with the file.
func check(books meter.Books, billed bills) error {
	err := books.Check()
	if len(books) != len(features) {
		err = errors.Join(err, fmt.Errorf("the books have %d lines, not one for each of %d features", len(books), len(features)))
	}
	for _, line := range books {
		if n := billed.of(line.Feature); line.Accepted != n || line.Delivered != n {
			err = errors.Join(err, fmt.Errorf("the books say that %d of %d %s were delivered; the file has %d", line.Delivered, line.Accepted, line.Feature, n))
		}
	}
	if billed.repeated > 0 {
		err = errors.Join(err, fmt.Errorf("%d records stand in the file twice", billed.repeated))
	}
	return err
}
