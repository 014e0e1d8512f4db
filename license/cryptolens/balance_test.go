package cryptolens_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

const credits = "credits"

// shop is a vendor whose customers buy credits.
type shop struct {
	*cryptolenstest.Server
	t    *testing.T
	keys map[string]string // by subject
}

func newShop(t *testing.T) *shop {
	s := &shop{cryptolenstest.New(), t, map[string]string{}}
	s.newKey("acme")
	return s
}

func (s *shop) newKey(subject string) {
	s.keys[subject] = s.AddKey(cryptolenstest.Key{ProductID: 3646}).Key
}

func (s *shop) has(subject string, n int64) {
	s.AddDataObject(3646, s.keys[subject], "", cryptolenstest.DataObject{Name: credits, Int: n})
	s.AddDataObject(3646, s.keys[subject], "", cryptolenstest.DataObject{Name: credits + "-of-another", Int: 7})
}

// set is what happens behind meter's back.
func (s *shop) set(subject string, change func(int64) int64) {
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "t", BaseURL: cryptolenstest.URL, HTTPClient: s.Client()})
	require.NoError(s.t, client.SetInt(s.t.Context(), cryptolens.Owner{ProductID: 3646, Key: license.NewKey(s.keys[subject])},
		cryptolens.Ref{Name: credits}, change(s.left(subject))))
}

func (s *shop) left(subject string) int64 {
	for _, o := range s.DataObjects(3646, s.keys[subject], "") {
		if o.Name == credits {
			return o.Int
		}
	}
	return 0
}

func (s *shop) balance(change ...func(*cryptolens.BalanceConfig)) *cryptolens.Balance {
	cfg := cryptolens.BalanceConfig{Token: "tokencanary", ProductID: 3646, Object: credits, BaseURL: cryptolenstest.URL, HTTPClient: s.Client(),
		Key: func(_ context.Context, subject string) (license.Key, error) {
			return license.NewKey(s.keys[subject]), nil
		}}
	for _, c := range change {
		c(&cfg)
	}
	b := cryptolens.NewBalance(cfg)
	require.NoError(s.t, b.Validate())
	return b
}

func sole(c *cryptolens.BalanceConfig) { c.Sole = true }

func transfer(t *testing.T, b *cryptolens.Balance, n int64, back bool) license.Transfer {
	before, err := b.Read(t.Context(), "acme")
	require.NoError(t, err)
	return license.Transfer{ID: "T1", Feature: "f", Subject: "acme", Units: n, Back: back, Before: before, At: time.Now()}
}

type outcome string

const (
	done        outcome = "done"
	notApplied  outcome = "not applied"
	undecidable outcome = "undecidable"
	untold      outcome = "untold"
)

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, license.ErrNotApplied):
		return notApplied
	case errors.Is(err, license.ErrUndecidable):
		return undecidable
	}
	return untold
}

func TestBalance(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	b := s.balance()
	funds, err := b.Read(t.Context(), "acme")
	require.NoError(t, err)
	require.Zero(t, funds, "nothing was ever bought")
	require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), license.Transfer{Subject: "acme", Units: 1})))
	s.has("acme", 100)
	require.NoError(t, b.Move(t.Context(), transfer(t, b, 30, false)))
	require.EqualValues(t, 70, s.left("acme"))
	require.NoError(t, b.Move(t.Context(), transfer(t, b, 20, true)))
	require.EqualValues(t, 90, s.left("acme"))
	require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), transfer(t, b, 91, false))), "never below 0")
	require.EqualValues(t, 90, s.left("acme"))
	s.has("acme", 1)
	_, err = b.Read(t.Context(), "acme")
	require.ErrorContains(t, err, "2 data objects have the name")
}

// Every fault, before and after the API has worked on the request, with every thing that
// may happen meanwhile: nothing is taken for more than it is.
func TestTransfersUnderFaults(t *testing.T) {
	t.Parallel()
	answers := []cryptolenstest.Answer{cryptolenstest.AsUsual, cryptolenstest.Drop, cryptolenstest.Error500,
		cryptolenstest.Hang, cryptolenstest.Truncated}
	const before, n = 100, 30
	for _, alone := range []bool{true, false} {
		for _, back := range []bool{false, true} {
			for _, answer := range answers {
				for _, applied := range []bool{false, true} {
					for _, bought := range []int64{0, 5, n, n + 1} {
						for _, reads := range []bool{true, false} { // the first reading of what became of it
							name := fmt.Sprintf("sole %v, back %v, %v, applied %v, %d bought, read %v", alone, back, answer, applied, bought, reads)
							synctest.Test(t, func(t *testing.T) {
								s := newShop(t)
								s.has("acme", before)
								b := s.balance(func(c *cryptolens.BalanceConfig) { c.Sole = alone })
								tr := transfer(t, b, n, back)
								s.Script(cryptolenstest.Fault{Answer: answer, Applied: applied, On: "crementIntValue"})
								if !reads {
									s.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, On: "ListDataObjects"})
								}
								got := outcomeOf(b.Move(t.Context(), tr))
								s.set("acme", func(left int64) int64 { return left + bought })
								for range 5 {
									if got != untold {
										break
									}
									time.Sleep(30 * time.Second)
									tr.Doubt = true
									got = outcomeOf(b.Move(t.Context(), tr))
								}
								moved := s.left("acme")-bought != before
								switch got {
								case done: // a draw that is taken for done never makes units
									require.True(t, moved || back && bought == n, name)
								case notApplied: // nor does a return that is taken for not done
									require.True(t, !moved || !back && bought == n && !reads, name)
								case undecidable:
									require.True(t, !alone || bought > 0, name)
								default:
									t.Fatal(name, "never settled")
								}
								if answer == cryptolenstest.AsUsual {
									require.Equal(t, done, got, name)
								}
							})
						}
					}
				}
			}
		}
	}
}

// A request that arrives late finds its bound, or is waited for.
func TestLateRequest(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.has("acme", 100)
			b := s.balance(sole)
			tr := transfer(t, b, 30, back)
			s.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, On: "crementIntValue"})
			err := b.Move(t.Context(), tr)
			require.Equal(t, untold, outcomeOf(err))
			wait, ok := errors.AsType[interface {
				error
				RetryAfter() time.Duration
			}](err)
			require.True(t, ok)
			require.InDelta(t, 68*time.Second, wait.RetryAfter(), float64(time.Second))
			time.Sleep(40 * time.Second)
			tr.Doubt = true
			require.Equal(t, untold, outcomeOf(b.Move(t.Context(), tr)))
			s.set("acme", func(left int64) int64 { // as if it came now
				if back {
					return left + 30
				}
				return left - 30
			})
			require.Equal(t, done, outcomeOf(b.Move(t.Context(), tr)))
		})
	}
}

// What was to begin long ago, and was sent a moment ago, is waited for all the same.
func TestRequestThatWasSentLate(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.has("acme", 100)
			b := s.balance(sole)
			tr := transfer(t, b, 30, back)
			time.Sleep(70 * time.Second) // a slow disk, a machine that was suspended
			s.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, On: "crementIntValue"})
			require.Equal(t, untold, outcomeOf(b.Move(t.Context(), tr)))
		})
	}
}

// Where others draw, too, the number tells nothing of a draw without an answer.
func TestSharedDoubtIsNotRead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.has("acme", 100)
	b := s.balance()
	tr := transfer(t, b, 30, false)
	other := transfer(t, b, 30, false)
	require.NoError(t, b.Move(t.Context(), other))
	tr.Doubt = true // it was lost on the way
	require.Equal(t, undecidable, outcomeOf(b.Move(t.Context(), tr)), "or both would have the 30 that are missing")
	require.EqualValues(t, 70, s.left("acme"))
}

// What the API refuses in words of its own was not done.
func TestRefusedTransfers(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{true, false} {
		s := newShop(t)
		s.has("acme", 100)
		b := s.balance(func(c *cryptolens.BalanceConfig) { c.Sole = alone })
		draw := transfer(t, b, 30, false)
		s.set("acme", func(int64) int64 { return 29 }) // somebody else has drawn
		require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), draw)))
		give := transfer(t, b, 30, true)
		s.set("acme", func(int64) int64 { return 1<<31 - 1 })
		require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), give)))
		s.set("acme", func(int64) int64 { return 100 })
		for _, message := range []string{"Access denied.", "Could not find the key.", "made up"} {
			s.Script(cryptolenstest.Fault{Answer: cryptolenstest.Refused, Message: message, On: "Decrement"})
			require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), transfer(t, b, 30, false))), message)
		}
		s.Script(cryptolenstest.Fault{Answer: cryptolenstest.Refused, Message: "made up", On: "Decrement", Applied: true})
		want := map[bool]outcome{true: undecidable, false: notApplied}[alone]
		require.Equal(t, want, outcomeOf(b.Move(t.Context(), transfer(t, b, 30, false))))
		s.SetDown(true)
		draw = license.Transfer{Feature: "f", Subject: "acme", Units: 1}
		require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), draw)), "it was not sent")
		draw.Doubt = true
		if alone {
			require.Equal(t, untold, outcomeOf(b.Move(t.Context(), draw)))
		}
	}
}

// Another key's data object tells nothing.
func TestKeyChangesMeanwhile(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.has("acme", 100)
	b := s.balance(sole)
	tr := transfer(t, b, 30, false)
	tr.Doubt = true
	s.newKey("acme")
	require.Equal(t, undecidable, outcomeOf(b.Move(t.Context(), tr)))
	s.has("acme", 90)
	require.Equal(t, undecidable, outcomeOf(b.Move(t.Context(), tr)))
}

func TestSoleIsKept(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.has("acme", 100)
	b := s.balance(sole)
	require.NoError(t, b.Move(t.Context(), transfer(t, b, 1, false)))
	for _, change := range []func(*license.Transfer){
		func(tr *license.Transfer) { tr.Feature = "g" },
		func(tr *license.Transfer) { tr.Subject = "acme 2"; s.keys["acme 2"] = s.keys["acme"] },
	} {
		tr := transfer(t, b, 1, false)
		change(&tr)
		err := b.Move(t.Context(), tr)
		require.Equal(t, notApplied, outcomeOf(err))
		require.ErrorContains(t, err, "leave BalanceConfig.Sole false")
	}
}

func TestBalanceConfig(t *testing.T) {
	t.Parallel()
	b := cryptolens.NewBalance(cryptolens.BalanceConfig{Timeout: -1, BaseURL: "ftp://x"})
	for _, want := range []string{"BalanceConfig.Token is empty", ".ProductID is 0", ".Key is nil", ".Object has 0 characters", ".Timeout", ".BaseURL"} {
		require.ErrorContains(t, b.Validate(), want)
	}
	require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), license.Transfer{})))
	_, err := b.Read(t.Context(), "acme")
	require.ErrorContains(t, err, "the configuration is faulty")
	require.Equal(t, "cryptolens:3646/data/credits", fmt.Sprint(newShop(t).balance()))
}

// Neither token nor key shows in an error or a printed value, however broken the server.
func TestBalanceHidesSecrets(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.has("acme", 100)
	key := s.keys["acme"]
	var cfg cryptolens.BalanceConfig
	b := s.balance(func(c *cryptolens.BalanceConfig) { c.Sole = true; cfg = *c })
	text := fmt.Sprintf("%v %+v %#v %v", cfg, cfg, cfg, b)
	tr := transfer(t, b, 1, false)
	s.Script(cryptolenstest.Fault{Answer: cryptolenstest.Refused, Message: "no " + key + " and tokencanary", On: "Decrement"})
	text += fmt.Sprint(b.Move(t.Context(), tr))
	s.SetDown(true)
	_, err := b.Read(t.Context(), "acme")
	text += fmt.Sprint(err, b.Move(t.Context(), tr))
	require.NotContains(t, text, key)
	require.NotContains(t, text, "tokencanary")
	for _, give := range []func(context.Context, string) (license.Key, error){
		func(context.Context, string) (license.Key, error) { return license.Key{}, errors.New("db down") },
		func(context.Context, string) (license.Key, error) { return license.Key{}, nil },
	} {
		b = s.balance(func(c *cryptolens.BalanceConfig) { c.Key = give })
		_, err := b.Read(t.Context(), "acme")
		require.ErrorContains(t, err, `no license key for subject "acme"`)
		require.Equal(t, notApplied, outcomeOf(b.Move(t.Context(), license.Transfer{Subject: "acme"})))
		require.Equal(t, untold, outcomeOf(b.Move(t.Context(), license.Transfer{Subject: "acme", Doubt: true})))
	}
}

// What is sent is bounded, and names the data object.
func TestTransfersAreBounded(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{true, false} {
		s := newShop(t)
		s.has("acme", 100)
		var seen []string
		b := s.balance(func(c *cryptolens.BalanceConfig) {
			c.Sole = alone
			c.HTTPClient = &http.Client{Transport: watch{s.Client().Transport, func(r *http.Request, form url.Values) {
				if strings.Contains(r.URL.Path, "crement") {
					seen = append(seen, fmt.Sprint(form["IntValue"], form["EnableBound"], form["Bound"], form["Name"], form["Id"]))
				}
			}}}
		})
		require.NoError(t, b.Move(t.Context(), transfer(t, b, 30, false)))
		require.NoError(t, b.Move(t.Context(), transfer(t, b, 10, true)))
		want := []string{"[30] [true] [0] [credits] []", "[10] [] [] [credits] []"}
		if alone {
			want = []string{"[30] [true] [70] [credits] []", "[10] [true] [80] [credits] []"}
		}
		require.Equal(t, want, seen)
	}
}

// watch looks at what is sent.
type watch struct {
	to  http.RoundTripper
	see func(r *http.Request, form url.Values)
}

func (w watch) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	w.see(r, form)
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return w.to.RoundTrip(r)
}
