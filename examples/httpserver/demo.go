package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/inprocess/meter"
)

// requests of the demonstration, and what they should come to.
var requests = []struct {
	year, key string
	status    int // 0: no answer
	counted   int64
	because   string
}{
	{"2025", "K-1", 200, 1, "a good answer counts"},
	{"2024", "K-1", 200, 1, "and so does the next"},
	{"1066", "K-1", 404, 0, "nobody pays for an error"},
	{"1999", "K-1", 0, 0, "nor for a panic, which goes on to net/http unchanged"},
	{"2025", "", 401, 0, "nobody to bill"},
	{"2025", "K-2", 403, 0, "the license has expired"},
}

// demonstrate runs the server on itself.
func demonstrate(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "meter-httpserver-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	log.SetOutput(io.Discard) // net/http prints the stack of the panic

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		faults error
		opened *meter.Meter
	)
	stopped := run(ctx, "127.0.0.1:0", dir, func(url string, m *meter.Meter) {
		opened = m
		faults = drive(url, m)
		cancel() // as SIGTERM would
	})
	if err := errors.Join(faults, stopped); err != nil {
		return err
	}
	bills, err := os.ReadFile(dir + "/bills.jsonl")
	if err != nil {
		return err
	}
	fmt.Printf("\nAfter the stop, the books:\n%v\nand the bill:\n%s", opened.Books(), bills)
	if want := `"subject":"cus_ada","dimensions":{},"kind":"sum","quantity":2`; !strings.Contains(string(bills), want) {
		return fmt.Errorf("the bill should have %s", want)
	}
	return opened.Books().Check()
}

func drive(url string, m *meter.Meter) (faults error) {
	report := m.Feature("tax-report")
	for _, q := range requests {
		before := report.Total("cus_ada").Quantity
		status, body, err := post(url+"/reports/"+q.year, q.key)
		if err != nil && q.status != 0 {
			return err
		}
		counted := report.Total("cus_ada").Quantity - before
		fmt.Printf("POST /reports/%s, key %-5q %3d, counted %d: %s\n", q.year, q.key, status, counted, q.because)
		if status >= 401 && status <= 403 {
			fmt.Printf("    %s", body)
		}
		if status != q.status || counted != q.counted {
			faults = errors.Join(faults, fmt.Errorf("%+v came to %d and counted %d", q, status, counted))
		}
	}
	return faults
}

func post(url, key string) (status int, body string, err error) {
	r, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		return 0, "", err
	}
	if key != "" {
		r.Header.Set("X-License-Key", key)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}
