package meter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// shop is a balance of one subject, with a table of transfers: what a vendor writes who
// has a database.
type shop struct {
	mu   sync.Mutex
	left int64
	done map[string]bool
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/read" {
		fmt.Fprint(w, s.left)
		return
	}
	var t license.Transfer
	if err := json.NewDecoder(r.Body).Decode(&t); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if s.done[t.ID] {
		return
	}
	if t.Back {
		t.Units = -t.Units
	}
	if t.Units > s.left {
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.left -= t.Units
	s.done[t.ID] = true
}

// overHTTP is a shop that is somewhere else.
type overHTTP string

func (at overHTTP) Read(_ context.Context, _ string) (funds license.Funds, err error) {
	resp, err := http.Get(string(at) + "/read")
	if err != nil {
		return funds, err
	}
	defer resp.Body.Close()
	_, err = fmt.Fscan(resp.Body, &funds.Units)
	return funds, err
}

func (at overHTTP) Move(_ context.Context, t license.Transfer) error {
	body, err := json.Marshal(t)
	if err != nil {
		return license.ErrNotApplied
	}
	resp, err := http.Post(string(at)+"/move", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return license.ErrNotApplied
	}
	return errors.New(resp.Status)
}

// A process that uses prepaid units and is killed at any moment neither loses any nor
// gets one twice.
func TestPrepaidUnitsSurviveKills(t *testing.T) {
	if at := os.Getenv("METER_PREPAID_CHILD"); at != "" {
		usePrepaid(t, overHTTP(at))
		return
	}
	t.Parallel()
	const bought = 3000
	s := &shop{left: bought, done: map[string]bool{}}
	srv := httptest.NewServer(s)
	defer srv.Close()
	dir := t.TempDir()
	acknowledged, rounds := 0, 0
	for ended := false; !ended; rounds++ {
		require.Less(t, rounds, 100)
		child := exec.Command(os.Args[0], "-test.run=^TestPrepaidUnitsSurviveKills$")
		child.Env = append(os.Environ(), "METER_PREPAID_CHILD="+srv.URL, "METER_PREPAID_DIR="+dir)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines, last := bufio.NewScanner(out), 200+rounds*37
		for n := 0; lines.Scan(); {
			switch lines.Text() {
			case "used":
				acknowledged++
				if n++; n == last {
					require.NoError(t, child.Process.Kill())
				}
			case "empty":
				ended = true
			}
		}
		_ = child.Wait()
	}
	require.Greater(t, rounds, 3)
	m := open(t, inDir(dir))
	f := m.Feature("f", Prepaid(overHTTP(srv.URL), 64))
	used := f.Total("s").Quantity
	require.GreaterOrEqual(t, used, int64(acknowledged))
	require.NoError(t, m.Shutdown(t.Context()))
	require.EqualValues(t, bought, used+s.left)
	require.LessOrEqual(t, s.left, int64(8), "what calls had reserved at the end")
}

// usePrepaid is the process that is killed.
func usePrepaid(t *testing.T, b license.Balance) {
	m, err := Open(Config{Dir: os.Getenv("METER_PREPAID_DIR"), Sync: time.Hour})
	require.NoError(t, err)
	f := m.Feature("f", Prepaid(b, 64))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				_, call, err := f.Begin(as("s"))
				if err == nil && call.Commit() == nil {
					_, _ = os.Stdout.WriteString("used\n")
				}
				if refused, ok := err.(*RefusedError); ok && refused.Reason == license.OverQuota {
					return
				}
			}
		})
	}
	all.Wait()
	_, _ = os.Stdout.WriteString("empty\n")
	os.Exit(0)
}
