package cache_test

import (
	"context"
	"errors"
	"fmt"
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
