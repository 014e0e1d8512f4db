package httpsink_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/stretchr/testify/require"
)

// What both halves cost for 100 records, over HTTP on this machine, without a store.
func BenchmarkDeliver(b *testing.B) {
	for name, cfg := range modes {
		if name == "single event" {
			continue
		}
		b.Run(name, func(b *testing.B) {
			h, err := httpsink.NewHandler(httpsink.HandlerConfig{
				Secrets: []string{secret}, Logger: quiet,
				Store: httpsink.Idempotent(func(context.Context, []sink.Record) error { return nil }),
			})
			require.NoError(b, err)
			server := httptest.NewServer(h)
			b.Cleanup(server.Close)
			s := newSink(b, cfg, server.URL)
			records := make([]sink.Record, 100)
			for n := range records {
				records[n] = record(n, 1)
				records[n].Subject = fmt.Sprint("cus_", n)
			}
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, s.Deliver(b.Context(), records))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "µs/record")
		})
	}
}
