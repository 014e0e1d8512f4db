// Command prove runs what proves the promises of the README, each in full length, and
// prints what came of it:
//
//	go run ./internal/chaos/cmd/prove          # some hours, as root where power is to be cut
//	go run ./internal/chaos/cmd/prove -short   # minutes
//	go run ./internal/chaos/cmd/prove -only power
//
// Run it from the root of the repository.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// proof is a test in full length.
type proof struct {
	name, what string
	in         string   // package
	run        string   // its tests
	env        []string // for the full length
}

var proofs = []proof{
	{"kill", "1,000 kills at random moments", "./internal/chaos", "TestKill$", []string{"METER_KILL_ROUNDS=1000"}},
	{"outages", "250 kills, and a sink that fails in every way", "./internal/chaos", "TestKillWithOutages$", []string{"METER_KILL_ROUNDS=1000"}},
	{"doubt", "250 kills, and a sink that bills whatever it is sent", "./internal/chaos", "TestKillWithoutDedupe$", []string{"METER_KILL_ROUNDS=1000"}},
	{"syscalls", "a kill before every system call that changes a file", "./internal/chaos", "TestKillAtSystemCalls$", []string{"METER_KILL_SYSCALLS=all"}},
	{"server", "250 kills, and a server that outlives them and fails in every way", "./internal/chaos", "TestKillBeforeAServer$", []string{"METER_KILL_ROUNDS=1000"}},
	{"suspend", "50 processes that are suspended, and killed later", "./internal/chaos", "TestSuspend$", []string{"METER_KILL_ROUNDS=1000"}},
	{"failures", "a failure of every system call that changes a file", "./internal/chaos", "TestFailingSystemCalls$", []string{"METER_KILL_SYSCALLS=all"}},
	{"power", "200 power cuts on ext4 and XFS each, by each policy", "./internal/chaos", "TestPowerCut$", []string{"METER_POWER_ROUNDS=200"}},
	{"steps", "a death between any two steps that change files", "./internal/ledger", "TestDeathBetweenAnyTwoSteps$", nil},
	{"disk", "a failure of every step, damage to every bit, full disks", "./internal/ledger", "TestOneStepFails$|TestEveryBitOfASegment$|TestDamage$|TestFullDisk$|TestTruncationUnderTheMap$|TestDirectoryDeletedUnderTheProcess$|TestTornJournal$", []string{"METER_DAMAGE=all"}},
	{"protocol", "models of counting and attempting, checked in full", "./internal/ledger/protocol", ".", nil},
	{"model", "random operations against a model of them", "./internal/ledger", "TestRandomOperations$", nil},
	{"network", "500 failing connections for each sink", "./internal/chaos/network", "TestBillsOnceOverABadNetwork$", []string{"METER_NETWORK_ROUNDS=500"}},
	{"outage", "72 hours without a sink", "./internal/delivery", "TestOutageOf72Hours$", nil},
	{"copies", "directories that were copied", "./internal/ledger", "TestCopyStartsInDoubt$", nil},
	{"soak", "an hour under load", "./internal/chaos", "TestSoak$", []string{"METER_SOAK=1h"}},
	{"mistakes", "mistakes that are built in are found", "./internal/chaos", "TestVariantsAreFound$", []string{"METER_VARIANTS=1"}},
	{"peers", "20 kills of processes that count by other libraries", "./internal/chaos/peers", "TestPeersLoseCounts$", []string{"METER_PEER_ROUNDS=20"}},
}

func main() {
	short := flag.Bool("short", false, "as short as in CI")
	only := flag.String("only", "", "names, separated by commas")
	flag.Parse()
	failed := false
	for _, p := range proofs {
		if *only == "" || strings.Contains(","+*only+",", ","+p.name+",") {
			failed = !p.prove(*short) || failed
		}
	}
	if failed {
		os.Exit(1)
	}
}

// telling are the lines of a test that say what was seen.
var telling = regexp.MustCompile(`^\s+[a-z_]+_test\.go:\d+: (.*(?:lives|lost|rounds|billed in|SKIPPED|later).*)`)

func (p proof) prove(short bool) (ok bool) {
	args := []string{"test", "-count=1", "-v", "-timeout", "4h", "-run", p.run, p.in}
	env := p.env
	if short {
		env = nil
		if p.name == "mistakes" {
			env = p.env // there is no shorter way
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), env...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	result := "holds"
	switch {
	case err != nil:
		result = "FAILS"
	case bytes.Contains(out, []byte("--- SKIP")) && !bytes.Contains(out, []byte("--- PASS")):
		result = "skipped"
	case bytes.Contains(out, []byte("no tests to run")):
		result, err = "FAILS: no such test", fmt.Errorf("no test")
	}
	fmt.Fprintf(os.Stdout, "%-9s %-58s %s, %v\n", p.name, p.what, result, time.Since(began).Round(time.Second))
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if m := telling.FindStringSubmatch(lines.Text()); m != nil {
			fmt.Fprintf(os.Stdout, "          %.150s\n", m[1])
		}
	}
	if err != nil {
		os.Stdout.Write(out)
	}
	return err == nil
}
