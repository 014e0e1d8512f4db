// Licensed sells two features by license key: Cryptolens says who may use them and
// bills their use, and the service goes on while it can't be reached.
//
//	go run ./examples/licensed
//
// Read server.go first: it is what you would write. This file is a day in its life,
// against a stand-in for Cryptolens within this process, and client.go the customers'
// side.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

func main() {
	dir, err := os.MkdirTemp("", "meter-licensed-")
	if err == nil {
		err = errors.Join(story(dir), os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "licensed:", err)
		os.Exit(1)
	}
}

func story(dir string) error {
	api := cryptolenstest.New()
	api.AddToken(checkToken, "GetKey")
	api.AddToken(billingToken, "Subscription")
	both, reports := [8]bool{true, true}, [8]bool{true}
	add := func(features [8]bool, expires time.Duration) string {
		return api.AddKey(cryptolenstest.Key{ProductID: product, Features: features, Expires: time.Now().Add(expires)}).Key
	}
	const year = 365 * 24 * time.Hour
	ada, bob, eve, new := add(both, year), add(reports, year), add(both, -time.Hour), add(both, year)

	// The file takes what an operator would read; the story is on standard output.
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer file.Close()
	logger := slog.New(slog.NewTextHandler(file, nil))

	shop, err := open(dir, api, logger)
	if err != nil {
		return err
	}
	c := &client{server: shop, api: api}

	c.chapter("Allowed: Cryptolens is asked once")
	c.use("ada", ada, "tax-report", 200, "")
	c.use("ada", ada, "tax-report", 200, "")
	c.use("bob", bob, "tax-report", 200, "")

	c.chapter("Denied, each for a reason, and nothing is counted")
	c.use("nobody", "", "tax-report", 401, license.NoKey)
	c.use("a guess", "AAAAA-BBBBB-CCCCC-DDDDD", "tax-report", 403, license.NotFound)
	c.use("bob", bob, "export", 403, license.NotEntitled)

	c.chapter("Expired")
	c.use("eve", eve, "tax-report", 403, license.Expired)

	c.chapter("Throttled: two exports at once, then one a minute")
	c.use("ada", ada, "export", 200, "")
	c.use("ada", ada, "export", 200, "")
	c.use("ada", ada, "export", 429, license.TooFast)

	c.chapter("Revoked: the vendor blocks bob's key, and has Cryptolens asked again at once")
	api.ChangeKey(product, bob, func(k *cryptolenstest.Key) { k.Block = true })
	shop.verdicts.Invalidate(license.NewKey(bob)) // from a webhook; else the next refresh finds it out
	c.use("bob", bob, "tax-report", 403, license.Blocked)

	c.chapter("Cryptolens is down: customers notice nothing, and a new key has to wait")
	api.SetDown(true)
	c.use("ada", ada, "tax-report", 200, "")
	c.use("bob", bob, "tax-report", 403, license.Blocked)
	c.use("new", new, "tax-report", 503, license.Unavailable)

	c.chapter("The service is restarted meanwhile: counts and verdicts are on disk")
	err = shop.meter.Shutdown(context.Background())
	stopped, ok := errors.AsType[*meter.ShutdownError](err)
	if !ok || !stopped.Durable {
		return fmt.Errorf("a meter that can't deliver should say so: %w", err)
	}
	fmt.Printf("  it says at its end: %d records not delivered, safe on disk\n", stopped.Pending)
	if c.server, err = open(dir, api, logger); err != nil {
		return err
	}
	c.use("ada", ada, "tax-report", 200, "")

	c.chapter("Cryptolens is back: the new key works, and all is billed")
	api.SetDown(false)
	c.use("new", new, "tax-report", 200, "")
	if err := c.server.meter.Flush(context.Background()); err != nil {
		return err
	}
	c.billed("ada", ada, 6)
	c.billed("bob", bob, 1)
	c.billed("eve", eve, 0)
	c.billed("new", new, 1)

	books := c.server.meter.Books()
	fmt.Printf("\nThe books:\n%v\n", books)
	return errors.Join(c.wrong, books.Check(), c.server.meter.Shutdown(context.Background()))
}
