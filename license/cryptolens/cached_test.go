package cryptolens_test

import (
	"net/url"
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

// What a checker does not believe leaves nothing in the cache: neither does a stranger
// get in, nor is a customer kept out once the truth is heard again.
func TestALieIsNotCached(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	const blocked = "BLOCK-AAAAA-BBBBB-CCCCC"
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: blocked, Block: true})
	srv.AddKey(cryptolenstest.Key{ProductID: product + 1, Key: blocked}) // allowed, there
	l, checker := newLiar(t, srv)
	synctest.Test(t, func(t *testing.T) {
		for _, k := range []string{keyText, blocked} { // no license ends while the clock of this test runs
			srv.ChangeKey(product, k, func(k *cryptolenstest.Key) { k.Expires = time.Now().AddDate(1, 0, 0) })
		}
		c := cache.New(cache.Config{Checker: checker})
		defer c.Close()
		status := func(k string) license.Status {
			v, _ := c.Check(t.Context(), license.Query{Key: license.NewKey(k), Feature: "f"})
			return v.Status
		}
		for name, lie := range map[string]func(){
			"forged": func() {
				l.answer = edited(t, func(text string) string { return text + " " })
			},
			"of another key":     func() { l.question = func(f url.Values) { f.Set("Key", keyText) } },
			"of another product": func() { l.question = func(f url.Values) { f.Set("ProductId", "3647") } },
		} {
			l.question, l.answer = nil, nil
			lie()
			require.Equal(t, license.Unknown, status(blocked), name)
			l.question, l.answer = nil, nil
			time.Sleep(time.Hour) // longer than the cache leaves a server alone that fails
			require.Equal(t, license.Denied, status(blocked), name)
			require.Equal(t, license.Allowed, status(keyText), name)
			time.Sleep(time.Hour)
			c.Invalidate(license.NewKey(blocked))
		}
	})
}
