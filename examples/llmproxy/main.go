// Llmproxy sells tokens: it passes a model's stream on as server-sent events, and how
// many tokens an answer takes is known when it has ended. Each request reserves what it
// may take at most, and is billed what it took, also when its client leaves midway.
//
//	go run ./examples/llmproxy
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/memsink"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "llmproxy:", err)
		os.Exit(1)
	}
}

func run() error {
	bills := memsink.New()
	p, err := newProxy(meter.Config{
		Dir:   meter.InMemory, // "usage" in a real program: a directory survives crashes
		Sinks: []meter.Route{{Name: "memory", Sink: bills}},
	})
	if err != nil {
		return err
	}
	server := httptest.NewServer(p.handler())
	defer server.Close()

	fmt.Printf("ada has bought %d tokens a month. A request reserves %d.\n\n", included, most)
	for _, prompt := range []string{"hello", "a long story", "leaves midway", "hello", "hello"} {
		if err := p.ask(server.URL, prompt); err != nil {
			return err
		}
	}
	res, err := get(context.Background(), server.URL+"/usage")
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	fmt.Printf("\nWhat ada sees at /usage:\n%s", withoutPeriod(string(body)))

	total := p.tokens.Total("ada")
	if err := p.meter.Shutdown(context.Background()); err != nil {
		return err
	}
	fmt.Printf("\nBilled to ada: %d tokens\n", bills.Total("tokens", "ada"))
	if bills.Total("tokens", "ada") != total.Quantity || total.Held != 0 {
		return fmt.Errorf("billed %d, counted %+v", bills.Total("tokens", "ada"), total)
	}
	return nil
}

// ask is a client: it reads the stream to its end, or leaves midway.
func (p *proxy) ask(url, prompt string) error {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	res, err := get(ctx, url+"/chat?q="+strings.ReplaceAll(prompt, " ", "+"))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(res.Body)
		<-p.ended
		fmt.Printf("%-14s %d %s", prompt, res.StatusCode, withoutPeriod(string(body)))
		return err
	}
	told := res.Header.Get("RateLimit")
	tokens := 0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "data: ") {
			continue
		}
		if tokens++; prompt == "leaves midway" && tokens == 100 {
			leave()
			break
		}
	}
	<-p.ended // the handler notices a client that has left a little later
	t := p.tokens.Total("ada")
	left, _, _ := strings.Cut(told, ";t=") // which depends on the day
	fmt.Printf("%-14s %d got %3d tokens; told %s; then %d used, %d held, %d left\n",
		prompt, res.StatusCode, tokens, left, t.Quantity, t.Held, t.Left())
	return nil
}

func get(ctx context.Context, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Tenant", "ada") // a real program authenticates
	return http.DefaultClient.Do(r)
}

// withoutPeriod leaves out what depends on the day.
func withoutPeriod(body string) string {
	month := time.Now().UTC()
	first := time.Date(month.Year(), month.Month(), 1, 0, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{first, first.AddDate(0, 1, 0)} {
		body = strings.ReplaceAll(body, at.Format(time.RFC3339), "…")
	}
	return body
}
