package mocktest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// version is the first with billing meters; its specification is of 2024-04-10,
// the next one after the version that the SDK pins.
const version = "v0.185.0"

// programs is where install puts stripe-mock; TestMain owns it.
var programs string

// install fetches stripe-mock, outside of any module or workspace.
var install = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/stripe/stripe-mock@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+programs, "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("installing stripe-mock: %w: %s", err, lastLine(string(out)))
	}
	return nil
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "stripe-mock")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// startMock starts stripe-mock on a Unix socket, which needs no port that might be
// taken, and returns a transport that leads to it from any address.
func startMock(t *testing.T) http.RoundTripper {
	t.Helper()
	if testing.Short() {
		t.Skip("stripe-mock takes a minute to build; run without -short")
	}
	if err := install(); err != nil {
		t.Skip(err)
	}
	short, err := os.MkdirTemp("", "mock") // a socket's path has about 100 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	socket := filepath.Join(short, "socket")

	mock := exec.CommandContext(t.Context(), filepath.Join(programs, "stripe-mock"), "-http-unix", socket)
	mock.Stderr = os.Stderr
	out, err := mock.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, mock.Start())
	t.Cleanup(func() { _ = mock.Wait() }) // its context has ended by then, so it was killed

	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "Listening for HTTP on Unix socket") {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the program
			return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}}
		}
	}
	t.Fatalf("stripe-mock ended before it listened: %v", lines.Err())
	return nil
}
