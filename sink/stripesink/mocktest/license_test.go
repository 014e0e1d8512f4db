package mocktest

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/stretchr/testify/require"
)

// stripe-mock's canned entitlement is of a feature of its own. What counts here is that
// it takes the requests.
func TestStripeMockTakesLicenseChecks(t *testing.T) {
	t.Parallel()
	mock := startMock(t)
	for name, test := range map[string]struct {
		q        license.Query
		statuses []int
	}{
		"key":      {license.Query{Key: license.NewKey("key-1"), Feature: "tax-report"}, []int{200, 200, 200}},
		"customer": {license.Query{Subject: "cus_1", Feature: "tax-report"}, []int{200, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tp := &tamper{mock, func(url.Values) {}, nil}
			checker := stripelicense.NewChecker(stripelicense.Config{
				Key: "sk_test_123", KeyMetadata: "skm_key_id", Features: map[string]string{"tax-report": "tax_reports"},
				BaseURL: "http://localhost", HTTPClient: &http.Client{Transport: teller{tp}},
			})
			require.NoError(t, checker.Validate())
			v, err := checker.Check(t.Context(), test.q)
			require.NoError(t, err)
			require.Equal(t, license.Verdict{Status: license.Denied, Reason: license.NotEntitled, Subject: "cus_1"}, v)
			require.Equal(t, test.statuses, tp.statuses)
		})
	}
}
