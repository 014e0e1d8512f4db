package meter_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// How long == takes on a secret tells how much of a guess was right: secrets, and what
// proves that somebody has one, are compared by crypto/subtle or crypto/hmac, or by a
// keyed hash.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	files := 0
	eachSource(t, func(path string) {
		files++
		for _, fault := range compareFaults(t, path, nil) {
			t.Error(fault)
		}
	})
	require.Greater(t, files, 100)
}

// Options that would turn TLS off, and clients that others may have changed, are not
// there at all.
func TestNoWayAroundTLS(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`^(InsecureSkipVerify|VerifyPeerCertificate|VerifyConnection|DefaultClient)$`)
	eachSource(t, func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && forbidden.MatchString(id.Name) {
				t.Errorf("%s mentions %s", path, id.Name)
			}
			if call, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "http" {
					switch call.Sel.Name {
					case "Get", "Post", "PostForm", "Head": // by the default client
						t.Errorf("%s calls http.%s", path, call.Sel.Name)
					}
				}
			}
			return true
		})
	})
}

// eachSource visits the sources of the library, without its tests and examples.
func eachSource(t *testing.T, visit func(path string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "examples" || d.Name() == "bench") {
				return fs.SkipDir
			}
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			visit(path)
		}
		return nil
	}))
}

var (
	// secretName are fields and variables that hold a secret, or what proves one.
	secretName = regexp.MustCompile(`^(?i:secret|token|apikey|keysecret|password|mac|hmac|sig|signature|want(mac|sig)|got(mac|sig))$`)
	comparing  = regexp.MustCompile(`^(bytes\.Equal|bytes\.Compare|bytes\.HasPrefix|strings\.Compare|strings\.HasPrefix|slices\.Equal|cmp\.Compare|reflect\.DeepEqual)$`)
)

// compareFaults are the comparisons in a file that stop at the first difference.
func compareFaults(t *testing.T, path string, src any) (faults []string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, src, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if n.Op != token.EQL && n.Op != token.NEQ || fixed(n.X) || fixed(n.Y) {
				return true
			}
			if secret(n.X) || secret(n.Y) {
				faults = append(faults, set.Position(n.Pos()).String()+": compares a secret with "+n.Op.String())
			}
		case *ast.SwitchStmt:
			if n.Tag != nil && secret(n.Tag) {
				faults = append(faults, set.Position(n.Pos()).String()+": switches over a secret")
			}
		case *ast.CallExpr:
			if name := qualified(n.Fun); comparing.MatchString(name) {
				for i, arg := range n.Args {
					if secret(arg) && !(strings.HasSuffix(name, "HasPrefix") && i == 0 && len(n.Args) == 2 && fixed(n.Args[1])) {
						faults = append(faults, set.Position(n.Pos()).String()+": compares a secret by "+name)
					}
				}
			}
		}
		return true
	})
	return faults
}

// fixed are values that are no secret: of a program's text.
func fixed(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false"
	}
	return false
}

// secret are a key that is revealed, and what bears a secret's name, sliced or converted
// or not.
func secret(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return secret(e.X)
	case *ast.SliceExpr:
		return secret(e.X)
	case *ast.IndexExpr:
		return secret(e.X)
	case *ast.Ident:
		return secretName.MatchString(e.Name)
	case *ast.SelectorExpr:
		return secretName.MatchString(e.Sel.Name)
	case *ast.CallExpr:
		if sel, ok := e.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" {
			return true
		}
		if _, conversion := e.Fun.(*ast.ArrayType); conversion || qualified(e.Fun) == "string" {
			return len(e.Args) == 1 && secret(e.Args[0])
		}
	}
	return false
}

func qualified(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if pkg, ok := e.X.(*ast.Ident); ok {
			return pkg.Name + "." + e.Sel.Name
		}
	}
	return ""
}

func TestCompareFaults(t *testing.T) {
	t.Parallel()
	for src, faulty := range map[string]bool{
		`k.Reveal() == guess`:                               true,
		`guess != c.Key.Reveal()`:                           true,
		`c.Token == guess`:                                  true,
		`bytes.Equal(mac, want)`:                            true,
		`bytes.Equal(mac[:], want)`:                         true,
		`bytes.Equal([]byte(secret), want)`:                 true,
		`strings.HasPrefix(guess, token)`:                   true,
		`string(sig) == guess`:                              true,
		`c.Token == ""`:                                     false,
		`strings.HasPrefix(token, "sk_")`:                   false,
		`hmac.Equal(mac, want)`:                             false,
		`subtle.ConstantTimeCompare(token, guess) == 1`:     false,
		`len(secret) == n`:                                  false,
		`a.ID == b.ID`:                                      false,
		`func() bool { switch secret { }; return true }()`:  true,
		`func() bool { switch a.ID { }; return true }()`:    false,
		`func() bool { return signature == nil || true }()`: false,
	} {
		faults := compareFaults(t, "x.go", "package x\nvar _ = "+src+"\n")
		require.Equal(t, faulty, len(faults) > 0, "%s: %v", src, faults)
	}
}
