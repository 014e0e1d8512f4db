package meter_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// secretFields are the names of fields that hold secrets, where their type is plain.
var secretFields = map[string]bool{"Key": true, "KeySecret": true, "Secret": true, "Secrets": true, "Token": true}

// encoding/json and the JSON handler of log/slog print a struct field by field where it
// stands inside another, whatever its LogValue says, and fmt asks for Format.
func TestConfigsHideTheirSecrets(t *testing.T) {
	t.Parallel()
	found := 0
	require.NoError(t, filepath.WalkDir(".", func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "internal" || name == "examples" || name == "bench") {
			return fs.SkipDir
		}
		if strings.HasSuffix(dir, "test") { // stands for a server that knows the secret
			return nil
		}
		configs, methods := declared(t, dir)
		for name, secrets := range configs {
			for _, field := range secrets {
				found++
				tag := ""
				if field.Tag != nil {
					tag = strings.Trim(field.Tag.Value, "`")
				}
				require.Equal(t, "-", reflect.StructTag(tag).Get("json"), "%s: %s.%s", dir, name, field.Names[0])
			}
			if len(secrets) > 0 {
				require.True(t, methods[name+".Format"] && methods[name+".LogValue"], "%s: %s prints its secret", dir, name)
			}
		}
		return nil
	}))
	require.GreaterOrEqual(t, found, 18, "it has looked")
}

// declared returns the exported Configs of a package with their secret fields, and the
// names of all methods.
func declared(t *testing.T, dir string) (configs map[string][]*ast.Field, methods map[string]bool) {
	configs, methods = map[string][]*ast.Field{}, map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil {
					if of, ok := n.Recv.List[0].Type.(*ast.Ident); ok {
						methods[of.Name+"."+n.Name.Name] = true
					}
				}
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok && n.Name.IsExported() && strings.HasSuffix(n.Name.Name, "Config") {
					configs[n.Name.Name] = secretsOf(s)
				}
			}
			return true
		})
	}
	return configs, methods
}

func secretsOf(s *ast.StructType) (secrets []*ast.Field) {
	for _, field := range s.Fields.List {
		if len(field.Names) == 1 && secretFields[field.Names[0].Name] {
			secrets = append(secrets, field)
		}
	}
	return secrets
}
