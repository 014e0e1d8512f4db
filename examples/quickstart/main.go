// Quickstart meters a small server that is killed in the middle of its work, and
// then compares what its clients counted with what was billed.
//
//	go run ./examples/quickstart
//
// Read server.go first: it is what you would write. The rest is proof: clients.go
// counts answers on the other side of the wire, bills.go reads the bills, and this
// file starts, kills and restarts the server's process.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

func main() {
	var err error
	if len(os.Args) > 2 { // started by run
		err = serve(os.Args[2], os.Args[1] == "serve-and-die")
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "meter-quickstart-")
	if err != nil {
		return err
	}
	if err := story(dir); err != nil {
		return fmt.Errorf("%w\n(counts and bills are kept in %s)", err, dir)
	}
	return os.RemoveAll(dir)
}

func story(dir string) error {
	fmt.Printf("Counts and bills are in %s while this runs.\n\n", dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	first, err := start(ctx, "serve-and-die", dir)
	if err != nil {
		return err
	}
	clients := use(first.url, 8, 1_000_000)
	if err := first.requireKilled(); err != nil {
		return err
	}
	early, err := readBills(billsPath(dir))
	if err != nil {
		return err
	}
	t := total(clients)
	fmt.Printf("1. The server's process killed itself (%v) in the middle of request %d.\n", first.process.ProcessState, t.sent)
	fmt.Printf("   Its clients had %d answers, %d requests were in flight; %d lines, each of a customer's requests of a second, were in the bill.\n\n", t.answered, t.sent-t.answered, early.lines)

	second, err := start(ctx, "serve", dir)
	if err != nil {
		return err
	}
	more := use(second.url, 8, 500)
	if err := second.stop(); err != nil {
		return err
	}
	add(clients, more)
	t = total(more)
	fmt.Printf("2. Another process opened the same directory: %d requests more, %d answers, then an orderly stop.\n\n", t.sent, t.answered)
	if t.sent != t.answered {
		return errors.New("the second server left requests without an answer")
	}
	return audit(dir, clients)
}

func audit(dir string, clients map[account]tally) error {
	fmt.Println("3. What the clients counted, and what the file bills. Each of its lines is the sum")
	fmt.Println("   of one customer's use of one feature in one window of time:")
	billed, err := readBills(billsPath(dir))
	if err != nil {
		return err
	}
	if err := compare(clients, billed); err != nil {
		return err
	}
	fmt.Print(`
   Everything answered was billed. A request in flight at the kill may be billed or
   not: it may have been done and counted, with only its answer lost. It can't be
   billed twice.

4. The meter's own books, read back from its directory:
`)
	m, err := open(dir)
	if err != nil {
		return err
	}
	books := m.Books()
	if err := m.Shutdown(context.Background()); err != nil {
		return err
	}
	fmt.Println(books)
	if err := check(books, billed); err != nil {
		return err
	}
	fmt.Printf("   They balance, and agree with the file: %d lines, every ID once.\n", billed.lines)
	return nil
}

// server is a child process that serves at url.
type server struct {
	process *exec.Cmd
	stdin   io.Closer
	url     string
}

func start(ctx context.Context, mode, dir string) (*server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{process: exec.CommandContext(ctx, program, mode, dir)}
	s.process.Stderr = os.Stderr
	if s.stdin, err = s.process.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the server did not start: %w", errors.Join(err, s.process.Wait()))
	}
	s.url = strings.TrimSpace(line)
	return s, nil
}

func (s *server) stop() error {
	return errors.Join(s.stdin.Close(), s.process.Wait())
}

func (s *server) requireKilled() error {
	err := s.process.Wait()
	if _, died := errors.AsType[*exec.ExitError](err); !died {
		return errors.Join(errors.New("the server should have died"), err)
	}
	if runtime.GOOS != "windows" && s.process.ProcessState.ExitCode() != -1 { // -1: by a signal
		return fmt.Errorf("the server should have been killed: %w", err)
	}
	return nil
}
