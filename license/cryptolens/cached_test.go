package cryptolens_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

// Behind a cache customers don't notice an outage; a block reaches them after it.
func TestCheckerBehindACache(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	xml := srv.PublicKeyXML()
	synctest.Test(t, func(t *testing.T) {
		srv.ChangeKey(product, keyText, func(k *cryptolenstest.Key) { k.Expires = time.Now().AddDate(1, 0, 0) })
		c := cache.New(cache.Config{Checker: newChecker(t, srv, func(c *cryptolens.Config) { c.PublicKeys = []string{xml} })})
		defer c.Close()
		status := func() license.Status { return check(t, c, license.Query{Key: key, Feature: "f"}).Status }
		require.Equal(t, license.Allowed, status())
		srv.SetDown(true)
		for range 23 {
			time.Sleep(time.Hour)
			require.Equal(t, license.Allowed, status())
			synctest.Wait()
		}
		srv.SetDown(false)
		srv.ChangeKey(product, keyText, func(k *cryptolenstest.Key) { k.Block = true })
		time.Sleep(10 * time.Second)
		require.Equal(t, license.Allowed, status(), "this one starts the refresh")
		synctest.Wait()
		require.Equal(t, license.Denied, status())
	})
}
