package protocol

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestModelsNameTheCode finds every function that a model names in the code, so that
// a model of what is there no more is noticed.
func TestModelsNameTheCode(t *testing.T) {
	t.Parallel()
	code := functions(t, "..", filepath.Join("..", "..", "delivery"), filepath.Join("..", "..", "disk"))
	for model, least := range map[string]int{"count": 40, "attempt": 25} {
		source, err := os.ReadFile(model + ".pml")
		require.NoError(t, err)
		names := named(string(source))
		require.Greater(t, len(names), least, model)
		for _, name := range names {
			require.True(t, code[name], "%s.pml names %s(), which is no function", model, name)
		}
	}
}

var (
	comment   = regexp.MustCompile(`(?s)/\*.*?\*/`)
	mentioned = regexp.MustCompile(`((?:\w+\.)?\w+)\(\)`)
	modeled   = regexp.MustCompile(`(?m)^(?:inline|proctype) (\w+)`)
)

// named are the functions that a model names: those before () in its comments, and
// its inlines and processes that are not in capitals.
func named(source string) (names []string) {
	for _, text := range comment.FindAllString(source, -1) {
		for _, found := range mentioned.FindAllStringSubmatch(text, -1) {
			names = append(names, found[1])
		}
	}
	for _, found := range modeled.FindAllStringSubmatch(source, -1) {
		if found[1] != strings.ToUpper(found[1]) {
			names = append(names, found[1])
		}
	}
	return names
}

// functions are those of packages, methods with and without their type.
func functions(t *testing.T, dirs ...string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, decl := range file.Decls {
				d, ok := decl.(*ast.FuncDecl)
				if !ok {
					continue
				}
				names[d.Name.Name] = true
				if d.Recv != nil {
					names[receiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
				}
			}
		}
	}
	require.Greater(t, len(names), 100)
	return names
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func TestNamed(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"f", "T.m", "g", "both", "own"},
		named("/* f() and T.m(),\n * then g() */ x = h(); /* both() */\ninline own(a) { }\ninline OURS() { }\n"))
}
