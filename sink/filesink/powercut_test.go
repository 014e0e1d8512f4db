package filesink

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

var errDisk = errors.New("disk trouble")

// disk is a system that fails on demand, and knows what a power cut would leave.
type disk struct {
	realSystem
	mu     sync.Mutex
	random *rand.Rand
	fail   func(op string) bool // nil: never
	fired  map[string]int
	names  map[string]*inode // as the process sees them
	safe   map[string]*inode // as they are on disk
}

// inode is one file's durable side.
type inode struct {
	path    string
	durable []byte
	// lost begins the bytes of a failed sync: a later sync reports success for
	// them, though they never reach the disk. -1: none.
	lost int64
	last []byte // what it held when its name went
	// early is what the system wrote to the disk unasked, since the last sync.
	early []byte
}

func newDisk(seed uint64) *disk {
	return &disk{
		random: rand.New(rand.NewPCG(seed, 2)),
		fired:  map[string]int{}, names: map[string]*inode{}, safe: map[string]*inode{},
	}
}

func (d *disk) fails(op string) bool {
	if d.fail == nil || !d.fail(op) {
		return false
	}
	d.fired[op]++
	return true
}

func (d *disk) open(path string, flag int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails("open") {
		return nil, errDisk
	}
	f, err := d.realSystem.open(path, flag)
	if err != nil {
		return nil, err
	}
	node := d.names[path]
	if node == nil {
		node = &inode{path: path, lost: -1}
		d.names[path] = node
	}
	return &diskFile{file: f, disk: d, node: node}, nil
}

func (d *disk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails("rename") {
		return errDisk
	}
	if over := d.names[to]; over != nil {
		over.last, _ = os.ReadFile(to)
	}
	if err := d.realSystem.rename(from, to); err != nil {
		return err
	}
	d.names[to], d.names[from].path = d.names[from], to
	delete(d.names, from)
	return nil
}

func (d *disk) syncDir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails("syncDir") {
		return errDisk
	}
	d.safe = maps.Clone(d.names)
	return nil
}

type diskFile struct {
	file
	disk *disk
	node *inode
}

func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.fails("write") {
		n, _ := f.file.WriteAt(p[:f.disk.random.IntN(len(p))], off)
		f.node.early = f.contents()
		return n, errDisk
	}
	n, err := f.file.WriteAt(p, off)
	if off <= f.node.lost { // dirty again
		f.node.lost = max(f.node.lost, off+int64(n))
	}
	return n, err
}

func (f *diskFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.fails("truncate") {
		return errDisk
	}
	if size <= f.node.lost {
		f.node.lost = -1
	}
	return f.file.Truncate(size)
}

func (f *diskFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	seen := f.contents()
	if f.disk.fails("sync") {
		if at := int64(len(f.node.durable)); f.node.lost < 0 {
			f.node.lost = at
		}
		return errDisk
	}
	f.node.durable, f.node.early = seen, nil
	if at := f.node.lost; at >= 0 && at < int64(len(seen)) {
		clear(f.node.durable[at:])
	} else {
		f.node.lost = -1
	}
	return nil
}

func (f *diskFile) contents() []byte {
	info, err := f.file.Stat()
	if err != nil {
		panic(err)
	}
	data := make([]byte, info.Size())
	if _, err := f.file.ReadAt(data, 0); err != nil && info.Size() > 0 {
		panic(err)
	}
	return data
}

// cut makes the directory what a power cut may leave of it: of what was not
// synced, anything. Open files must be closed before.
func (d *disk) cut(t *testing.T, random *rand.Rand) {
	t.Helper()
	left := d.safe
	if random.IntN(2) == 0 {
		left = d.names
	}
	data := map[string][]byte{}
	for name, node := range left {
		now, err := os.ReadFile(node.path)
		if err != nil || d.names[node.path] != node {
			now = node.last
		}
		data[name] = tear(node, now, random)
	}
	for name := range d.names {
		require.NoError(t, os.Remove(name))
	}
	d.names, d.fail = map[string]*inode{}, nil
	for name, content := range data {
		require.NoError(t, os.WriteFile(name, content, 0o600))
		d.names[name] = &inode{path: name, durable: content, lost: -1}
	}
	d.safe = maps.Clone(d.names)
}

// tear returns what was durable and, by chance, some of what came after it.
func tear(node *inode, now []byte, random *rand.Rand) []byte {
	safe := len(node.durable)
	if node.early != nil && random.IntN(2) == 0 {
		now = node.early
	}
	if len(now) <= safe || random.IntN(3) == 0 || node.lost >= 0 {
		return node.durable
	}
	torn := append([]byte{}, now[:safe+random.IntN(len(now)-safe+1)]...)
	copy(torn, node.durable)
	if fresh := torn[safe:]; random.IntN(3) == 0 && len(fresh) > 0 {
		clear(fresh[random.IntN(len(fresh)):]) // the size came to the disk, the blocks did not
	}
	return torn
}

func testRecord(n int) sink.Record {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return sink.Record{
		ID: fmt.Sprintf("r-%d", n), Feature: "tax-report", Subject: "cus_1", Quantity: 1,
		Start: start, End: start.Add(time.Minute), Attempt: 1,
	}
}

// written counts the lines of each record in all files.
func written(t *testing.T, path string) map[string]int {
	t.Helper()
	names, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	n := map[string]int{}
	for _, name := range names {
		if strings.HasSuffix(name, ".lock") {
			continue
		}
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		for text := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(text, `{"id":"`); ok && strings.HasSuffix(text, "}\n") && !strings.Contains(text, "\x00") {
				id, _, _ := strings.Cut(rest, `"`)
				n[id]++
			}
		}
	}
	return n
}

// TestPowerCuts delivers on a failing disk, with power cuts and restarts, and
// compares the files with the answers.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	seeds := uint64(120)
	if testing.Short() {
		seeds = 40
	}
	fired := map[string]int{}
	for seed := range seeds {
		run := &powerRun{random: rand.New(rand.NewPCG(seed, 1)), disk: newDisk(seed), state: map[int]answer{}}
		run.path = filepath.Join(t.TempDir(), "usage.jsonl")
		run.play(t, seed)
		for op, n := range run.disk.fired {
			fired[op] += n
		}
	}
	for _, op := range []string{"open", "rename", "syncDir", "write", "truncate", "sync"} {
		require.Positive(t, fired[op], "no %s ever failed", op)
	}
}

type answer uint8

const (
	never answer = iota // delivered never, or not applied each time
	doubt
	acknowledged
)

type powerRun struct {
	random *rand.Rand
	disk   *disk
	path   string
	state  map[int]answer
	next   int
	sink   *Sink
}

func (r *powerRun) restart() {
	if r.sink != nil {
		_ = r.sink.Close()
	}
	r.sink = New(Config{Path: r.path, MaxSize: 900})
	r.sink.os = r.disk
}

func (r *powerRun) play(t *testing.T, seed uint64) {
	t.Helper()
	r.restart()
	for range 40 {
		switch r.random.IntN(12) {
		case 0:
			r.restart()
		case 1:
			_ = r.sink.Close()
			r.disk.cut(t, r.random)
			r.restart()
			r.verify(t, seed)
		case 2, 3, 4:
			r.trouble()
		default:
			r.disk.fail = nil
		}
		r.deliver(t)
	}
	r.disk.fail = nil
	for range 2 { // everything again, until it is acknowledged, and once more
		for n := range r.next {
			require.NoError(t, r.sink.Deliver(t.Context(), []sink.Record{testRecord(n)}), "seed %d", seed)
			r.state[n] = acknowledged
		}
		r.verify(t, seed)
		_ = r.sink.Close()
		r.disk.cut(t, r.random)
		r.restart()
		r.verify(t, seed)
	}
	require.Len(t, written(t, r.path), r.next, "seed %d", seed)
	_ = r.sink.Close()
}

// trouble fails some operation, once or from now on.
func (r *powerRun) trouble() {
	ops := []string{"open", "rename", "syncDir", "write", "write", "truncate", "sync", "sync"}
	op, second := ops[r.random.IntN(len(ops))], ops[r.random.IntN(len(ops))]
	times := 1 + r.random.IntN(3)
	r.disk.fail = func(now string) bool {
		if times == 0 || now != op && now != second {
			return false
		}
		times--
		return true
	}
}

func (r *powerRun) deliver(t *testing.T) {
	t.Helper()
	var batch []sink.Record
	var numbers []int
	for range 1 + r.random.IntN(4) {
		n := r.next
		if r.next > 0 && r.random.IntN(3) == 0 {
			n = r.random.IntN(r.next)
		} else {
			r.next++
		}
		numbers, batch = append(numbers, n), append(batch, testRecord(n))
	}
	err := r.sink.Deliver(t.Context(), batch)
	errs := make([]error, len(batch))
	if each, ok := errors.AsType[*sink.BatchError](err); ok {
		errs = each.Errs
	} else if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	for i, n := range numbers {
		switch {
		case errs[i] == nil:
			r.state[n] = acknowledged
		case errors.Is(errs[i], sink.ErrNotApplied):
		default:
			require.ErrorIs(t, errs[i], errDisk)
			r.state[n] = max(r.state[n], doubt)
		}
	}
}

func (r *powerRun) verify(t *testing.T, seed uint64) {
	t.Helper()
	lines := written(t, r.path)
	for n := range r.next {
		got := lines[testRecord(n).ID]
		switch r.state[n] {
		case acknowledged:
			require.Equal(t, 1, got, "seed %d: record %d was acknowledged", seed, n)
		case doubt:
			require.LessOrEqual(t, got, 1, "seed %d: record %d is in doubt", seed, n)
		case never:
			require.Zero(t, got, "seed %d: record %d was never applied", seed, n)
		}
	}
}
