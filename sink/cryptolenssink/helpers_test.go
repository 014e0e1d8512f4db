package cryptolenssink_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/stretchr/testify/require"
)

const (
	product = 3646
	token   = "tokencanary4711"
	feature = "tax-report"
	subject = "acme"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// vendor has a key for every subject that is asked for.
type vendor struct {
	*cryptolenstest.Server
	mu    sync.Mutex
	known map[string]bool
}

func newVendor() *vendor {
	v := &vendor{Server: cryptolenstest.New(), known: map[string]bool{}}
	v.AddToken(token)
	return v
}

// keyText is a subject's key.
func (v *vendor) keyText(subject string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	sum := sha256.Sum256([]byte(subject))
	text := "KEYCANARY-" + hex.EncodeToString(sum[:])
	if !v.known[text] {
		v.known[text] = true
		v.AddKey(cryptolenstest.Key{ProductID: product, Key: text})
	}
	return text
}

func (v *vendor) key(_ context.Context, subject string) (license.Key, error) {
	return license.NewKey(v.keyText(subject)), nil
}

// total is what was recorded for a subject.
func (v *vendor) total(subject string) int64 { return v.Total(product, v.keyText(subject)) }

func (v *vendor) config() cryptolenssink.Config {
	return cryptolenssink.Config{Token: token, ProductID: product, Key: v.key, BaseURL: cryptolenstest.URL, HTTPClient: v.Client(),
		Features: []string{feature}}
}

func (v *vendor) sink(change ...func(*cryptolenssink.Config)) *cryptolenssink.Sink {
	cfg := v.config()
	for _, c := range change {
		c(&cfg)
	}
	return cryptolenssink.New(cfg)
}

// record is the nth of a series.
func record(n int, quantity int64) sink.Record {
	start := noon.Add(time.Duration(n) * time.Minute)
	return sink.Record{ID: fmt.Sprintf("01-%d", n), Feature: feature, Subject: subject, Quantity: quantity,
		Start: start, End: start.Add(time.Minute), Attempt: 1}
}

func again(r sink.Record) sink.Record {
	r.Attempt++
	r.Doubt = true
	return r
}

// outcomes are what the records of a batch were answered.
func outcomes(t *testing.T, err error, n int) []error {
	t.Helper()
	if err == nil {
		return make([]error, n)
	}
	batch, ok := err.(*sink.BatchError)
	require.True(t, ok, "%v", err)
	require.Len(t, batch.Errs, n)
	return batch.Errs
}

func requireDoubt(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, sink.ErrNotApplied)
	require.NotErrorIs(t, err, sink.ErrRejected)
}

const object = "reports"

func (v *vendor) countersConfig() cryptolenssink.CountersConfig {
	return cryptolenssink.CountersConfig{Token: token, ProductID: product, Key: v.key, BaseURL: cryptolenstest.URL, HTTPClient: v.Client(),
		Objects: map[string]string{feature: object, "seats": "seats"}}
}

func (v *vendor) counters(change ...func(*cryptolenssink.CountersConfig)) *cryptolenssink.Counters {
	cfg := v.countersConfig()
	for _, c := range change {
		c(&cfg)
	}
	return cryptolenssink.NewCounters(cfg)
}

// count is the number of a subject's data object; 0 if there is none.
func (v *vendor) count(subject, object string) int64 {
	for _, o := range v.DataObjects(product, v.keyText(subject), "") {
		if o.Name == object {
			return o.Int
		}
	}
	return 0
}
