package ledger

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// operate runs a program of operations, three bytes each.
func operate(t testing.TB, mode string, dir string, program []byte) {
	w := &world{t: t, mode: mode, dir: dir, active: make(map[modelKey]int64), events: make(map[string]modelEvent), byID: make(map[string]*modelRecord), periods: make(map[string]modelPeriod), routes: len(modelRoutes)}
	if len(program) > 0 && program[0] >= 128 { // the other route is added when the ledger is opened again
		w.routes = 1
	}
	w.open()
	defer func() { w.l.Close(context.Background()) }()
	for len(program) >= 3 {
		op, a, b := program[0]%16, program[1], program[2]
		program = program[3:]
		name := ""
		switch op {
		default:
			name = "count"
			w.count([]string{"calls", "peak", "seats"}[a%3], []string{"s0", "s1", "s2"}[a/3%3], int64(b))
		case 3:
			name = "call"
			w.call([]string{"s0", "s1", "s2"}[a%3], b)
		case 4, 5:
			name = "event"
			w.event([]string{"s0", "s1", "s2"}[a%3], b)
		case 6, 7:
			name = "rotate"
			w.rotate()
		case 8, 9:
			name = "take"
			w.take(int(a)%w.routes, 1+int(b%5))
		case 10, 11:
			name = "resolve"
			w.resolve(int(a), []byte{b, b >> 2, b >> 4, b >> 6})
		case 12:
			name = "settle"
			w.settle(a, b)
		case 13:
			name = "fold"
			require.NoError(t, w.l.foldSettled())
		case 14:
			name = "sleep"
			time.Sleep(time.Duration(a%30) * time.Second)
		case 15:
			if a%2 == 0 {
				name = "reopen"
				require.NoError(t, w.l.Close(context.Background()))
			} else {
				name = "crash"
				abandon(w.l)
			}
			w.routes = len(modelRoutes)
			w.open()
		}
		w.check(name)
	}
	// In the end everything is settled, delivered or before an operator.
	for len(w.flights) > 0 {
		w.resolve(0, nil)
	}
	w.rotate()
	for route := range w.routes {
		for range 1000 {
			w.take(route, 3)
			if len(w.flights) == 0 {
				break
			}
			w.resolve(0, nil)
		}
	}
	for _, r := range w.records {
		for _, s := range r.state {
			require.True(t, s.settled() || s.held(), "%v is left over", *r)
		}
	}
	require.NoError(t, w.l.foldSettled())
	w.check("end")
	require.NoError(t, w.l.Close(context.Background()))
	w.open()
	w.check("reopened at the end")
}

// quickDir is a directory in memory where the system has one: thousands of
// ledgers would wait long for a disk.
func quickDir(t testing.TB) string {
	dir, err := os.MkdirTemp(quickDirs(t), "ledger")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func quickDirs(t testing.TB) string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return t.TempDir()
}

func FuzzOperations(f *testing.F) {
	const count, call, event, rotate, take, resolve, settle, fold, sleep, reopen = 0, 3, 4, 6, 8, 10, 12, 13, 14, 15
	f.Add([]byte{count, 0, 5, count, 1, 6, count, 5, 7, rotate, 0, 0, take, 0, 4, resolve, 0, 0, fold, 0, 0, reopen, 0, 0})
	f.Add([]byte{count, 3, 5, count, 6, 6, rotate, 0, 0, take, 1, 4, count, 3, 1, reopen, 1, 0, sleep, 25, 0, take, 1, 4, settle, 0, 3, take, 1, 4, resolve, 0, 1, settle, 0, 0})
	f.Add([]byte{count, 5, 5, rotate, 0, 0, count, 5, 6, rotate, 0, 0, count, 5, 7, reopen, 1, 0, reopen, 0, 0, take, 0, 0, resolve, 0, 3, take, 0, 4, resolve, 0, 0xff, take, 0, 4, resolve, 0, 2})
	f.Add([]byte{count, 5, 5, rotate, 0, 0, take, 0, 0, resolve, 0, 1, count, 5, 9, rotate, 0, 0, take, 0, 0, resolve, 0, 0, settle, 0, 3, take, 0, 4})
	f.Add([]byte{count, 3, 5, rotate, 0, 0, take, 0, 4, count, 3, 6, rotate, 0, 0, take, 0, 4, resolve, 0, 3, take, 0, 0, take, 0, 0, resolve, 0, 1, reopen, 0, 0, settle, 0, 3, settle, 0, 1, fold, 0, 0})
	f.Add([]byte{event, 0, 65, event, 0, 65, event, 1, 65, rotate, 0, 0, event, 0, 65, event, 1, 130, take, 0, 4, resolve, 0, 0, fold, 0, 0, reopen, 1, 0, event, 0, 65, event, 1, 130, count, 0, 3})
	f.Add([]byte{event, 0, 97, event, 0, 97, event, 0, 98, count, 0, 5, rotate, 0, 0, event, 0, 161, event, 0, 99, take, 0, 4, reopen, 1, 0, event, 0, 98, take, 0, 4, resolve, 0, 2, fold, 0, 0})
	f.Add([]byte{count, 3, 5, call, 1, 65, count, 6, 9, rotate, 0, 0, call, 2, 50, take, 0, 4, resolve, 0, 0, fold, 0, 0, reopen, 1, 0, call, 2, 63, call, 1, 63, rotate, 0, 0, reopen, 0, 0, call, 2, 1})
	const alone = 128
	f.Add([]byte{alone + count, 3, 5, rotate, 0, 0, count, 3, 6, reopen, 1, 0, count, 3, 7, rotate, 0, 0, take, 1, 4, resolve, 0, 0, take, 0, 4, resolve, 0, 0, fold, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		program = program[:min(len(program), 300)]
		for _, mode := range modes[1:] {
			dir := quickDir(t)
			synctest.Test(t, func(t *testing.T) { operate(t, mode, dir, program) })
		}
	})
}

// TestRandomOperations runs programs of forty to eighty operations against the model. Of one
// that fails a shorter one is looked for, and printed with its seed.
func TestRandomOperations(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(r *rapid.T) {
				program, dir := rapid.SliceOfN(rapid.Byte(), 3*40, 3*80).Draw(r, "program"), quickDir(t)
				one := &trial{}
				synctest.Test(t, func(t *testing.T) { one.run(t, func() { operate(one, mode, dir, program) }) })
				if one.failure != "" {
					r.Fatal(one.failure)
				}
			})
		})
	}
}

// trial is a test whose failure is not that of the test it is a part of.
type trial struct {
	testing.TB
	failure string
}

func (a *trial) run(t testing.TB, act func()) {
	a.TB = t
	defer func() {
		if p := recover(); p != nil && p != a {
			panic(p)
		}
	}()
	act()
}

func (a *trial) Errorf(format string, args ...any) { a.failure += fmt.Sprintf(format, args...) }
func (a *trial) FailNow()                          { panic(a) }
