package filesink_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink/filesink"
)

const (
	crashPath = "FILESINK_TEST_CRASH_PATH"
	crashFrom = "FILESINK_TEST_CRASH_FROM"
	crashSize = 20_000 // so that kills meet rotations, too
)

// TestCrashChild is the process that TestCrash kills: it delivers from a number
// on for ever, and prints how far its records are acknowledged.
func TestCrashChild(t *testing.T) {
	path := os.Getenv(crashPath)
	if path == "" {
		t.Skip("started by TestCrash")
	}
	from, err := strconv.Atoi(os.Getenv(crashFrom))
	require.NoError(t, err)
	s := filesink.New(filesink.Config{Path: path, MaxSize: crashSize})
	for {
		to := from + 1 + rand.IntN(20)
		if err := s.Deliver(context.Background(), recordsOf(from, to)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		from = to
		fmt.Println(to) // one write: what is read of it was acknowledged
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	acknowledged, torn := 0, 0
	for range rounds {
		acknowledged = crash(t, path, acknowledged)
		n := counts(t, path)
		for i := range acknowledged {
			require.Equal(t, 1, n[record(i).ID], "record %d of %d acknowledged", i, acknowledged)
		}
		require.LessOrEqual(t, len(n), acknowledged+20)
		if len(n) > acknowledged {
			torn++
		}
	}
	// All that may have been sent, again.
	s := open(t, filesink.Config{Path: path, MaxSize: crashSize})
	all := acknowledged + 20
	require.NoError(t, s.Deliver(t.Context(), recordsOf(acknowledged, all)))
	n := counts(t, path)
	for i := range all {
		require.Equal(t, 1, n[record(i).ID], "record %d", i)
	}
	require.Len(t, lines(t, path), all)
	t.Logf("%d records, %d files, %d of %d kills left written records unacknowledged",
		all, len(paths(t, path)), torn, rounds)
}

// crash starts a child, kills it at some moment, and returns how far it came.
func crash(t *testing.T, path string, from int) int {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	child.Env = append(os.Environ(), crashPath+"="+path, crashFrom+"="+strconv.Itoa(from))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	acknowledgements := bufio.NewScanner(out)
	// After some of its calls, then anywhere within the next one.
	for range rand.IntN(40) {
		if !acknowledgements.Scan() {
			break
		}
		from = number(t, acknowledgements.Text())
	}
	for until := time.Now().Add(time.Duration(rand.IntN(3000)) * time.Microsecond); time.Now().Before(until); {
	}
	require.NoError(t, child.Process.Kill())
	for acknowledgements.Scan() { // what it printed before it died
		from = number(t, acknowledgements.Text())
	}
	_ = child.Wait() // it was killed
	return from
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "the child says %q", text)
	return n
}
