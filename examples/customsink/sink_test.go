package main

import (
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/sinktest"
)

// All that a sink's author writes; go test -v shows the rules that it obeys.
func TestStore(t *testing.T) {
	store := Store{t.TempDir()}
	sinktest.Run(t, sinktest.Harness{
		New:     func(testing.TB) sink.Sink { return store },
		Restart: func(testing.TB, sink.Sink) sink.Sink { return Store{store.dir} },
		Total: func(t testing.TB, feature, subject string) int64 {
			total, err := store.Total(feature, subject)
			if err != nil {
				t.Fatal(err)
			}
			return total
		},
	})
}
