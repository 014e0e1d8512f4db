package meter_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a document says is shown by a test must be shown by one.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	tests := allTests(t)
	require.Greater(t, len(tests), 500)
	mentioned := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")
	for document, least := range map[string]int{"README.md": 20, "SECURITY.md": 40, "bench/README.md": 0, "CONTRIBUTING.md": 0} {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		names := mentioned.FindAllStringSubmatch(string(text), -1)
		require.GreaterOrEqual(t, len(names), least, document)
		for _, name := range names {
			require.True(t, tests[name[1]], "%s names %s, which does not exist", document, name[1])
		}
	}
}

// Every threat has a test, but the one to what is not there.
func TestEveryThreatHasATest(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "| threat | defense | test |\n|---|---|---|\n")
	require.True(t, found)
	rows := strings.Split(strings.TrimSpace(table), "\n")
	require.GreaterOrEqual(t, len(rows), 17)
	for _, row := range rows {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		require.Len(t, cells, 3, row)
		if cells[1] == "There is none" {
			require.Equal(t, "none", cells[2], row)
		} else {
			require.Regexp(t, "^`(Test|Fuzz)", cells[2], row)
		}
	}
}

// allTests are the tests and fuzz targets of every module here.
func allTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(\w+ \*testing\.[TF]\)`)
	tests := make(map[string]bool)
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range declared.FindAllSubmatch(source, -1) {
			tests[string(found[1])] = true
		}
		return err
	}))
	return tests
}
