package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/inprocess/meter"
)

// childFlag as the first argument makes this program the one that is killed.
const childFlag = "-killed-child"

// startTables kill a process that counted for many customers, and open what it left.
func startTables() []table {
	recovery := table{name: "start after a kill", rounds: 3, what: "Open of what a killed process left; columns are customers", unit: "ns"}
	clean := table{name: "start", rounds: 3, what: "Open after Shutdown, all usage still owed; columns are customers", unit: "ns"}
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		h := heat{columns: []string{count(n)}, series: n, contenders: []contender{
			{"meter", ours, func(s *stage) turn {
				return func() []float64 {
					dir := filepath.Join(s.dir, "killed")
					kill(dir, n)
					var m *meter.Meter
					took := timed(func() { m = got(meter.Open(settled(dir))) })
					must(m.Shutdown(context.Background()))
					must(os.RemoveAll(dir))
					return []float64{took}
				}
			}},
		}}
		recovery.heats = append(recovery.heats, h)
		clean.heats = append(clean.heats, heat{columns: []string{count(n)}, series: n, contenders: []contender{
			{"meter", ours, func(s *stage) turn {
				dir := filepath.Join(s.dir, "stopped")
				must(countIn(dir, n).Shutdown(context.Background()))
				return func() []float64 {
					var m *meter.Meter
					took := timed(func() { m = got(meter.Open(settled(dir))) })
					must(m.Shutdown(context.Background()))
					return []float64{took}
				}
			}},
		}})
	}
	return []table{recovery, clean}
}

func settled(dir string) meter.Config {
	return meter.Config{Dir: dir, Window: meter.OnFlush, MaxDisk: 16 << 30}
}

func countIn(dir string, n int) *meter.Meter {
	m := got(meter.Open(settled(dir)))
	f := m.Feature(feature)
	for i := range n {
		must(f.Add(context.Background(), customer(i), 1))
	}
	return m
}

// kill has a process count for n customers, and kills it.
func kill(dir string, n int) {
	child := exec.Command(got(os.Executable()), childFlag, dir, strconv.Itoa(n))
	child.Stderr = os.Stderr
	out := got(child.StdoutPipe())
	must(child.Start())
	_, err := bufio.NewReader(out).ReadString('\n')
	must(err)
	must(child.Process.Kill())
	_ = child.Wait() // killed
}

// beKilled is what the child does.
func beKilled(dir, n string) {
	countIn(dir, got(strconv.Atoi(n)))
	fmt.Fprintln(os.Stdout, "counted")
	select {}
}
