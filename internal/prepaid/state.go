package prepaid

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/license"
)

// state is all that is known of a subject's units of a feature. Every line of the file
// holds one as a whole, so that the last one of a subject is right. None is ever dropped:
// what is used later is taken of what is drawn then.
type state struct {
	Feature string `json:"feature"`
	Subject string `json:"subject"`
	From    string `json:"from,omitempty"` // Address of the balance
	Copy    bool   `json:"copy,omitempty"` // found in the copy of a file, and not yet set aside

	// Begun is what was counted when the account began: all that is counted beyond it is
	// used. It comes down by what the count has lost in a power cut.
	Begun int64 `json:"begun"`
	// Drawn is what was drawn less what was returned.
	Drawn int64 `json:"drawn"`
	// Used is what was used when this was written.
	Used int64 `json:"used"`

	Open  *transfer `json:"open,omitempty"`  // sent, or about to be, and not answered
	Aside []doubt   `json:"aside,omitempty"` // neither used nor returned until a person decides
}

// transfer is a [license.Transfer] on its way.
type transfer struct {
	ID     string `json:"id"`
	Units  int64  `json:"units"`
	Back   bool   `json:"back,omitempty"`
	Before int64  `json:"before"`
	Mark   string `json:"mark,omitempty"`
	At     int64  `json:"at"` // Unix seconds
}

// doubt is units of which nobody knows whether they are here or in the balance.
type doubt struct {
	ID    string `json:"id"`
	Units int64  `json:"units"`
	Why   reason `json:"why"`
	At    int64  `json:"at"`
}

// reason says how units came to be in doubt.
type reason string

const (
	lostDraw   reason = "a draw whose answer was lost"
	lostReturn reason = "a return whose answer was lost"
	copied     reason = "held by the directory that this one is a copy of"
	elsewhere  reason = "held from another balance than that of today"
)

func (s *state) clone() state {
	c := *s
	c.Aside = slices.Clone(s.Aside)
	if s.Open != nil {
		open := *s.Open
		c.Open = &open
	}
	return c
}

// limit is how far the count may go.
func (s *state) limit() int64 { return s.Begun + s.Drawn }

// note has the state say what is used, by what is counted.
func (s *state) note(counted int64) { s.Used = max(s.Used, counted-s.Begun) }

// setAside ends what is known of the state, but for the doubts: what may still be used
// or is on its way goes there.
func (s *state) setAside(why reason) {
	if s.Open != nil {
		s.putAside(*s.Open)
	}
	if free := s.Drawn - s.Used; free > 0 {
		s.Aside = append(s.Aside, doubt{newID(), free, why, time.Now().Unix()})
		s.Drawn -= free
	}
}

func (s *state) putAside(t transfer) {
	d := doubt{t.ID, t.Units, lostDraw, t.At}
	if t.Back {
		d.Why = lostReturn
	}
	s.Aside = append(s.Aside, d)
	s.Open = nil
}

// holds says that the customer would miss something without the state.
func (s *state) holds() bool { return s.Open != nil || len(s.Aside) > 0 || s.Drawn > s.Used }

// settled says that nobody owes anything by the state.
func (s *state) settled() bool { return !s.holds() && s.Drawn == s.Used }

func (t *transfer) of(s *state, doubtful bool) license.Transfer {
	return license.Transfer{
		ID: t.ID, Feature: s.Feature, Subject: s.Subject, Units: t.Units, Back: t.Back,
		Before: license.Funds{Units: t.Before, Mark: t.Mark}, At: time.Unix(t.At, 0).UTC(), Doubt: doubtful,
	}
}

// decision is what a person has said of a doubt.
type decision struct {
	doubt
	Feature string `json:"feature"`
	Subject string `json:"subject"`
	Held    bool   `json:"held"`
	Note    string `json:"note"`
	When    int64  `json:"when"`
}

// line is one line of the file, with one of its fields.
type line struct {
	File     *fileInfo `json:"file,omitempty"`
	State    *state    `json:"state,omitempty"`
	Decision *decision `json:"decision,omitempty"`
}

// fileInfo is the first line: which file it is.
type fileInfo struct {
	Inode uint64 `json:"inode"`
	Birth int64  `json:"birth"`
}

func (i *fileInfo) identity() disk.Identity { return disk.Identity{Inode: i.Inode, Birth: i.Birth} }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode is a line of the file: a checksum, the JSON, the end.
func (l line) encode() []byte {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // such plain values can't fail
	}
	return append(fmt.Appendf(nil, "%08x %s", crc32.Checksum(text, castagnoli), text), '\n')
}

var errLine = errors.New("no line of this file, or a damaged one")

func decodeLine(b []byte) (l line, err error) {
	sum, text, ok := bytes.Cut(bytes.TrimSuffix(b, []byte("\n")), []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || len(sum) != 8 || crc32.Checksum(text, castagnoli) != uint32(want) || json.Unmarshal(text, &l) != nil {
		return line{}, errLine
	}
	return l, nil
}
