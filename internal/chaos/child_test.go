package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/filesink"
	"github.com/inprocess/meter/sink/httpsink"
)

// order tells a child what to do.
type order struct {
	Root      string // has the sink's file, and the ledger
	Ledger    string // has the ledger instead, on a disk whose power may be cut
	URL       string // of a biller that takes records over HTTP, instead of the sink's file
	Seed      uint64
	Level     int64 // levels of a Last begin above it, so that they only rise
	Subject   uint32
	Sync      time.Duration
	Fault     fault
	Retain    time.Duration
	Script    bool // count a little, flush, shut down and end
	Linger    bool // not before a window has ended
	Restarts  bool // shut down and open again every now and then
	Queue     bool // consume messages, in [From, To)
	From, To  int
	Quota     *license.Quota // make calls until it is used up
	Faulty    bool           // the disk may fail: count nothing in memory, and take a failure for an end
	Premature bool           // acknowledge before counting: a lie that the oracle must find
}

const orderEnv = "METER_KILL_CHILD"

// TestMain also is the main function of every child.
func TestMain(m *testing.M) {
	text, isChild := os.LookupEnv(orderEnv)
	if !isChild {
		// These tests wait for seconds to end, most of the time.
		flag.Parse()
		if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
			_ = f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
		}
		os.Exit(m.Run())
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	switch {
	case err != nil:
	case o.Queue:
		err = o.consume()
	case o.Quota != nil:
		err = o.useUp()
	default:
		err = newChild(o).run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// config is the same for children and parent: they share the directory.
func (o order) config(life uint64) meter.Config {
	var biller sink.Sink
	if o.URL == "" {
		biller = o.file(life)
	} else {
		biller = httpsink.New(httpsink.Config{URL: o.URL, Secret: billerSecret, DedupeWindow: sink.Forever})
	}
	return meter.Config{
		Dir:            cmp.Or(o.Ledger, filepath.Join(o.Root, "ledger")),
		Sinks:          []meter.Route{{Name: "file", Sink: biller}},
		Identify:       bySubject,
		Logger:         warnings(os.Stderr),
		RefuseWhenFull: o.Faulty,
		Retain:         o.Retain,
		Sync:           o.Sync,
		Window:         time.Second,
	}
}

// file is where usage is billed, and its witness.
func (o order) file(life uint64) *witness {
	file := filesink.New(filesink.Config{Path: filepath.Join(o.Root, "usage.jsonl"), MaxSize: 8 << 10, LockWait: 10 * time.Second})
	return newWitness(file, o.Root, o.Fault, o.Seed+life)
}

const billerSecret = "shared by child and parent"

func warnings(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func bySubject(r *http.Request) (meter.Caller, error) {
	return meter.Caller{Subject: r.Header.Get("Subject")}, nil
}

type child struct {
	order order
	pipe  pipe
	level atomic.Int64
	next  atomic.Uint32 // subject never seen before
}

func newChild(o order) *child {
	c := &child{order: o, pipe: pipe{os.Stdout}}
	c.level.Store(o.Level)
	c.next.Store(o.Subject)
	return c
}

func (c *child) run() error {
	c.pipe.send(note{kind: started})
	for life := uint64(0); ; life++ {
		m, err := meter.Open(c.order.config(life))
		if err != nil && c.order.Faulty {
			fmt.Fprintln(os.Stderr, err)
			return nil
		}
		if err != nil {
			return err
		}
		c.pipe.send(note{kind: ready})
		if c.order.Script {
			return c.script(m)
		}
		if err := c.live(m, rand.New(rand.NewPCG(c.order.Seed, life))); err != nil {
			return err
		}
	}
}

// live counts from all sides until it shuts down in the midst of it.
func (c *child) live(m *meter.Meter, rng *rand.Rand) error {
	jobs := []func(*worker){
		(*worker).requests, (*worker).requests,
		(*worker).units, (*worker).bursts, (*worker).bursts,
		(*worker).fresh, (*worker).levels,
	}
	if c.order.Ledger != "" { // which need an answer that says whether a count is safe, and few units
		jobs = []func(*worker){(*worker).units, (*worker).units, (*worker).fresh, (*worker).fresh, (*worker).levels}
	}
	var counting sync.WaitGroup
	for i, job := range jobs {
		w := newWorker(c, m, uint8(i), rng.Uint64())
		counting.Go(func() {
			for !w.closed {
				job(w)
			}
		})
	}
	stop, cancel := context.WithCancel(context.Background())
	flushes := rand.New(rand.NewPCG(rng.Uint64(), 0))
	counting.Go(func() {
		for stop.Err() == nil {
			ctx, done := context.WithTimeout(stop, time.Duration(flushes.IntN(100))*time.Millisecond)
			_ = m.Flush(ctx) // what it leaves open is another process's business
			done()
			time.Sleep(time.Duration(flushes.IntN(20)) * time.Millisecond)
		}
	})
	if !c.order.Restarts {
		counting.Wait() // for ever
	}
	time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
	patience := time.Duration(0)
	if rng.IntN(2) == 0 {
		patience = 2 * time.Second
	}
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	err := m.Shutdown(ctx)
	cancel()
	counting.Wait()
	var left *meter.ShutdownError
	if errors.As(err, &left) && left.Durable {
		return nil
	}
	return err
}

// script does little enough to be killed at every step.
func (c *child) script(m *meter.Meter) error {
	w := newWorker(c, m, 0, c.order.Seed)
	for range 4 {
		w.requests()
		w.units()
		w.fresh()
		w.fresh()
		w.levels()
	}
	// A sink that fails leaves records open; their time comes when all is opened again.
	_ = m.Flush(context.Background())
	if c.order.Linger { // a window ends, and what was settled is tidied away
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1020 * time.Millisecond)))
	}
	w.units()
	w.levels()
	ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	err := m.Shutdown(ctx)
	var left *meter.ShutdownError
	if errors.As(err, &left) && left.Durable {
		err = nil
	}
	if c.order.Faulty && left != nil && left.Pending == 0 {
		err = nil // it cost no count
	}
	c.pipe.send(note{kind: ended})
	return err
}

// worker is one goroutine that counts.
type worker struct {
	child    *child
	meter    *meter.Meter
	id       uint8
	rng      *rand.Rand
	features [len(features)]*meter.Feature
	handler  http.Handler
	counter  *meter.Counter
	last     uint32
	closed   bool
}

func newWorker(c *child, m *meter.Meter, id uint8, seed uint64) *worker {
	w := &worker{child: c, meter: m, id: id, rng: rand.New(rand.NewPCG(seed, uint64(id)))}
	for i, f := range features {
		w.features[i] = m.Feature(f.name, meter.Kind(f.kind))
	}
	w.handler = meter.Middleware(w.features[requests])(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.Header.Get("Quantity"), 10, 64)
		if err := meter.SetQuantity(r.Context(), n); err != nil {
			panic(err)
		}
	}))
	w.counter = w.features[units].Counter(subjectName(0))
	return w
}

// count tells the parent before and after. act returns how much it counted.
func (w *worker) count(before note, act func() (int64, error)) {
	before.worker = w.id
	after := before
	after.kind = counted
	w.child.pipe.send(before)
	if w.child.order.Premature {
		w.child.pipe.send(after)
		time.Sleep(time.Millisecond)
	}
	n, err := act()
	after.n = n
	switch {
	case errors.Is(err, meter.ErrUnsynced):
		after.kind = unsynced
	case err != nil:
		w.closed = w.closed || errors.Is(err, meter.ErrClosed)
		after.kind = refused
	}
	if !w.child.order.Premature {
		w.child.pipe.send(after)
	}
}

// all makes a count of n that is counted as a whole or not at all.
func all(n int64, act func() error) func() (int64, error) {
	return func() (int64, error) { return n, act() }
}

func (w *worker) requests() {
	subject, n := uint32(w.rng.IntN(4)), 1+w.rng.Int64N(9)
	w.count(note{kind: intent, feature: requests, subject: subject, n: n}, all(n, func() error {
		r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		r.Header.Set("Subject", subjectName(subject))
		r.Header.Set("Quantity", strconv.FormatInt(n, 10))
		answer := httptest.NewRecorder()
		w.handler.ServeHTTP(answer, r)
		if answer.Code != http.StatusOK {
			_, _ = io.Copy(io.Discard, answer.Body)
			return meter.ErrClosed
		}
		return nil
	}))
}

func (w *worker) units() {
	n := 1 + w.rng.Int64N(9)
	w.count(note{kind: intent, feature: units, n: n}, all(n, func() error { return w.counter.Add(context.Background(), n) }))
}

// bursts collide with each other, as counts between two writes to a pipe hardly
// would.
func (w *worker) bursts() {
	n := 1 + w.rng.Int64N(2000)
	w.count(note{kind: burst, feature: units, n: n}, func() (did int64, err error) {
		for ; did < n; did++ {
			err = w.counter.Add(context.Background(), 1)
			if err != nil && !errors.Is(err, meter.ErrUnsynced) {
				w.closed = true
				return did, nil
			}
		}
		return did, nil
	})
}

// mostLate is how long after its use some usage is counted.
const mostLate = 2 * time.Hour

func (w *worker) fresh() {
	subject := w.last
	if w.last == 0 || w.rng.IntN(3) > 0 {
		subject = w.child.next.Add(1)
		w.last = subject
	}
	ctx := context.Background()
	if w.rng.IntN(4) == 0 {
		ctx = meter.WithDimension(ctx, "region", strconv.Itoa(w.rng.IntN(3)))
	}
	n := 1 + w.rng.Int64N(9)
	w.count(note{kind: intent, feature: fresh, subject: subject, n: n}, all(n, func() error {
		if w.rng.IntN(4) == 0 {
			late := meter.Event{Subject: subjectName(subject), Quantity: n, Time: time.Now().Add(-time.Duration(w.rng.Int64N(int64(mostLate))))}
			return w.features[fresh].AddEvent(ctx, late)
		}
		return w.features[fresh].Add(ctx, subjectName(subject), n)
	}))
	if !w.child.order.Script {
		time.Sleep(time.Duration(w.rng.IntN(1000)) * time.Microsecond)
	}
}

func (w *worker) levels() {
	subject := uint32(w.rng.IntN(3))
	rising := w.child.level.Add(1)
	w.count(note{kind: intent, feature: seats, subject: subject, n: rising}, all(rising, func() error {
		return w.features[seats].Set(context.Background(), subjectName(subject), rising)
	}))
	level := w.rng.Int64N(1000)
	w.count(note{kind: intent, feature: peak, subject: subject, n: level}, all(level, func() error {
		return w.features[peak].Set(context.Background(), subjectName(subject), level)
	}))
	if !w.child.order.Script {
		time.Sleep(time.Duration(w.rng.IntN(500)) * time.Microsecond)
	}
}
