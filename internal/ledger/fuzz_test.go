package ledger

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// sampleKeys are the series of a sample segment; keys take one block and more.
var sampleKeys = []string{
	string(appendKey(nil, "calls", "acme", nil)),
	string(appendKey(nil, "calls", strings.Repeat("b", 100), nil)),
	string(appendKey(nil, "seats", "carl", map[string]string{"model": "large", "region": "eu"})),
	string(appendKey(nil, "peak", "dora", nil)),
}

// sample is a segment file as the ledger writes it, with what stands in it.
type sample struct {
	head  head
	file  []byte
	slots map[uint32]slot // by block; keys are copies
}

func newSample(merged bool) *sample {
	h := head{
		uuid: uuid{7, 7, 8}, generation: 3, merged: merged, start: 1_000_000, end: 1_000_060,
		identity: disk.Identity{Inode: 12, Birth: 34},
		routes:   []owed{{"main", destinationOf("a")}, {"other", destinationOf("b")}},
	}
	if merged {
		h.uuid, h.inputs = uuid{8, 8, 9}, []uuid{{1}, {2}, {3}, {4}, {5}}
	}
	s := &sample{slots: make(map[uint32]slot)}
	var blocks []byte
	put := func(sh shape, primary uint32, key string, count uint64, o outcomes) uint32 {
		at := len(blocks)
		block := uint32(at / blockSize)
		blocks = append(blocks, make([]byte, int(sh.blocks())*blockSize)...)
		putSlot(blocks[at:], h.uuid, block, sh, primary, []byte(key))
		sealSlot(blocks[at:], h.uuid, count|wordSet)
		if !sh.stripe() {
			o.put(blocks[at:], h.uuid)
		}
		s.slots[block] = slot{block: block, shape: sh, primary: primary, word: count | wordSet | wordSealed, key: []byte(key)}
		return block
	}
	for i, key := range sampleKeys {
		block := put(newShape(len(key), sink.Kind(i%3), 0), 0, key, uint64(100+i), outcomes{states: [MaxRoutes]state{state(i + 1), attempted}, first: [MaxRoutes]uint32{uint32(i), 77}})
		if i == 0 {
			put(newShape(0, sink.Sum, flagStripe), block, "", 9, outcomes{})
			put(eventShape, block, "an event, hashed", 11, outcomes{})
			blocks = append(blocks, make([]byte, 2*blockSize)...) // the end of an extent stays empty
		}
	}
	h.blocks = uint32(len(blocks) / blockSize)
	s.head = h
	s.file = append(h.encode(), blocks...)
	return s
}

// FuzzSegment writes any bytes anywhere over a segment file, and cuts it off
// anywhere. What is still found must be what was there.
func FuzzSegment(f *testing.F) {
	samples := map[bool]*sample{false: newSample(false), true: newSample(true)}
	for merged, s := range samples {
		f.Add(merged, uint16(0), []byte{}, uint16(0))
		f.Add(merged, uint16(0), s.file, uint16(0))
		f.Add(merged, uint16(0), []byte("any bytes"), uint16(60_000))
		f.Add(merged, uint16(mirrorAt), []byte{1}, uint16(70))
		f.Add(merged, uint16(closedAt), make([]byte, sectorSize), uint16(0))
		f.Add(merged, uint16(56), []byte{0xff, 0xff, 0xff, 0x7f}, uint16(0))
		for at := range uint16(12) {
			f.Add(merged, uint16(s.head.size())+at*48, []byte{0x80, 1, 0, 9}, uint16(0))
			f.Add(merged, uint16(s.head.size())+at*blockSize, s.file[s.head.size():][:2*blockSize], uint16(0))
		}
	}
	f.Fuzz(func(t *testing.T, merged bool, at uint16, patch []byte, cut uint16) {
		s := samples[merged]
		data := bytes.Clone(s.file)
		data = data[:len(data)-min(len(data), int(cut))]
		if end := int(at) + len(patch); end > len(data) {
			data = append(data, make([]byte, end-len(data))...)
		}
		copy(data[at:], patch)
		checkHead(t, samples, data)
		body := data[min(int64(len(data)), s.head.size()):]
		for _, sealed := range []bool{true, false} {
			checkSlots(t, s, bytes.Clone(body), sealed)
		}
	})
}

func checkHead(t *testing.T, samples map[bool]*sample, data []byte) {
	h, _, err := decodeHead(data)
	if err != nil {
		require.Nil(t, h)
		return
	}
	want := samples[h.merged].head // the patch may be the other one's, whole
	want.inputsSum = h.inputsSum
	if h.end == 0 { // both copies of that part are gone
		want.end, want.blocks = 0, 0
	}
	if h.start == 0 {
		want.start = 0
	}
	if len(want.inputs) == 0 {
		want.inputs = h.inputs
		require.Empty(t, h.inputs)
	}
	require.Equal(t, want, *h)
}

func checkSlots(t *testing.T, s *sample, body []byte, sealed bool) {
	check := func(got slot) {
		want, ok := s.slots[got.block]
		require.True(t, ok, "a slot at block %d, where none was", got.block)
		require.Equal(t, string(want.key), string(got.key))
		require.Equal(t, want.shape, got.shape)
		require.Equal(t, want.primary, got.primary)
		if sealed && !got.badWord {
			require.Equal(t, want.word, got.word, "a count changed unnoticed")
		}
	}
	covered := uint32(0)
	scan(body, s.head.uuid, sealed, check, func(first, n uint32) {
		require.GreaterOrEqual(t, first, covered)
		require.LessOrEqual(t, int(first+n), len(body)/blockSize)
		covered = first + n
	})
	img, d := newImage(body, s.head.uuid, sealed)
	require.LessOrEqual(t, len(img.slots)+int(d.blocks), len(body)/blockSize, "memory follows the input")
	lost := d.any()
	for _, block := range img.slots {
		want := s.slots[block]
		require.Equal(t, string(want.key), string(img.key(block)))
		if sealed && !lost {
			q := int64(want.word & wordCount)
			if block == 0 {
				q += int64(img.extra[0])
			}
			require.Equal(t, q, img.quantity(block))
		}
		o, intact := getOutcomes(img.bytes(block), s.head.uuid)
		if was, _ := getOutcomes(s.file[s.head.size():][int(block)*blockSize:], s.head.uuid); intact && o != (outcomes{}) {
			require.Equal(t, was, o, "an outcome changed unnoticed")
		}
	}
}

// FuzzJournal mutates a journal, and also frames any bytes as entries.
func FuzzJournal(f *testing.F) {
	s := newSample(false)
	h := s.head
	h.end, h.blocks = 0, 0
	blocks := s.file[s.head.size():]
	cells := make(map[uint32]*cell)
	for _, block := range slices.Sorted(maps.Keys(s.slots)) {
		sl := s.slots[block]
		c := &cell{block: block, primary: block}
		if sl.shape.stripe() {
			c.primary, c.series = sl.primary, cells[sl.primary].series
			if sl.shape.event() {
				c.primary |= eventCell
			}
		} else {
			name, _, _, err := decodeKey(sl.key)
			require.NoError(f, err)
			feature := &Feature{name: name, kind: sl.shape.kind(), ledger: &Ledger{}}
			c.series = newSeries(feature, string(sl.key), dimensioned)
		}
		cells[block] = c
	}
	var entries, more []byte
	for block, c := range cells {
		var id eventID
		copy(id[:], s.slots[block].key)
		entries = appendEntry(entries, c, id, uint64(block+1)|wordSet)
		c.journaled = uint64(block+1) | wordSet
		more = appendEntry(more, c, id, s.slots[block].word&^wordSealed)
	}
	journal := make([]byte, journalPreamble)
	copy(journal, journalMagic[:])
	order.PutUint32(journal[8:], formatVersion)
	copy(journal[16:], h.uuid[:])
	order.PutUint32(journal[journalPreamble-4:], checksum(h.uuid, journal[:journalPreamble-4]))
	journal = appendFrame(journal, h.uuid, frameHead, h.encode())
	journal = appendFrame(journal, h.uuid, frameEntries, entries)
	journal = appendFrame(journal, h.uuid, frameEntries, more)

	f.Add(uint16(0), []byte{}, uint16(0), entries)
	f.Add(uint16(journalPreamble), []byte{1}, uint16(3), more)
	f.Add(uint16(len(journal)-9), []byte{1}, uint16(0), []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 0})
	f.Add(uint16(len(journal)), journal, uint16(0), []byte{0, 0xff, 0xff, 0xff, 0x0f, 1, 1, 0, 1})
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, cut uint16, forged []byte) {
		data := bytes.Clone(journal)
		data = data[:len(data)-min(len(data), int(cut))]
		if end := int(at) + len(patch); end > len(data) {
			data = append(data, make([]byte, end-len(data))...)
		}
		copy(data[at:], patch)
		jc, err := decodeJournal(data)
		if err == nil {
			require.Equal(t, h.uuid, jc.uuid)
			for block, e := range jc.slots {
				want := s.slots[block]
				require.Contains(t, []uint64{uint64(block+1) | wordSet, want.word &^ wordSealed}, e.word)
				if e.named {
					require.Equal(t, string(want.key), string(e.key))
				}
			}
			for _, before := range [][]byte{nil, blocks, make([]byte, len(blocks)), blocks[:3*blockSize]} {
				f := &found{head: &head{uuid: h.uuid}}
				out := f.replay(bytes.Clone(before), []*journalContent{jc}, mostBlocks)
				img, _ := newImage(out, h.uuid, false)
				for _, block := range img.slots {
					require.Equal(t, string(s.slots[block].key), string(img.key(block)))
					require.Contains(t, []uint64{uint64(block + 1), s.slots[block].word & wordCount}, order.Uint64(img.bytes(block))&wordCount)
				}
			}
		}
		jc = &journalContent{uuid: h.uuid, slots: make(map[uint32]journaled)}
		jc.readEntries(forged)
		require.LessOrEqual(t, len(jc.slots), len(forged))
		for block, e := range jc.slots {
			require.LessOrEqual(t, len(e.key), len(forged))
			if block > 1<<12 {
				delete(jc.slots, block) // what a journal may make a segment grow to is bounded elsewhere
			}
		}
		(&found{head: &head{uuid: h.uuid}}).replay(bytes.Clone(blocks), []*journalContent{jc}, mostBlocks)
	})
}

// FuzzTotals mutates a totals file, and decodes any bytes as one frame's content.
func FuzzTotals(f *testing.F) {
	var file []byte
	var ends []int
	for i := range byte(3) {
		fo := newFold(uuid{i + 1})
		fo.highWater = 1_000_000 + int64(i)
		fo.books[account{"calls", "main", delivered}] = 1 << (10 * i)
		fo.addUsage(usageKey{sampleKeys[0], 24000, sink.Sum}, 1_000_000, 1<<(10*i))
		fo.addPeriod(periodKey{sampleKeys[0], 1_000_000, false}, period{start: 900_000, end: forever, since: 1_000_000, base: 5, after: 6, counted: 1 << (10 * i)})
		file = append(file, fo.encode()...)
		ends = append(ends, len(file))
	}
	payload := file[frameHeader:ends[0]]
	f.Add(uint16(0), []byte{}, uint16(0), payload)
	f.Add(uint16(ends[0]), []byte{0}, uint16(0), payload[:20])
	f.Add(uint16(ends[2]), file[:ends[0]], uint16(0), []byte{})
	f.Add(uint16(ends[1]+4), []byte{0xff, 0xff, 0xff}, uint16(5), append(bytes.Clone(payload), 'u', 1, 0xff, 0xff, 0xff, 0xff, 0x0f))
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, cut uint16, content []byte) {
		data := bytes.Clone(file)
		data = data[:len(data)-min(len(data), int(cut))]
		whole := len(data)
		if end := int(at) + len(patch); end > len(data) {
			data = append(data, make([]byte, end-len(data))...)
		}
		copy(data[at:], patch)
		tt := &totals{folded: make(map[uuid]bool), books: make(map[account]int64)}
		all, _ := tt.decode(data)
		require.LessOrEqual(t, tt.end, int64(len(data)))
		sum := tt.books[account{"calls", "main", delivered}]
		var want int64
		for i, end := range ends {
			intact := end <= whole && bytes.Equal(data[:end][max(0, end-ends[0]):], file[:end][max(0, end-ends[0]):])
			if intact && tt.folded[uuid{byte(i + 1)}] {
				want += 1 << (10 * i)
			}
		}
		require.Zero(t, sum&^(1|1<<10|1<<20), "every segment counts once or not at all")
		require.GreaterOrEqual(t, sum, want)
		require.Equal(t, sum, all.usages[usageKey{sampleKeys[0], 24000, sink.Sum}].quantity)
		require.Zero(t, all.periods[periodKey{sampleKeys[0], 1_000_000, false}].counted&^sum, "ditto in its period")

		fo := newFold(uuid{})
		if fo.decodeInto(content) != nil {
			return
		}
		require.LessOrEqual(t, len(fo.books)+len(fo.usages)+len(fo.periods), len(content))
		again := newFold(uuid{})
		readFrames(fo.encode(), uuid{}, func(_ frameKind, payload []byte, _ int) { require.NoError(t, again.decodeInto(payload)) })
		maps.DeleteFunc(fo.books, func(_ account, q int64) bool { return q == 0 })
		require.Equal(t, fo, again)
	})
}

// FuzzPeriods opens a ledger with any file of bounds: it is opened, and counts.
func FuzzPeriods(f *testing.F) {
	frame := func(p period) []byte {
		b := newFold(uuid{}).preamble(nil)
		b = appendPeriod(b, periodKey{sampleKeys[0], p.since, false}, p)
		return appendFrame(nil, uuid{}, framePeriod, b)
	}
	good := frame(period{start: 1, end: forever, since: 2, base: 3})
	f.Add(good, int64(1), int64(0), int64(0), int64(0))
	f.Add(good[:20], int64(-1)<<63, int64(1)<<62, int64(-1), int64(-1)<<63)
	f.Add([]byte{}, int64(1)<<62, int64(-1)<<63, int64(1)<<62, int64(1)<<62)
	f.Fuzz(func(t *testing.T, garbage []byte, start, end, since, base int64) {
		dir := quickDir(t)
		l := open(t, "heap", dir)
		require.NoError(t, l.Close(t.Context()))
		data := append(bytes.Clone(garbage), frame(period{start: start, end: end, since: since, base: base})...)
		require.NoError(t, os.WriteFile(filepath.Join(dir, periodsFile), data, 0o600))
		l = open(t, "heap", dir)
		c := feature(t, l, "calls", sink.Sum)
		require.True(t, call(t, c, "acme", Quota{Limit: 1 << 62, Soft: true, Start: 1, End: 1 << 40}, 1, 1))
		require.NoError(t, l.Close(t.Context()))
	})
}

// FuzzQuarantine puts lines of any text between any garbage. They must survive
// it, and garbage must never pass for a decision.
func FuzzQuarantine(f *testing.F) {
	f.Add("as told", "ticket 12", "garbage", uint16(3), byte(1))
	f.Add("", "", "", uint16(0), byte(0))
	f.Add("\xff broken \xc3", "\u2028<>&\x00", `{"id":"x","route":"y","settled":"voided","crc":0}`, uint16(40), byte(0x20))
	f.Fuzz(func(t *testing.T, reason, note, garbage string, at uint16, flip byte) {
		r := sink.Record{ID: "abc", Feature: "calls", Subject: "acme", Dimensions: map[string]string{"model": "large"}, Quantity: 5, Start: time.Unix(1_000_000, 0).UTC(), End: time.Unix(1_000_060, 0).UTC()}
		held := newQuarantineLine(r, "main")
		held.Outcome, held.Reason = "in doubt", reason
		decided := newQuarantineLine(r, "other")
		decided.Settled, decided.Note = "voided", note

		var file []byte
		file = append(file, held.encode()...)
		file = append(file, strings.ReplaceAll(garbage, "\n", " ")...)
		file = append(file, '\n')
		file = append(file, decided.encode()...)
		file = append(file, garbage...)
		for _, line := range [][]byte{held.encode(), decided.encode()} {
			_, err := decodeQuarantineLine(line)
			require.NoError(t, err, "%s", line)
		}
		decisions, _, bad := readQuarantine(file)
		require.Len(t, decisions, 1)
		require.Equal(t, "voided", decisions[decisionKey{"abc", "other"}].Settled)
		require.LessOrEqual(t, bad, 1+strings.Count(garbage, "\n"))

		// A line with one byte changed says the same or nothing.
		line := decided.encode()
		line[int(at)%(len(line)-1)] ^= flip
		for _, got := range [...][]byte{line, []byte(garbage)} {
			if q, err := decodeQuarantineLine(got); err == nil {
				want, _ := decodeQuarantineLine(decided.encode())
				wantJSON, _ := json.Marshal(want)
				gotJSON, _ := json.Marshal(q)
				require.JSONEq(t, string(wantJSON), string(gotJSON))
			}
		}
	})
}

func FuzzKey(f *testing.F) {
	for _, key := range sampleKeys {
		f.Add("calls", "acme", "model", "large", []byte(key))
	}
	f.Add("", "", "", "", []byte{})
	f.Add("f", "", "", "x", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add("f", "s", "d", "", []byte{1, 'f', 1, 's', 0})
	f.Fuzz(func(t *testing.T, feature, subject, name, value string, any []byte) {
		dimensions := map[string]string{name: value, name + "2": subject}
		key := appendKey(nil, feature, subject, dimensions)
		gotFeature, gotSubject, gotDimensions, err := decodeKey(key)
		switch {
		case feature == "":
			require.Error(t, err)
		case name == "": // no dimension's
		default:
			require.NoError(t, err)
			require.Equal(t, []string{feature, subject}, []string{gotFeature, gotSubject})
			require.Equal(t, dimensions, gotDimensions)
		}
		gotFeature, gotSubject, gotDimensions, err = decodeKey(any)
		if err != nil {
			return
		}
		require.NotEmpty(t, gotFeature)
		f2, s2, d2, err := decodeKey(appendKey(nil, gotFeature, gotSubject, gotDimensions))
		require.NoError(t, err)
		require.Equal(t, []string{gotFeature, gotSubject}, []string{f2, s2})
		require.Equal(t, gotDimensions, d2)
	})
}

func FuzzRecordID(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), uint32(7), []byte("key"), "")
	f.Add([]byte{}, uint32(1<<32-1), []byte{}, "00000000000000000000000000000000-ffffffff-0")
	f.Add([]byte{0xff}, uint32(0), []byte{}, "0000000000000000000000000000000g-0-0")
	f.Add([]byte{0xff}, uint32(0), []byte{}, "00000000000000000000000000000000-100000000-0")
	f.Fuzz(func(t *testing.T, name []byte, block uint32, key []byte, any string) {
		var u uuid
		copy(u[:], name)
		id := recordID(u, block, key, 0)
		require.LessOrEqual(t, len(id), 64)
		require.Empty(t, strings.Trim(id, "0123456789abcdef-"))
		gotU, gotBlock, ok := parseRecordID(id)
		require.True(t, ok)
		require.Equal(t, u, gotU)
		require.Equal(t, block, gotBlock)
		require.NotEqual(t, id, recordID(u, block, append(bytes.Clone(key), 'x'), 0))
		require.NotEqual(t, id, recordID(u, block+1, key, 0))
		if u, block, ok := parseRecordID(any); ok {
			u2, block2, ok := parseRecordID(recordID(u, block, nil, 0))
			require.True(t, ok)
			require.Equal(t, u, u2)
			require.Equal(t, block, block2)
		}
	})
}
