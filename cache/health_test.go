package cache

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func TestHealthTellsOfTheFirstQuestionWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*server){
		"error":    func(s *server) { s.set(license.Verdict{}, errDown) },
		"nonsense": func(s *server) { s.set(license.Verdict{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{}, func(w world) {
				set(w.server)
				w.unknown("k") // with a wrong token, all are strangers
				require.ErrorContains(w, w.Health(), "cache: the Checker does not answer (questions in a row: 1): ")
				w.server.set(deny(license.NotFound), nil)
				w.answer("other", license.Denied)
				require.NoError(w, w.Health(), "the next answer clears it")

				w.server.set(allow("cus_1"), nil)
				w.answer("k", license.Allowed)
				time.Sleep(time.Hour)
				set(w.server)
				w.allowed("k") // in grace
				w.settle()
				require.ErrorContains(w, w.Health(), "(questions in a row: 1)")
				w.server.set(allow("cus_1"), nil)
				time.Sleep(retryPause)
				w.allowed("k")
				w.settle()
				require.NoError(w, w.Health())

				set(w.server)
				w.unknown("made up")
				require.NoError(w, w.Health(), "a Checker may fail at a key that somebody makes up")
				w.unknown("made up, too")
				require.ErrorContains(w, w.Health(), "(questions in a row: 2)")
			})
		})
	}
}

func TestHealthAfterCloseDoesNotBlameTheChecker(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.server.slow(time.Minute)
		go w.Check(w.Context(), ask("k"))
		w.settle()
		require.NoError(w, w.Close())
		require.NoError(w, w.Health())
	})
}

// ill is a Checker with a Health of its own.
type ill struct {
	license.Checker
	fault error
}

func (i *ill) Health() error { return i.fault }

func TestHealthPassesOnTheCheckers(t *testing.T) {
	t.Parallel()
	checker := &ill{answers(allow("cus_1"), nil), nil}
	c := New(Config{Checker: license.AnyOf(checker)})
	require.NoError(t, c.Health())
	checker.fault = errDown
	require.EqualError(t, c.Health(), "cache: Checker: license: AnyOf[0]: license server is down")
	require.NoError(t, c.Close())
	require.EqualError(t, New(Config{Fresh: -1, Checker: checker}).Health(), "cache: Config.Fresh: -1ns: must not be negative", "else it would be said twice")
}

// A Checker that asks by net/http with the key in the URL gets errors that quote it.
func TestErrorsOfTheCheckerShowNoKey(t *testing.T) {
	t.Parallel()
	log := &journal{}
	const key = "canary /+ 1"
	bubble(t, Config{Logger: log.logger(), Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		target := "https://licenses.example/" + url.PathEscape(q.Key.Reveal()) + "?key=" + url.QueryEscape(q.Key.Reveal())
		return license.Verdict{}, errors.Join(errors.New(q.Key.Reveal()), &url.Error{Op: "Get", URL: target, Err: errDown})
	})}, func(w world) {
		for range failuresToOpen + 1 {
			err := w.unknown(key)
			require.ErrorIs(w, err, errDown)
			require.NotContains(w, err.Error(), "canary")
		}
		require.ErrorIs(w, w.Health(), errDown)
		require.ErrorContains(w, w.Health(), "https://licenses.example/[key]?key=[key]")
		require.NotContains(w, w.Health().Error(), "canary")
		w.settle()
		require.Contains(w, log.String(), "[key]")
		require.NotContains(w, log.String(), "canary")
	})
}
