package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/filesink"
)

func open(dir string) (*meter.Meter, error) {
	return meter.Open(meter.Config{
		Dir:         filepath.Join(dir, "usage"), // remembers the IDs, too
		Sinks:       []meter.Route{{Name: "bills", Sink: filesink.New(filesink.Config{Path: billsPath(dir)})}},
		EventWindow: 0, // 24 h: longer than the queue delivers a message again
	})
}

// consume is what you would write: count, then acknowledge. Where it dies does not
// matter. dieAt kills the process between the two, at that message.
func consume(ctx context.Context, dir string, q *queue, dieAt int) (meter.Books, error) {
	m, err := open(dir)
	if err != nil {
		return nil, err
	}
	orders := m.Feature("orders", meter.Unit("order"))
	for n, msg := range q.deliveries() {
		err := orders.AddEvent(ctx, meter.Event{ID: msg.ID, Subject: msg.Tenant, Quantity: msg.Orders})
		if err != nil {
			continue // not counted, or not safe yet: not acknowledged, it comes again
		}
		if n == dieAt {
			killMyself()
		}
		if err := q.acknowledge(msg.ID); err != nil {
			return nil, err
		}
	}
	err = m.Shutdown(ctx)
	return m.Books(), err
}

// killMyself is SIGKILL: nothing is deferred, nothing flushed.
func killMyself() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {}
}
