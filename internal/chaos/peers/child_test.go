package peers

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/posthog/posthog-go"
	"gopkg.in/segmentio/analytics-go.v3"
)

const (
	childEnv = "METER_PEER_CHILD" // the library
	urlEnv   = "METER_PEER_URL"
	dirEnv   = "METER_PEER_DIR"
	drainEnv = "METER_PEER_DRAIN" // count nothing, deliver what is left, and end
	secret   = "0123456789abcdef0123456789abcdef"
	customer = "cus_1"
	feature  = "calls"
)

// counter is a library in a process that counts.
type counter struct {
	count func(id string) error // one call
	close func() error
}

// libraries are made as their documentation shows it, to deliver often.
var libraries = map[string]func(url, dir string) (counter, error){
	"meter": func(url, dir string) (counter, error) {
		m, err := meter.Open(meter.Config{
			Dir: dir, Window: time.Second, Logger: slog.New(slog.DiscardHandler),
			Sinks: []meter.Route{{Name: "licensing", Sink: httpsink.New(httpsink.Config{URL: url + "/meter", Secret: secret})}},
		})
		if err != nil {
			return counter{}, err
		}
		calls := m.Feature(feature)
		return counter{
			func(string) error { return calls.Add(context.Background(), customer, 1) },
			func() error {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				return m.Shutdown(ctx)
			},
		}, nil
	},
	"segment analytics-go 3.1.0": func(url, _ string) (counter, error) {
		client, err := analytics.NewWithConfig("key", analytics.Config{Endpoint: url, Interval: time.Second, Logger: silent{}})
		return counter{func(id string) error {
			return client.Enqueue(analytics.Track{MessageId: id, UserId: customer, Event: feature})
		}, client.Close}, err
	},
	"posthog-go 1.5.2": func(url, _ string) (counter, error) {
		client, err := posthog.NewWithConfig("key", posthog.Config{Endpoint: url, Interval: time.Second, Logger: silent{}})
		return counter{func(id string) error {
			return client.Enqueue(posthog.Capture{Uuid: id, DistinctId: customer, Event: feature})
		}, client.Close}, err
	},
}

type silent struct{}

func (silent) Logf(string, ...any)   {}
func (silent) Debugf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Errorf(string, ...any) {}

// TestMain also is the main function of every child, which writes a line for each count
// that its library has taken.
func TestMain(m *testing.M) {
	library, isChild := os.LookupEnv(childEnv)
	if !isChild {
		os.Exit(m.Run())
	}
	if err := count(library); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func count(library string) error {
	c, err := libraries[library](os.Getenv(urlEnv), filepath.Join(os.Getenv(dirEnv), "usage"))
	if err != nil {
		return err
	}
	if os.Getenv(drainEnv) != "" {
		return c.close()
	}
	process := strconv.Itoa(os.Getpid())
	for i := 0; ; i++ {
		if err := c.count(fmt.Sprintf("%08s-0000-4000-8000-%012d", process, i)); err != nil {
			return err
		}
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
}
