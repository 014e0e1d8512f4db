package offline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// bubble runs a test in fake time.
func bubble(t *testing.T, test func(world)) {
	t.Helper()
	vendor() // its mutex must not be waited for within
	synctest.Test(t, func(t *testing.T) { test(newWorld(t)) })
}

func TestALicenseOnDisk(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("acme.skm", file(t, nil))
		w.put("readme.txt", "not a license")
		c := w.open(func(c *Config) { c.Features = map[string]int{"on": 1, "off": 2} })
		v := w.allowed(c)
		require.Equal(t, "70123", v.Subject)
		require.Equal(t, time.Now().Add(30*day).UTC(), v.Until, "MaxAge comes before Expires")
		for q, want := range map[license.Query]license.Reason{
			{}:                                      license.NoKey,
			{Subject: "70123"}:                      license.NoKey,
			{Key: license.NewKey("other")}:          license.NotFound,
			{Key: canary, Feature: "off"}:           license.NotEntitled,
			{Key: canary, Machine: "m2"}:            license.NotEntitled,
			{Key: license.NewKey(keyText + "\x00")}: license.NotFound,
		} {
			w.denied(c, q, want)
		}
		for _, q := range []license.Query{{Key: canary, Feature: "on", Machine: "m1"}, {Key: canary, Feature: "free"}} {
			v, err := c.Check(t.Context(), q)
			require.NoError(t, err)
			require.Equal(t, license.Allowed, v.Status)
		}
		require.NoError(t, c.Health())
		require.NoError(t, c.Close())
	})
}

func TestLicensesEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		end := time.Now().Add(2 * time.Hour)
		w.put("a.skm", file(t, fields{"Expires": end.Unix()}))
		c := w.open(nil)
		require.Equal(t, end.UTC(), w.allowed(c).Until)
		time.Sleep(2*time.Hour - 1)
		w.allowed(c)
		time.Sleep(1)
		w.denied(c, license.Query{Key: canary}, license.Expired)

		w.put("a.skm", file(t, fields{"Block": true}))
		time.Sleep(time.Minute)
		w.denied(c, license.Query{Key: canary}, license.Blocked)
	})
}

func TestMaxAge(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("a.skm", file(t, nil))
		c := w.open(func(c *Config) { c.Reload = NoReload })
		w.allowed(c)
		time.Sleep(30*day - 1)
		w.allowed(c)
		time.Sleep(1)
		w.unknown(c, ErrTooOld)
		require.ErrorIs(t, c.Health(), ErrTooOld)
		w.unknown(w.open(nil), ErrTooOld)
		w.denied(c, license.Query{Key: license.NewKey("other")}, license.NotFound)

		any := w.open(func(c *Config) { c.MaxAge = AnyAge })
		require.Equal(t, time.Now().AddDate(1, 0, 0).Add(-30*day).UTC(), w.allowed(any).Until)

		w.put("b.skm", file(t, nil)) // a new one, beside the old one
		w.allowed(w.open(nil))
	})
}

func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		c := w.open(nil)
		w.denied(c, license.Query{Key: canary}, license.NotFound)
		w.put("a.skm", file(t, nil))
		w.denied(c, license.Query{Key: canary}, license.NotFound)
		time.Sleep(time.Minute)
		w.allowed(c)

		once := w.open(func(c *Config) { c.Reload = NoReload })
		w.allowed(once)
		w.remove("a.skm")
		w.allowed(c)
		time.Sleep(time.Minute)
		w.denied(c, license.Query{Key: canary}, license.NotFound)
		w.allowed(once)
	})
}

// A file that is being written, or that can't be read for a while, ends nothing.
func TestABrokenFile(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		good := file(t, nil)
		w.put("a.skm", good[:100])
		c := w.open(nil)
		w.unknown(c, ErrMalformed)
		require.ErrorContains(t, c.Health(), `offline: "a.skm": no signed Cryptolens license`)

		w.put("a.skm", good)
		time.Sleep(time.Minute)
		w.allowed(c)
		require.NoError(t, c.Health())

		w.put("a.skm", strings.Replace(good, `"signature":"`, `"signature":"AAAA`, 1))
		time.Sleep(time.Minute)
		w.allowed(c)
		require.ErrorIs(t, c.Health(), ErrSignature)
		// Nobody knows whose license the broken file is.
		_, err := c.Check(t.Context(), license.Query{Key: license.NewKey("other")})
		require.ErrorIs(t, err, ErrSignature)

		w.remove("a.skm")
		time.Sleep(time.Minute)
		w.denied(c, license.Query{Key: canary}, license.NotFound)
	})
}

func TestADirectoryIsNoLicense(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		require.NoError(t, os.Mkdir(filepath.Join(w.dir, "old.skm"), 0o700))
		c := w.open(nil)
		w.unknown(c, ErrMalformed)
		require.ErrorContains(t, c.Health(), `"old.skm": no signed Cryptolens license: it is no regular file`)
	})
}

func TestTheDirectoryGoes(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("a.skm", file(t, nil))
		c := w.open(nil)
		w.allowed(c)
		w.remove("a.skm")
		require.NoError(t, os.Remove(w.dir))
		time.Sleep(time.Minute)
		w.allowed(c) // unknown is not denied
		_, err := c.Check(t.Context(), license.Query{Key: license.NewKey("other")})
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, c.Health(), "listing the license files")
		require.ErrorIs(t, c.Validate(), fs.ErrNotExist)
		require.ErrorContains(t, c.Validate(), fmt.Sprintf("offline: Config.Files: listing the license files in %q: ", w.dir))
	})
}

// Only a license that could be this key's makes the key unknown.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("foreign.skm", file(t, fields{"ProductId": 3647}))
		c := w.open(nil)
		w.denied(c, license.Query{Key: canary}, license.NotFound)
		require.ErrorIs(t, c.Health(), ErrProduct)
		w.put("lingsign.skm", `{"licenseKey":{"key":"`+keyText+`","signature":"AQAB"},"result":0}`)
		time.Sleep(time.Minute)
		w.unknown(c, ErrLingSign)
	})
}

// An older file neither counts beside a newer one nor in its place.
func TestOlderFiles(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w world) {
				older := file(t, nil)
				time.Sleep(time.Hour)
				newer := file(t, fields{"F1": false})
				c := w.open(nil)
				check := func(want license.Status) {
					t.Helper()
					time.Sleep(time.Minute)
					if restart {
						require.NoError(t, c.Close())
						c = w.open(nil)
					}
					c.cfg.Features = map[string]int{"f": 1}
					c.terms = c.cfg.terms()
					v, err := c.Check(t.Context(), license.Query{Key: canary, Feature: "f"})
					if want == license.Unknown {
						require.ErrorIs(t, err, ErrReplayed)
					} else {
						require.NoError(t, err)
					}
					require.Equal(t, want, v.Status)
				}
				w.put("b.skm", older)
				check(license.Allowed)
				w.put("a.skm", newer)
				check(license.Denied)
				w.put("c.skm", older)
				check(license.Denied)
				w.remove("a.skm")
				if restart {
					check(license.Unknown)
				} else {
					check(license.Denied) // by the newer one, which it remembers
					require.ErrorIs(t, c.Health(), ErrReplayed)
				}
				w.put("a.skm", file(t, nil))
				check(license.Allowed)
			})
		})
	}
}

func TestASubjectOfTheVendors(t *testing.T) {
	t.Parallel()
	c := New(Config{
		Files: fstest.MapFS{"x.license": {Data: []byte(file(t, nil))}}, Pattern: "*.license", MaxAge: AnyAge, ProductID: product,
		PublicKeys: []string{publicKey()}, Subject: func(l License) string { return l.Notes },
	})
	v, err := c.Check(t.Context(), license.Query{Key: canary})
	require.NoError(t, err)
	require.Equal(t, "ship 7", v.Subject)
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	c := New(Config{PublicKeys: []string{"x"}, Features: map[string]int{"a": 9}, TimeLimited: 9, Reload: -2, Pattern: "["})
	err := c.Validate()
	for _, want := range []string{
		"offline: Config.Files is nil", "Config.MaxAge is 0", "Config.ProductID is 0", "Config.PublicKeys[0] is no <RSAKeyValue> XML",
		`Config.Features["a"] is 9`, "Config.TimeLimited is 9", "Config.Reload is -2ns", `Config.Pattern is "["`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, New(Config{MaxAge: -2}).Validate(), "Config.MaxAge is -2ns")
	require.ErrorContains(t, New(Config{}).Validate(), "Config.PublicKeys is empty")
	_, checked := c.Check(t.Context(), license.Query{Key: canary})
	require.EqualError(t, checked, err.Error())
	require.EqualError(t, c.Health(), err.Error())
	require.NoError(t, c.Close())
}

func TestAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.Equal(t, "offline:3646", w.open(nil).Address())
	require.Equal(t, "offline:77", w.open(func(c *Config) { c.ProductID = 77 }).Address())
	require.Empty(t, New(Config{}).Address(), "of a faulty Config")
}

func TestValidateLooksAtTheDiskWhateverElseIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.NoError(t, os.WriteFile(w.state, []byte("damaged"), 0o600))
	err := New(Config{Files: os.DirFS(filepath.Join(w.dir, "absent", keyText)), State: w.state, MaxAge: AnyAge, ProductID: product}).Validate()
	require.ErrorContains(t, err, "offline: Config.PublicKeys is empty")
	require.ErrorContains(t, err, "offline: Config.State: "+w.state+" is no state of licenses")
	require.ErrorContains(t, err, "offline: Config.Files: listing the license files in ")
	require.NotContains(t, err.Error(), "CANARY")
}

// Cryptolens's license server puts keys into the names of files.
func TestNothingShowsAKey(t *testing.T) {
	t.Parallel()
	bubble(t, func(w world) {
		w.put("3646."+keyText+".1.skm", "broken")
		w.put("short."+"CANARY"+".skm", file(t, fields{"Key": "CANARY", "SignDate": time.Now().Add(-31 * day).Unix()}))
		w.put(keyText+".skm", file(t, fields{"ProductId": 1}))
		require.NoError(t, os.Symlink(keyText, filepath.Join(w.dir, keyText+"-gone.skm")))
		c := w.open(func(c *Config) { c.Subject = func(l License) string { return l.Key.Reveal() } })
		_, err := c.Check(t.Context(), license.Query{Key: license.NewKey("other")})
		require.ErrorIs(t, err, ErrMalformed)
		texts := []error{err, c.Health()}
		w.put("good.skm", file(t, nil))
		time.Sleep(time.Minute)
		_, err = c.Check(t.Context(), license.Query{Key: canary})
		require.ErrorContains(t, err, "which is a secret")
		texts = append(texts, err, c.Health())
		for _, text := range texts {
			require.Error(t, text)
			require.NotContains(t, text.Error(), "CANARY")
			require.NotContains(t, fmt.Sprintf("%+v", errors.Unwrap(text)), "CANARY")
		}
		require.NoError(t, c.Close())
		state, err := os.ReadFile(w.state)
		require.NoError(t, err)
		require.NotContains(t, string(state), "CANARY")
	})
}
