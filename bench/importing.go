package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// imports has the programs, by package.
const imports = "github.com/inprocess/meter/bench/imports/"

// importTables build programs that differ in what they import.
func importTables() []table {
	if err := exec.Command("go", "list", imports+"bare").Run(); err != nil {
		log.Printf("what an import adds is left out: there is no Go, or the repository is not here (go list: %v)", err)
		return nil
	}
	const bare = "limit: net/http alone"
	h := heat{columns: []string{"bytes of the binary", "ns to build"}}
	for _, c := range []struct {
		name, dir string
		class     class
	}{
		{"meter", "meter", ours},
		{"meter and its Stripe sink", "stripe", ours},
		{bare, "bare", limit},
		{"peer: stripe-go", "stripego", peer},
		{"peer: prometheus", "prometheus", peer},
		{"peer: otel SDK", "otel", peer},
	} {
		h.contenders = append(h.contenders, contender{c.name, c.class, func(s *stage) turn {
			return func() []float64 { return build(s.dir, c.dir) }
		}})
	}
	return []table{{
		name: "import", what: "what an import adds to a program with net/http, compiled with nothing in the build cache but that", base: bare,
		rounds: 2, heats: []heat{h},
	}}
}

func build(dir, program string) []float64 {
	cache, binary := filepath.Join(dir, "cache"), filepath.Join(dir, "program")
	must(os.CopyFS(cache, os.DirFS(standardBuilt(filepath.Dir(dir)))))
	began := time.Now()
	goBuild(cache, binary, program)
	took := float64(time.Since(began))
	size := float64(got(os.Stat(binary)).Size())
	must(os.RemoveAll(cache))
	return []float64{size, took}
}

// standardBuilt is a build cache with what a web server takes of the standard library.
func standardBuilt(dir string) (cache string) {
	cache = filepath.Join(dir, "standard")
	if _, err := os.Stat(cache); err != nil {
		goBuild(cache, filepath.Join(dir, "bare"), "bare")
	}
	return cache
}

func goBuild(cache, binary, program string) {
	c := exec.Command("go", "build", "-o", binary, imports+program)
	c.Env = append(os.Environ(), "GOCACHE="+cache)
	if out, err := c.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
}
