// Package runall_test builds the examples, runs each as a newcomer would, and looks
// for the lines that matter in what it prints.
package runall_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var examples = map[string][]string{
	"quickstart": {
		"1. The server's process killed itself (",
		"4000 requests more, 4000 answers, then an orderly stop.",
		"feature  route  accepted  pending  delivered  in doubt",
		"They balance, and agree with the file: ",
		" lines, every ID once.",
	},
	"httpserver": {
		`POST /reports/2025, key "K-1" 200, counted 1`,
		`POST /reports/1066, key "K-1" 404, counted 0`,
		`POST /reports/1999, key "K-1"   0, counted 0`,
		`POST /reports/2025, key ""    401, counted 0`,
		`"reason":"no-key"`,
		`"reason":"expired"`,
		`"subject":"cus_ada","dimensions":{},"kind":"sum","quantity":2`,
	},
	"decorator": {
		`refused: no-key: feature "tax-report"`,
		"  tax-report  1\n  import      1\n  ocr-page    3\n  tokens     11\n",
	},
	"customsink": {
		"call 1: 3 of tax-report for cus_ada, attempt 1",
		"call 2: 3 of tax-report for cus_ada, attempt 2",
		"The invoice of cus_ada, after 2 calls: 3\n",
	},
	"httpsink": {
		"  request 2: stored, and the reply is lost\n",
		"cus_ada: counted 6, the server bills 6\ncus_bob: counted 8, the server bills 8\n",
		"  tax-report  licensing        14        0         14         0 ",
	},
	"licensed": {
		"  ada      tax-report  200               Cryptolens was asked\n  ada      tax-report  200               from memory\n",
		"  eve      tax-report  403 expired       Cryptolens was asked\n",
		`RateLimit: "export";r=0;t=`,
		"  bob      tax-report  403 blocked       Cryptolens was asked\n",
		"  new      tax-report  503 unavailable   Cryptolens could not be asked\n",
		"3 records not delivered, safe on disk",
		"  new      tax-report  200               Cryptolens was asked\n",
		"  ada      is billed 6\n  bob      is billed 1\n  eve      is billed 0\n  new      is billed 1\n",
	},
	"llmproxy": {
		"ada has bought 1500 tokens a month. A request reserves 500.\n",
		`hello          200 got 300 tokens; told "tokens-quota";r=1000; then 300 used, 0 held, 1200 left`,
		`leaves midway  200 got 100 tokens; told "tokens-quota";r=200; then 900 used, 0 held, 600 left`,
		`"reason":"over-quota","feature":"tokens","limit":1500,"used":1200,"reset":"…"}`,
		`{"subject":"ada","usage":[{"feature":"tokens","unit":"token","kind":"sum","quantity":1200,"limit":1500,"left":300,`,
		"Billed to ada: 1200 tokens\n",
	},
	"queue": {
		" of 1000 messages, and killed itself\n",
		"Acknowledged now: 1000.\n",
		"ada   ordered 835, billed 835\n   bob   ordered 832, billed 832\n   eve   ordered 833, billed 833\n",
		"  orders  bills      2500",
	},
	"stripe": {
		"Billing through a stand-in for Stripe within this process",
		"The event was sent 2 times, for the first reply got lost. The stand-in billed cus_ada: 5\n",
	},
	"stripeprovision": {
		"  made product meter-example\n",
		"  made meter meter-example-reports (mtr_",
		"  made price meter-example-import (price_",
		"  everything of meter-example is there: nothing was made\n",
		" is subscribed: sub_",
		"Refused: stripesink: Stripe bills a customer in one currency: ",
	},
}

func build(t *testing.T) (programs string) {
	t.Helper()
	programs = t.TempDir()
	out, err := exec.Command("go", "build", "-o", programs+string(filepath.Separator), "../...").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return programs
}

func TestExamples(t *testing.T) {
	t.Parallel()
	programs := build(t)
	built, err := os.ReadDir(programs)
	require.NoError(t, err)
	require.Len(t, built, len(examples), "every example has lines to look for")

	for _, program := range built {
		name := strings.TrimSuffix(program.Name(), ".exe")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, examples, name)
			out := run(t, filepath.Join(programs, program.Name()))
			for _, line := range examples[name] {
				require.Contains(t, out, line)
			}
		})
	}
}

// run returns what a program printed. It has a directory for temporary files of its
// own, which must be empty afterwards, and finds neither Stripe nor its mock.
func run(t *testing.T, program string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	temporary := t.TempDir()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(without("STRIPE_KEY="), "STRIPE_MOCK=http://localhost:0",
		"TMPDIR="+temporary, "TMP="+temporary, "TEMP="+temporary)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	require.NoError(t, err, "%s", &out)
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, left, "an example cleans up")
	return out.String()
}

func without(setting string) []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, setting) })
}
