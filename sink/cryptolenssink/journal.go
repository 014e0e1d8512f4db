package cryptolenssink

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/inprocess/meter/sink"
)

// journal is what a counter's data object remembers, in its text, of the records that
// were counted on it. An entry is written before its record is counted, with the numbers
// before and after, so that whoever comes later can tell by the number of the data
// object whether it was.
type journal struct {
	floor  int64 // records that ended later were never forgotten, Unix seconds
	intent *intent
	past   []entry // the oldest first
}

type intent struct {
	entry
	base, target int64
}

// entry is a record that was counted or, if lost, perhaps.
type entry struct {
	id   string // a digest of the record's, which is longer
	end  int64  // of the record's window, Unix seconds
	lost bool
}

// maxPast bounds the text of the data object: at most 10,000 characters, at most 26 an
// entry.
const maxPast = 200

func entryOf(r sink.Record) entry {
	sum := sha256.Sum256([]byte(r.ID))
	return entry{id: base64.RawURLEncoding.EncodeToString(sum[:9]), end: r.End.Unix()}
}

// find returns the entry of a record, and whether there is one.
func (j *journal) find(r sink.Record) (entry, bool) {
	id := entryOf(r).id
	at := slices.IndexFunc(j.past, func(e entry) bool { return e.id == id })
	if at < 0 {
		return entry{}, false
	}
	return j.past[at], true
}

// begin notes that a record is about to be counted.
func (j *journal) begin(r sink.Record, base int64) {
	e := entryOf(r)
	j.past = slices.DeleteFunc(j.past, func(p entry) bool { return p.id == e.id })
	j.intent = &intent{e, base, base + r.Quantity}
}

// close ends the intent: it was counted or, if lost, nobody knows.
func (j *journal) close(lost bool) {
	e := j.intent.entry
	e.lost, j.intent = lost, nil
	j.past = append(j.past, e)
	for len(j.past) > maxPast { // the one used first goes, whenever it was counted
		oldest := 0
		for i, e := range j.past {
			if e.end < j.past[oldest].end {
				oldest = i
			}
		}
		j.floor = max(j.floor, j.past[oldest].end)
		j.past = slices.Delete(j.past, oldest, oldest+1)
	}
}

const magic = "meter/1"

// String is the journal as text: the magic word, the floor, the intent or "-", and the
// entries, the lost ones with an exclamation mark.
func (j *journal) String() string {
	words := []string{magic, strconv.FormatInt(j.floor, 36), "-"}
	if i := j.intent; i != nil {
		words[2] = fmt.Sprintf("%d:%d:%v", i.base, i.target, i.entry)
	}
	for _, e := range j.past {
		words = append(words, e.String())
	}
	return strings.Join(words, " ")
}

func (e entry) String() string {
	text := e.id + ":" + strconv.FormatInt(e.end, 36)
	if e.lost {
		text += "!"
	}
	return text
}

var errForeign = errors.New("its text is not of this package: leave the data object to it alone")

// parseJournal reads what String has written; "" is a new journal.
func parseJournal(text string) (j journal, err error) {
	if text == "" {
		return j, nil
	}
	words := strings.Split(text, " ")
	if len(words) < 3 || words[0] != magic || len(words) > 3+maxPast {
		return j, errForeign
	}
	if j.floor, err = strconv.ParseInt(words[1], 36, 64); err != nil {
		return j, errForeign
	}
	if words[2] != "-" {
		if j.intent, err = parseIntent(words[2]); err != nil {
			return j, err
		}
	}
	for _, word := range words[3:] {
		e, err := parseEntry(word)
		if err != nil {
			return j, err
		}
		j.past = append(j.past, e)
	}
	return j, nil
}

func parseIntent(text string) (*intent, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return nil, errForeign
	}
	base, err1 := strconv.ParseInt(parts[0], 10, 32)
	target, err2 := strconv.ParseInt(parts[1], 10, 32)
	e, err3 := parseEntry(parts[2])
	if errors.Join(err1, err2, err3) != nil || target <= base || e.lost {
		return nil, errForeign
	}
	return &intent{e, base, target}, nil
}

func parseEntry(text string) (e entry, err error) {
	text, e.lost = strings.CutSuffix(text, "!")
	id, end, found := strings.Cut(text, ":")
	if e.end, err = strconv.ParseInt(end, 36, 64); err != nil || !found || id == "" {
		return e, errForeign
	}
	e.id = id
	return e, nil
}
