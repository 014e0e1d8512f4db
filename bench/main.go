// Bench compares meter with what a Go program would use instead, and with what the
// machine itself takes, in one run:
//
//	go run . [-rounds 7] [-slice 20ms] [-only regexp] [-svg file]
//
// Contenders of one table take turns, round after round, with the same keys, the same
// distribution and the same number of goroutines, so that a busy machine hardly changes
// how they compare. What is printed of each is its ratio to meter: the median of the
// rounds' ratios.
//
// It is a module of its own, so that nobody who imports meter gets what it is compared
// with.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"
	"runtime"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 4 && os.Args[1] == childFlag {
		beKilled(os.Args[2], os.Args[3])
		return
	}
	rounds := flag.Int("rounds", 7, "how many turns each contender gets")
	slice := flag.Duration("slice", 20*time.Millisecond, "how long a turn takes, where it is not a certain amount of work")
	only := flag.String("only", "", "run the tables whose names this regular expression matches")
	most := flag.Int("most", 1_000_000, "leave out columns of more series than this")
	picture := flag.String("svg", "", "draw the picture of README.md in this file")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		log.Fatalf("-only: %v", err)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	fmt.Fprintf(os.Stdout, "%s/%s, %s, %d processors; median of %d rounds\n", runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.GOMAXPROCS(0), *rounds)
	r := &runner{dir: dir, rounds: *rounds, slice: *slice, most: *most}
	var seen []result
	for _, t := range tables() {
		if wanted.MatchString(t.name) {
			res := r.run(t)
			res.print(os.Stdout)
			seen = append(seen, res)
		}
	}
	printTargets(os.Stdout, seen)
	if *picture != "" {
		if err := os.WriteFile(*picture, draw(seen), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
