package cache

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

const killEnv = "METER_CACHE_KILL_TEST"

// Wherever in a write a process is killed, the next one reads what was written before.
func TestKilledWhileItWrites(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(killEnv); path != "" {
		writeUntilKilled(path)
	}
	path := filepath.Join(t.TempDir(), "verdicts")
	written := 0
	for range 10 {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledWhileItWrites$")
		child.Env = append(os.Environ(), killEnv+"="+path)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(5) {
			require.True(t, lines.Scan(), "the child has died")
			_, err := fmt.Sscanf(lines.Text(), "written %d", &written)
			require.NoError(t, err, lines.Text())
		}
		for range rand.IntN(5_000_000) { // some way into the next write
		}
		require.NoError(t, child.Process.Kill())
		for lines.Scan() { // what it has said before it died
			_, _ = fmt.Sscanf(lines.Text(), "written %d", &written)
		}
		require.Error(t, child.Wait())

		c := New(Config{Checker: answers(license.Verdict{}, errDown), File: path})
		require.NoError(t, c.Health())
		for i := range written {
			k, err := c.Key(t.Context(), fmt.Sprint("cus_", i+1))
			require.NoError(t, err)
			require.Equal(t, license.NewKey(fmt.Sprint("k", i+1)), k)
		}
		v, err := c.Check(t.Context(), ask(fmt.Sprint("k", written)))
		require.NoError(t, err)
		require.Equal(t, license.Allowed, v.Status)
		require.NoError(t, c.Close())
	}
}

// writeUntilKilled adds one customer after the other, and tells of each that is on disk.
func writeUntilKilled(path string) {
	n := 0
	c := New(Config{File: path, Rate: 1e9, Logger: slog.New(slog.DiscardHandler),
		Checker: license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
			return allow(fmt.Sprint("cus_", n)), nil
		})})
	for i := range 2_000 { // so that a write takes its time
		c.keep(fmt.Sprint("filler", i), license.NewKey("filler"))
	}
	for n = c.keys.Len() - 2_000 + 1; ; n++ {
		_, err := c.Check(context.Background(), ask(fmt.Sprint("k", n)))
		c.file.flush()
		if err != nil || c.Health() != nil {
			fmt.Println("broken:", err, c.Health())
			os.Exit(1)
		}
		fmt.Println("written", n)
	}
}
