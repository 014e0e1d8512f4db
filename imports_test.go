package meter_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/inprocess/meter"

// layer says what a package may import beside the standard library.
type layer struct {
	ours   []string // packages of this module, from its root; "": the root
	others []string // modules
}

const (
	lru     = "github.com/hashicorp/golang-lru/v2"
	otel    = "go.opentelemetry.io/otel"
	metrics = "go.opentelemetry.io/otel/metric"
	traces  = "go.opentelemetry.io/otel/trace"
	stripe  = "github.com/stripe/stripe-go/v76"
	xrate   = "golang.org/x/time"
	xsys    = "golang.org/x/sys"
)

// layers is the picture of the architecture: arrows point downward only, the root
// knows no adapter, and adapters don't know the root.
var layers = map[string]layer{
	"metertest": {ours: []string{"", "internal/crash", "sink", "sink/memsink"}},
	"": {
		ours:   []string{"internal/crash", "internal/delivery", "internal/ledger", "internal/prepaid", "license", "sink"},
		others: []string{lru, otel, metrics, traces, xrate},
	},

	"sink/stripesink":            {ours: []string{"internal/stripeapi", "sink"}, others: []string{lru, stripe, xrate}},
	"sink/stripesink/stripetest": {},
	"sink/cryptolenssink":        {ours: []string{"internal/cryptolens", "license", "license/cryptolens", "sink"}},
	"sink/httpsink":              {ours: []string{"internal/evidence", "sink"}},
	"sink/filesink":              {ours: []string{"sink"}, others: []string{xsys}},
	"sink/memsink":               {ours: []string{"sink"}},
	"sink/sinktest":              {ours: []string{"sink"}},

	"cache":                             {ours: []string{"internal/disk", "license"}, others: []string{lru, otel, metrics, traces, xrate}},
	"license/cryptolens":                {ours: []string{"internal/cryptolens", "internal/cryptolens/signed", "license"}},
	"license/cryptolens/cryptolenstest": {},
	"license/stripe":                    {ours: []string{"internal/stripeapi", "license"}, others: []string{lru, stripe}},
	"license/offline":                   {ours: []string{"internal/cryptolens/signed", "internal/disk", "license"}},
	"license/static":                    {ours: []string{"license"}},

	"internal/delivery":   {ours: []string{"internal/ledger", "sink"}, others: []string{otel, metrics, traces, xrate}},
	"internal/ledger":     {ours: []string{"internal/disk", "sink"}},
	"internal/prepaid":    {ours: []string{"internal/disk", "license"}},
	"internal/disk":       {others: []string{xsys}},
	"internal/cryptolens": {ours: []string{"internal/evidence"}},
	"internal/crash":      {},
	"internal/evidence":   {},
	"internal/stripeapi":  {ours: []string{"internal/evidence"}, others: []string{stripe}},

	"internal/cryptolens/signed": {ours: []string{"license"}, others: []string{lru}},

	"sink":    {},
	"license": {},
}

// testOnly are packages that only tests import.
var testOnly = []string{"internal/chaos", "internal/chaos/cmd/prove", "internal/ledger/protocol"}

type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Module     *struct{ Path string }
}

func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports,Module"}, args...)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("go list: %s", exit.Stderr)
	}
	require.NoError(t, err)
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

func TestLayers(t *testing.T) {
	t.Parallel()
	moduleOf := map[string]string{}
	for _, p := range goList(t, "-deps", "./...") {
		if p.Module != nil {
			moduleOf[p.ImportPath] = p.Module.Path
		}
	}
	for _, p := range goList(t, "./...") {
		name := within(p.ImportPath)
		example := strings.HasPrefix(name, "examples/")
		rule, known := layers[name]
		forTests := slices.Contains(testOnly, name)
		if !known && !example && !forTests {
			t.Errorf("%s has no place in the layers: give it one in imports_test.go", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			switch of := moduleOf[imported]; of {
			case "": // standard library
			case module:
				target := within(imported)
				if slices.Contains(testOnly, target) && !forTests {
					t.Errorf("%s imports %s, which is for tests only", name, target)
				} else if example && strings.HasPrefix(target, "internal/") {
					t.Errorf("%s imports %s, which its readers can't", name, target)
				} else if known && !slices.Contains(rule.ours, target) {
					t.Errorf("%q may not import %q", name, target)
				}
			default:
				if known && !slices.Contains(rule.others, of) {
					t.Errorf("%q may not import %s, of module %s", name, imported, of)
				}
			}
		}
	}
}

func within(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// Who imports the root or the kit for tests gets nothing heavy.
func TestRootStaysLight(t *testing.T) {
	t.Parallel()
	heavy := []string{stripe, "go.opentelemetry.io/otel/sdk*", "github.com/stretchr/*", "google.golang.org/*"}
	for _, root := range []string{".", "./metertest"} {
		for _, p := range goList(t, "-deps", root) {
			if p.Module == nil {
				continue
			}
			for _, pattern := range heavy {
				if ok, _ := path.Match(pattern, p.Module.Path); ok || strings.HasPrefix(p.Module.Path, strings.TrimSuffix(pattern, "*")) {
					t.Errorf("%s brings %s with it", root, p.ImportPath)
				}
			}
		}
	}
}
