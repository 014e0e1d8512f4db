package meter

import (
	"context"

	"github.com/inprocess/meter/internal/crash"
)

func init() { crash.Meter = func(m any) { m.(*Meter).crash() } }

// crash leaves the directory as the death of the process would. What others do with the
// meter from then on is ErrClosed.
func (m *Meter) crash() {
	m.closing.Store(true)
	m.ledger.Abandon()
	m.prepaid.Abandon()
	m.telemetry.stop()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.delivery.Stop(ended) // what is on its way to a sink may arrive
	close(m.stopped)
}
