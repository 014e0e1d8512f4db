package protocol

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run is one search through all states of a model.
type run struct {
	model   string
	mistake string // must be found; "": there is none
	defines string
	whole   bool // every statement must be reached
}

var runs = []run{
	{model: "count", defines: "SYNC_ALWAYS", whole: true},
	{model: "count", defines: "SEGMENTS=2", whole: true},
	{model: "count", defines: "SYNC_ALWAYS STRIPES SEGMENTS=2", whole: true},
	{model: "count", defines: "SYNC_ALWAYS DEATHS=2 WRITERS=1 ADDS=2", whole: true},
	{model: "count", defines: "DEATHS=2 WRITERS=1 ADDS=2 SEGMENTS=2", whole: true},

	{model: "count", mistake: "ADD_INSTEAD_OF_CAS"},
	{model: "count", mistake: "SEAL_WITHOUT_REGISTRATION"},
	{model: "count", mistake: "SEAL_WITHOUT_BARRIER"},
	{model: "count", mistake: "REGISTER_WITHOUT_LOCK"},
	{model: "count", mistake: "DIVIDE_A_RETIRED_SEGMENT", defines: "STRIPES"},
	{model: "count", mistake: "PLACE_READ_ONCE", defines: "SYNC_ALWAYS"},
	{model: "count", mistake: "LEAVE_FORGETS_ANY"},
	{model: "count", mistake: "COUNT_BEFORE_DIRSYNC", defines: "SYNC_ALWAYS"},
	{model: "count", mistake: "HEAD_BEFORE_BLOCKS", defines: "SYNC_ALWAYS"},
	{model: "count", mistake: "JOURNAL_CLOSED_TOO_SOON", defines: "SYNC_ALWAYS"},
	{model: "count", mistake: "JOURNAL_REMOVED_TOO_SOON", defines: "SYNC_ALWAYS DEATHS=2 SEGMENTS=2"},
	{model: "count", mistake: "REPLAY_ADDS", defines: "SYNC_ALWAYS"},

	{model: "attempt", whole: true},
	{model: "attempt", defines: "SENDS=3 DECISIONS=0"},
	{model: "attempt", defines: "SENDS=1 DEATHS=2"},

	{model: "attempt", mistake: "ATTEMPT_MARKED_AFTER_SEND", defines: "DECISIONS=0"},
	{model: "attempt", mistake: "OPEN_FORGETS_ATTEMPTS", defines: "DECISIONS=0"},
	{model: "attempt", mistake: "DOUBT_NOT_STICKY", defines: "SENDS=3"},
	{model: "attempt", mistake: "RESEND_PAST_THE_WINDOW"},
	{model: "attempt", mistake: "NEW_ID_EACH_ATTEMPT"},
	{model: "attempt", mistake: "HELD_BEFORE_WRITTEN", defines: "SENDS=1 DECISIONS=0"},
	{model: "attempt", mistake: "DECISION_ON_PENDING_FORGOTTEN", defines: "SENDS=1"},
	{model: "attempt", mistake: "MERGE_WITHOUT_DIRSYNC", defines: "SENDS=1 DECISIONS=0"},
	{model: "attempt", mistake: "MERGE_MARKS_FIRST", defines: "SENDS=1 DECISIONS=0"},
	{model: "attempt", mistake: "MERGE_SENT_BEFORE_MARKS", defines: "SENDS=1 DECISIONS=0"},
	{model: "attempt", mistake: "MERGE_TAKES_DOUBT", defines: "DECISIONS=0"},
	{model: "attempt", mistake: "MARKED_OUTSIDE_THE_LANE", defines: "SENDS=1 DECISIONS=0"},
	{model: "attempt", mistake: "SETTLED_OUTSIDE_THE_LANE", defines: "SENDS=1"},
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: going through all states of the models takes half a minute; run without -short")
	}
	for _, program := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: going through all states of the models needs spin and gcc: %v", err)
		}
	}
	for _, r := range runs {
		name := r.model + "/" + strings.ReplaceAll(strings.TrimSpace(r.mistake+" "+r.defines), " ", ",")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.check(t)
		})
	}
}

func (r run) check(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile(r.model + ".pml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.pml"), source, 0o600))
	do := func(program string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	generate := []string{"-a"}
	for _, define := range strings.Fields(r.mistake + " " + r.defines) {
		generate = append(generate, "-D"+define)
	}
	optimize, table := "-O1", "-w24"
	if r.mistake != "" { // it shows soon: what counts is the compiler's time
		optimize, table = "-O0", "-w20"
	}
	do("spin", append(generate, "model.pml")...)
	do("gcc", optimize, "-w", "-DSAFETY", "-DNOFAIR", "-DMEMLIM=3000", "-o", "pan", "pan.c")
	out := do(filepath.Join(dir, "pan"), "-m100000", table)
	_, err = os.Stat(filepath.Join(dir, "model.pml.trail"))

	if r.mistake != "" {
		require.Contains(t, out, "errors: 1\n", out)
		require.Contains(t, out, "assertion violated", out)
		require.NotContains(t, out, "invalid array index", out)
		require.NoError(t, err, "no counterexample was written")
		return
	}
	require.Contains(t, out, "errors: 0\n", out)
	require.NotContains(t, out, "Search not completed", out)
	require.NotContains(t, out, "max search depth too small", out)
	require.Error(t, err, "a counterexample was written")
	require.Greater(t, states(t, out), 10_000, out)
	if r.whole {
		require.Empty(t, unreached(out), out)
	}
}

// states is how many states pan says it has stored.
func states(t *testing.T, out string) int {
	found := regexp.MustCompile(`(?m)^\s*(\d+) states, stored`).FindStringSubmatch(out)
	require.NotNil(t, found, out)
	n, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	return n
}

// unreached are the statements that no run of the model comes to, beside the ends of
// processes that never end.
func unreached(out string) (statements []string) {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "\tmodel.pml:") && !strings.Contains(line, `"-end-"`) {
			statements = append(statements, strings.TrimSpace(line))
		}
	}
	return statements
}

// Every mistake that a model knows must be looked for, and nothing else.
func TestEveryMistakeIsMade(t *testing.T) {
	t.Parallel()
	settings := []string{"SYNC_ALWAYS", "STRIPES", "SEGMENTS", "WRITERS", "ADDS", "SYNCS", "DEATHS", "SENDS", "DECISIONS"}
	for _, model := range []string{"count", "attempt"} {
		source, err := os.ReadFile(model + ".pml")
		require.NoError(t, err)
		var known, made []string
		for _, found := range regexp.MustCompile(`(?m)^#ifn?def (\w+)`).FindAllStringSubmatch(string(source), -1) {
			if !slices.Contains(settings, found[1]) && !slices.Contains(known, found[1]) {
				known = append(known, found[1])
			}
		}
		for _, r := range runs {
			if r.model == model && r.mistake != "" {
				made = append(made, r.mistake)
			}
		}
		require.ElementsMatch(t, known, made, model)
		require.Greater(t, len(known), 10, model)
	}
}
