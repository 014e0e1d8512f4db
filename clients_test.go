package meter_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/internal/cryptolens"
	"github.com/inprocess/meter/license"
	cryptolenslicense "github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

// client sends one request with a secret in it to a server, over its own transport if
// through is nil.
type client func(ctx context.Context, url string, through http.RoundTripper) error

// clients are all parts of the library that speak to servers elsewhere.
func clients(t *testing.T) map[string]client {
	const stripeKey = "sk_test_canary"
	record := sink.Record{
		ID: "00-record-1", Feature: "f", Subject: "cus_1", Kind: sink.Sum, Quantity: 1, Attempt: 1,
		Start: time.Now().Add(-2 * time.Minute).Truncate(time.Minute), End: time.Now().Add(-time.Minute).Truncate(time.Minute),
	}
	publicKey := cryptolenstest.New().PublicKeyXML()
	over := func(through http.RoundTripper) *http.Client {
		if through == nil {
			return nil
		}
		return &http.Client{Transport: through}
	}
	deliver := func(ctx context.Context, s sink.Sink) error { return s.Deliver(ctx, []sink.Record{record}) }
	ask := func(ctx context.Context, c license.Checker) error {
		v, err := c.Check(ctx, license.Query{Key: license.NewKey("AAAAA-BBBBB-CCCCC-DDDDD"), Subject: "cus_1"})
		if err == nil {
			t.Errorf("an answer was believed: %v", v)
		}
		return err
	}
	return map[string]client{
		"stripesink": func(ctx context.Context, url string, through http.RoundTripper) error {
			return deliver(ctx, stripesink.New(stripesink.Config{Key: stripeKey, BaseURL: url, HTTPClient: over(through), Meters: map[string]stripesink.Meter{"f": {EventName: "f"}}}))
		},
		"license/stripe": func(ctx context.Context, url string, through http.RoundTripper) error {
			return ask(ctx, stripelicense.NewChecker(stripelicense.Config{Key: stripeKey, BaseURL: url, HTTPClient: over(through)}))
		},
		"license/cryptolens": func(ctx context.Context, url string, through http.RoundTripper) error {
			return ask(ctx, cryptolenslicense.NewChecker(cryptolenslicense.Config{Token: "canary", ProductID: 1, PublicKeys: []string{publicKey}, BaseURL: url, HTTPClient: over(through)}))
		},
		"cryptolens.Client": func(ctx context.Context, url string, through http.RoundTripper) error {
			c := cryptolenslicense.NewClient(cryptolenslicense.ClientConfig{Token: "canary", BaseURL: url, HTTPClient: over(through)})
			return c.RecordUsage(ctx, 1, license.NewKey("AAAAA-BBBBB-CCCCC-DDDDD"), 1)
		},
		"httpsink": func(ctx context.Context, url string, through http.RoundTripper) error {
			return deliver(ctx, httpsink.New(httpsink.Config{URL: url, Secret: strings.Repeat("canary", 5), Token: "canary", Transport: through}))
		},
	}
}

func eachClient(t *testing.T, test func(t *testing.T, send client)) {
	for name, send := range clients(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, send)
		})
	}
}

// atMost is a context that ends a test that would hang.
func atMost(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestNoClientFollowsARedirect(t *testing.T) {
	t.Parallel()
	eachClient(t, func(t *testing.T, send client) {
		var elsewhere, here atomic.Int32
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
		t.Cleanup(other.Close)
		for status := 300; status <= 308; status++ {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				here.Add(1)
				w.Header().Set("Location", other.URL)
				w.WriteHeader(status)
			}))
			require.Error(t, send(atMost(t), server.URL, nil), status)
			require.Error(t, send(atMost(t), server.URL, server.Client().Transport), status)
			server.Close()
		}
		require.GreaterOrEqual(t, here.Load(), int32(18))
		require.Zero(t, elsewhere.Load(), "another host got a secret")
	})
}

func TestNoClientReadsWithoutEnd(t *testing.T) {
	t.Parallel()
	begin, zeros := []byte(`{"object":"`), make([]byte, 1<<20)
	for name, pieces := range map[string][2][]byte{
		"":     {begin, zeros},
		"gzip": {zipped(begin), zipped(zeros)}, // a kilobyte that becomes a megabyte
	} {
		t.Run("encoding "+name, func(t *testing.T) {
			t.Parallel()
			eachClient(t, func(t *testing.T, send client) {
				stopped := make(chan bool, 8)
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if name != "" {
						w.Header().Set("Content-Encoding", name)
					}
					_, err := w.Write(pieces[0])
					for err == nil && r.Context().Err() == nil {
						_, err = w.Write(pieces[1])
					}
					stopped <- true
				}))
				t.Cleanup(server.Close)
				err := send(atMost(t), server.URL, nil)
				require.Error(t, err)
				require.NotContains(t, err.Error(), "deadline exceeded", "it read until the end of time")
				<-stopped
			})
		})
	}
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func TestNoClientReadsHeadersWithoutEnd(t *testing.T) {
	t.Parallel()
	eachClient(t, func(t *testing.T, send client) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					asked, err := http.ReadRequest(bufio.NewReader(conn))
					if err == nil {
						_, err = io.Copy(io.Discard, asked.Body)
					}
					if err == nil {
						_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
					}
					for i := 0; err == nil; i++ {
						_, err = fmt.Fprintf(conn, "X-%d: %s\r\n", i, strings.Repeat("x", 1000))
					}
				}()
			}
		}()
		err = send(atMost(t), "http://"+l.Addr().String(), nil)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "deadline exceeded")
	})
}

// A server that sends a byte now and then keeps nobody longer than its context.
func TestNoClientOutlastsItsContext(t *testing.T) {
	t.Parallel()
	eachClient(t, func(t *testing.T, send client) {
		ctx, cancel := context.WithCancel(atMost(t))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"object":"`)
			_ = http.NewResponseController(w).Flush()
			cancel()
			<-r.Context().Done()
		}))
		t.Cleanup(server.Close)
		require.Error(t, send(ctx, server.URL, nil))
	})
}

func TestNoClientBelievesABadCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	eachClient(t, func(t *testing.T, send client) {
		for name, test := range map[string]struct {
			served  *tls.Config
			trusted bool // the authority is, by a transport of one's own
		}{
			"unknown authority": {&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))}}, false},
			"another's":         {&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "192.0.2.1", time.Now().Add(time.Hour))}}, true},
			"expired":           {&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Now().Add(-time.Hour))}}, true},
			"TLS 1.1": {&tls.Config{
				Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))},
				MinVersion:   tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
			}, false},
		} {
			var requests atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
			server.TLS = test.served
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			var through http.RoundTripper
			if test.trusted {
				through = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}}
			}
			require.Error(t, send(atMost(t), server.URL, through), name)
			require.Zero(t, requests.Load(), "%s: a secret was sent", name)
			server.Close()
		}
	})
	// The test's own certificates are good enough.
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))}}
	server.StartTLS()
	t.Cleanup(server.Close)
	good := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}}}
	response, err := good.Get(server.URL)
	require.NoError(t, err)
	response.Body.Close()
}

// Keys and tokens must not travel in clear, however the address is spelled.
func TestNoClientSendsSecretsInClear(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://192.0.2.1", "HTTP://billing.example", "http://localhost.example", "http://127.0.0.1.example"} {
		require.Error(t, stripesink.New(stripesink.Config{Key: "sk_test_1", BaseURL: url, Meters: map[string]stripesink.Meter{"f": {EventName: "f"}}}).Validate(), url)
		require.Error(t, stripelicense.NewChecker(stripelicense.Config{Key: "sk_test_1", BaseURL: url}).Validate(), url)
		require.Error(t, cryptolens.CheckURL(url, false), url)
		require.Error(t, httpsink.New(httpsink.Config{URL: url, Secret: strings.Repeat("x", 32)}).Validate(), url)
	}
}

// authority issues certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	ca := &authority{key, cert, x509.NewCertPool()}
	ca.pool.AddCert(cert)
	return ca
}

func (ca *authority) issue(t *testing.T, ip string, until time.Time) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
