package chaos

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// variant is the library with one mistake in it.
type variant struct {
	name     string
	file     string // below internal
	old, new string
	test     string // that must fail
	rule     string // for this reason
}

var variants = []variant{
	{
		"counting is a load and a store", "ledger/cell.go",
		"if word.CompareAndSwap(old, sum|wordSet) {\n\t\treturn counted\n\t}\n\treturn collided",
		"word.Store(sum | wordSet)\n\treturn counted",
		"TestKill$", "lost",
	}, {
		"counting does not see that a slot is sealed", "ledger/cell.go",
		"old := word.Load()\n\tif old&wordSealed != 0 {\n\t\treturn retired\n\t}\n\tsum :=",
		"old := word.Load()\n\tsum :=",
		"TestKill$", "lost",
	}, {
		"an ID is a number that counts from 0 in each window", "ledger/key.go",
		`fmt.Sprintf("%x-%x-%016x", u[:], block, h.Sum64())`,
		`fmt.Sprintf("%x-%x-%016x", make([]byte, len(u)), block, h.Sum64())`,
		"TestKill$", "lost|body",
	}, {
		"each attempt has an ID of its own", "ledger/take.go",
		"\t\trec.Attempt, rec.Doubt =",
		"\t\trec.ID += fmt.Sprint(\"-\", try.attempts)\n\t\trec.Attempt, rec.Doubt =",
		"TestKillWithOutages$", "extra|twice|order",
	}, {
		"an attempt is not written down before it is made", "ledger/take.go",
		"err := sd.persist(blocks, true)\n\t\tsd.mu.Unlock()",
		"var err error\n\t\t_ = blocks\n\t\tsd.mu.Unlock()",
		"TestKillWithoutDedupe$", "extra|twice",
	}, {
		"an attempt that was under way at a kill is made again", "ledger/recover.go",
		"case o.states[i] == attempted && !sd.copied:\n\t\t\t\to.states[i] = inDoubt",
		"case o.states[i] == attempted && !sd.copied:\n\t\t\t\to.states[i] = pending",
		"TestKillWithoutDedupe$", "extra|twice",
	}, {
		"an attempt is not synced before it is made", "ledger/take.go",
		"err := sd.persist(blocks, true)\n\t\tsd.mu.Unlock()",
		"err := sd.persist(blocks, false)\n\t\tsd.mu.Unlock()",
		"TestPowerCut$/ext4/always", "extra|twice",
	}, {
		"SyncAlways does not wait", "ledger/journal.go",
		"func (j *journal) commit(i uint32) error {\n\tif j == nil {",
		"func (j *journal) commit(i uint32) error {\n\tif i >= 0 {",
		"TestPowerCut$/ext4/always", "lost",
	},
}

// triesOfVariant is how often a test may look for a mistake: what a kill or a switch of
// goroutines must hit is a few instructions long in some of them.
const triesOfVariant = 6

// TestVariantsAreFound builds the library with mistakes that peers make, and has the
// tests of this package find each of them. It compiles, which takes time, so it runs
// only if METER_VARIANTS is set.
func TestVariantsAreFound(t *testing.T) {
	if os.Getenv("METER_VARIANTS") == "" {
		t.Skip("SKIPPED: broken variants of the library are built only with METER_VARIANTS=1")
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			if strings.Contains(v.test, "PowerCut") {
				newVolume(t, "ext4") // or a skip that says why
			}
			binary := v.build(t)
			var out []byte
			for range triesOfVariant {
				cmd := exec.Command(binary, "-test.run", v.test, "-test.timeout", "5m")
				// With more threads than processors, the kernel interrupts a goroutine in the
				// middle of a count, where the scheduler of Go alone hardly ever would.
				cmd.Env = append(os.Environ(), "METER_KILL_ROUNDS=96", "METER_POWER_ROUNDS=60", "GOMAXPROCS=64")
				var err error
				if out, err = cmd.CombinedOutput(); err == nil {
					continue
				}
				if broken := regexp.MustCompile(`\b(` + v.rule + `): .*`).FindString(string(out)); broken != "" {
					t.Logf("%.300s", broken)
					return
				}
			}
			require.Fail(t, "the mistake was not found", "the last of %d runs:\n%s", triesOfVariant, out)
		})
	}
}

// build compiles this package's tests with the mistake laid over the source.
func (v variant) build(t *testing.T) (binary string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", v.file))
	require.NoError(t, err)
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(source), v.old), "%s has changed: the variant must follow it", v.file)
	dir := t.TempDir()
	patched, overlay, binary := filepath.Join(dir, "patched.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "chaos.test")
	require.NoError(t, os.WriteFile(patched, []byte(strings.Replace(string(source), v.old, v.new, 1)), 0o600))
	text, err := json.Marshal(map[string]map[string]string{"Replace": {path: patched}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, text, 0o600))
	out, err := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}
