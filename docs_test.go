package meter_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Exported types must say how they may be used concurrently, and functions that
// return an error which errors.
func TestDocComments(t *testing.T) {
	t.Parallel()
	files := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipsDocs(path, d) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		for _, fault := range docFaults(t, path, nil) {
			t.Error(fault)
		}
		return nil
	}))
	require.Greater(t, files, 20)
}

func skipsDocs(path string, d fs.DirEntry) bool {
	switch d.Name() {
	case "internal", "testdata", "examples":
		return true
	}
	if path == "." {
		return false
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil || strings.HasPrefix(d.Name(), ".")
}

func docFaults(t *testing.T, path string, src any) (faults []string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, src, parser.ParseComments|parser.SkipObjectResolution)
	require.NoError(t, err)
	if file.Name.Name == "main" {
		return nil
	}
	fault := func(at token.Pos, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%v: ", set.Position(at))+fmt.Sprintf(format, args...))
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if s, ok := spec.(*ast.TypeSpec); ok && s.Name.IsExported() && !isFunc(s.Type) {
					if !strings.Contains(text(d.Doc)+text(s.Doc), "Concurrency:") {
						fault(s.Pos(), "type %s lacks a %q line", s.Name.Name, "Concurrency:")
					}
				}
			}
		case *ast.FuncDecl:
			if !d.Name.IsExported() || !exportedReceiver(d) || isStandard(d) {
				continue
			}
			switch doc := text(d.Doc); {
			case doc == "":
				fault(d.Pos(), "%s has no comment", d.Name.Name)
			case returnsError(d) && !strings.Contains(doc, "Errors:") && !strings.Contains(doc, "Errors "):
				fault(d.Pos(), "%s lacks an %q line", d.Name.Name, "Errors:")
			}
		}
	}
	return faults
}

func text(doc *ast.CommentGroup) string { return doc.Text() } // nil is fine

// isFunc: a function type is as safe as the function.
func isFunc(e ast.Expr) bool {
	_, ok := e.(*ast.FuncType)
	return ok
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// isStandard: the standard library has defined what these return.
func isStandard(d *ast.FuncDecl) bool {
	switch d.Name.Name {
	case "Unwrap", "MarshalText", "MarshalJSON":
		return d.Recv != nil
	}
	return false
}

func returnsError(d *ast.FuncDecl) bool {
	if d.Type.Results == nil {
		return false
	}
	for _, r := range d.Type.Results.List {
		if id, ok := r.Type.(*ast.Ident); ok && id.Name == "error" {
			return true
		}
	}
	return false
}

// The rules themselves.
func TestDocFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		src  string
		want string // "": no fault
	}{
		"type without":       {"// T is.\ntype T struct{}", "type T lacks"},
		"type with":          {"// T is.\n//\n// Concurrency: safe.\ntype T struct{}", ""},
		"type in a group":    {"type (\n// T is.\nT int\n)", "type T lacks"},
		"unexported type":    {"type t struct{}", ""},
		"function type":      {"// F is.\ntype F func()", ""},
		"error without":      {"// F does.\nfunc F() error { return nil }", "F lacks"},
		"error with":         {"// F does.\n//\n// Errors: none.\nfunc F() error { return nil }", ""},
		"second result":      {"// F does.\nfunc F() (int, error) { return 0, nil }", "F lacks"},
		"no error":           {"// F does.\nfunc F() {}", ""},
		"no comment":         {"func F() {}", "F has no comment"},
		"method":             {"// M does.\nfunc (t *T) M() error { return nil }", "M lacks"},
		"method of generic":  {"// M does.\nfunc (t *T[A, B]) M() error { return nil }", "M lacks"},
		"unexported's":       {"func (t *t) M() error { return nil }", ""},
		"Unwrap":             {"func (t *T) Unwrap() error { return nil }", ""},
		"function as Unwrap": {"// Unwrap does.\nfunc Unwrap() error { return nil }", "Unwrap lacks"},
	} {
		faults := docFaults(t, "x.go", "package x\n"+test.src+"\n")
		if test.want == "" {
			require.Empty(t, faults, name)
		} else {
			require.Len(t, faults, 1, name)
			require.Contains(t, faults[0], test.want, name)
		}
	}
}
