package license_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter/license"
)

// Staff may use everything; customers must have paid and have a license.
func ExampleAnyOf() {
	says := func(v license.Verdict) license.Checker {
		return license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) { return v, nil })
	}
	staff := says(license.Verdict{Status: license.Denied, Reason: license.NotFound})
	licensed := says(license.Verdict{Status: license.Allowed, Subject: "cus_1"})
	paid := says(license.Verdict{Status: license.Denied, Reason: license.Unpaid})

	checker := license.AnyOf(staff, license.AllOf(licensed, paid))
	v, err := checker.Check(context.Background(), license.Query{Key: license.NewKey("AAAAA-BBBBB"), Feature: "tax-report"})
	fmt.Println(v.Status == license.Denied, v.Reason, err)
	// Output: true unpaid <nil>
}

func ExampleAllOf() {
	licensed := license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
		return license.Verdict{Status: license.Allowed, Subject: "cus_1"}, nil
	})
	paid := license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
		return license.Verdict{Status: license.Allowed, Subject: "cus_2"}, nil
	})
	_, err := license.AllOf(licensed, paid).Check(context.Background(), license.Query{Key: license.NewKey("AAAAA-BBBBB")})
	fmt.Println(err)
	// Output: license: AllOf: the checkers name different Subjects to bill
}
