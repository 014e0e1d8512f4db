package cryptolens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inprocess/meter/license"
)

// beats is how often a floating machine is activated within its time, so that it
// survives two beats that fail.
const beats = 3

// Heartbeat keeps a floating machine active that Activate has activated before: it
// activates it again, three times in each a.Floating, until ctx ends. The machine
// then goes by itself, or at once by Deactivate.
//
// Blocking: until ctx ends or the machine is lost.
// Errors: nil if ctx ended. An [ErrLicense] as soon as the API says so; any other
// error once none of the beats within a.Floating has succeeded; [ErrInput] if the
// activation is not floating.
func (c *Client) Heartbeat(ctx context.Context, productID int, key license.Key, a Activation) error {
	q := c.query("Activate", productID, key)
	if q.activation(a); a.Floating == 0 {
		q.refuse("the activation is not floating: set Activation.Floating")
	}
	if q.fault != nil {
		return q.fault
	}
	beat := time.NewTicker(a.Floating / beats)
	defer beat.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
		begun := time.Now()
		_, err := c.Activate(ctx, productID, key, a)
		switch {
		case err == nil:
			last = begun
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrLicense):
			return err
		case time.Since(last) >= a.Floating:
			return fmt.Errorf("cryptolens: floating machine lost after %v: %w", a.Floating, err)
		}
	}
}
