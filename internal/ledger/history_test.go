package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// A history of calls that are held to a quota, of several goroutines at a time, must be
// one that a single counter could have had, with each call at some moment between its
// begin and its end.

type quotaOp struct {
	kind string // "reserve", "commit", "cancel", "add" or "look"
	n    int64
	held int64 // that the call had reserved, of commit and cancel
}

// quotaState is what the single counter holds.
type quotaState struct{ counted, held int64 }

const historyLimit = 300

var quotaModel = porcupine.Model{
	Init: func() any { return quotaState{} },
	Step: func(state, input, output any) (bool, any) {
		s, op := state.(quotaState), input.(quotaOp)
		switch op.kind {
		case "reserve":
			if fits := s.counted+s.held+max(op.n, 1) <= historyLimit; fits != output.(bool) {
				return false, s
			} else if fits {
				s.held += op.n
			}
		case "commit":
			s.counted, s.held = s.counted+op.n, s.held-op.held
			return output == nil, s
		case "cancel":
			s.held -= op.held
		case "add":
			s.counted += op.n
			return output == nil, s
		case "look":
			return output.(quotaState) == s, s
		}
		return true, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " ", output) },
}

func TestHistoriesOfQuotasAreThoseOfOneCounter(t *testing.T) {
	t.Parallel()
	rounds := 1500
	if testing.Short() {
		rounds = 50
	}
	l := open(t, "memory", "")
	f := feature(t, l, "calls", sink.Sum)
	for round := range rounds {
		seed := rand.Uint64()
		subject, q := fmt.Sprint("s", round), Quota{Limit: historyLimit}
		heldTo(t, f, subject, q)
		var mu sync.Mutex
		var history []porcupine.Operation
		began := time.Now()
		note := func(client int, op quotaOp, act func() any) {
			call := time.Since(began).Nanoseconds()
			out := act()
			returned := time.Since(began).Nanoseconds()
			mu.Lock()
			defer mu.Unlock()
			history = append(history, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: out, Return: returned})
		}
		var clients sync.WaitGroup
		for client := range 8 {
			clients.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(client)))
				for range 40 {
					n := 1 + rng.Int64N(4)
					switch rng.IntN(6) {
					case 0:
						note(client, quotaOp{kind: "add", n: n}, func() any { return f.Add(subject, n) })
					case 1:
						note(client, quotaOp{kind: "look"}, func() any {
							s := f.Tally(subject).Standing()
							return quotaState{s.Counted, s.Held}
						})
					default:
						var tally *Tally
						var a Admission
						note(client, quotaOp{kind: "reserve", n: n}, func() any {
							tally, a, _ = f.Reserve(nil, subject, &q, n, true)
							return a == Within
						})
						if a != Within {
							continue
						}
						if rng.IntN(3) == 0 {
							note(client, quotaOp{kind: "cancel", held: n}, func() any { tally.Release(n); return nil })
							continue
						}
						used := rng.Int64N(n + 2)
						note(client, quotaOp{kind: "commit", n: used, held: n}, func() any {
							return tally.Series().AddHeld(used, tally, n, true)
						})
					}
				}
			})
		}
		if round%50 == 49 { // each takes a second of its own
			clients.Go(func() { _ = l.Rotate(context.Background()) })
		}
		clients.Wait()
		require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(quotaModel, history, time.Minute), "seed %d: %v", seed, history)
	}
}
