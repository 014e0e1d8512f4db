package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
)

// askServer stands for the checker of a license server.
func askServer(_ context.Context, q license.Query) (license.Verdict, error) {
	fmt.Println("asked about", q.Feature)
	if q.Key == license.NewKey("K-1") {
		return license.Verdict{Status: license.Allowed, Subject: "cus_1"}, nil
	}
	return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
}

func Example() {
	c := cache.New(cache.Config{Checker: license.CheckerFunc(askServer)})
	defer c.Close()
	for _, key := range []string{"K-1", "K-1", "K-2", "K-2"} {
		v, err := c.Check(context.Background(), license.Query{Key: license.NewKey(key), Feature: "tax-report"})
		fmt.Println(v.Status == license.Allowed, v.Subject, v.Reason, err)
	}
	// Output:
	// asked about tax-report
	// true cus_1  <nil>
	// true cus_1  <nil>
	// asked about tax-report
	// false  not-found <nil>
	// false  not-found <nil>
}

func ExampleCache_Check() {
	down := errors.New("connection refused")
	c := cache.New(cache.Config{
		Checker: license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
			return license.Verdict{}, down
		}),
		Logger: slog.New(slog.DiscardHandler),
	})
	defer c.Close()
	v, err := c.Check(context.Background(), license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"})
	fmt.Println(v.Status == license.Unknown, errors.Is(err, down), err)
	// Output: true true cache: Checker: connection refused
}

// A webhook that says that a customer has canceled need not wait for Fresh.
func ExampleCache_InvalidateSubject() {
	c := cache.New(cache.Config{Checker: license.CheckerFunc(askServer)})
	defer c.Close()
	q := license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"}
	_, _ = c.Check(context.Background(), q)
	c.InvalidateSubject("cus_1")
	_, _ = c.Check(context.Background(), q)
	// Output:
	// asked about tax-report
	// asked about tax-report
}

func ExampleCache_Invalidate() {
	c := cache.New(cache.Config{Checker: license.CheckerFunc(askServer)})
	defer c.Close()
	q := license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"}
	_, _ = c.Check(context.Background(), q)
	c.Invalidate(q.Key)
	_, _ = c.Check(context.Background(), q)
	// Output:
	// asked about tax-report
	// asked about tax-report
}

func ExampleCache_Validate() {
	fmt.Println(cache.New(cache.Config{Fresh: time.Hour, Grace: time.Minute}).Validate())
	// Output:
	// cache: Config.Checker: required
	// cache: Config.Grace: 1m0s: must be at least Fresh, 1h0m0s, or cache.NoGrace
}

// What was known before a restart is known after it, also while the license server
// is down.
func ExampleConfig() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	cfg := cache.Config{
		Checker: license.CheckerFunc(askServer),
		File:    filepath.Join(dir, "verdicts"),
		Logger:  slog.New(slog.DiscardHandler),
	}
	q := license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"}
	before := cache.New(cfg)
	_, _ = before.Check(context.Background(), q)
	fmt.Println("closed:", before.Close())

	cfg.Checker = license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
		return license.Verdict{}, errors.New("connection refused")
	})
	after := cache.New(cfg)
	defer after.Close()
	v, err := after.Check(context.Background(), q)
	fmt.Println(v.Status == license.Allowed, v.Subject, err)
	// Output:
	// asked about tax-report
	// closed: <nil>
	// true cus_1 <nil>
}

// A sink that bills by key finds it by the subject of its records.
func ExampleCache_Key() {
	c := cache.New(cache.Config{Checker: license.CheckerFunc(askServer)})
	defer c.Close()
	_, _ = c.Check(context.Background(), license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"})
	key, err := c.Key(context.Background(), "cus_1")
	fmt.Println(key, key.Reveal(), err)
	_, err = c.Key(context.Background(), "cus_2")
	fmt.Println(errors.Is(err, cache.ErrNoKey))
	// Output:
	// asked about tax-report
	// [key] K-1 <nil>
	// true
}

func ExampleCache_InvalidateAll() {
	c := cache.New(cache.Config{Checker: license.CheckerFunc(askServer)})
	defer c.Close()
	q := license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"}
	_, _ = c.Check(context.Background(), q)
	c.InvalidateAll()
	_, _ = c.Check(context.Background(), q)
	// Output:
	// asked about tax-report
	// asked about tax-report
}

// Customers in grace notice nothing; operators should.
func ExampleCache_Health() {
	c := cache.New(cache.Config{
		Checker: license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
			return license.Verdict{}, errors.New("connection refused")
		}),
		Logger: slog.New(slog.DiscardHandler),
	})
	defer c.Close()
	fmt.Println(c.Health())
	_, _ = c.Check(context.Background(), license.Query{Key: license.NewKey("K-1"), Feature: "tax-report"})
	fmt.Println(c.Health())
	// Output:
	// <nil>
	// cache: the Checker does not answer (questions in a row: 1): customers are let through as long as Config.Grace lasts, and nobody else; put right what it says: connection refused
}
