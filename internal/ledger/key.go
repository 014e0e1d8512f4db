package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const maxKey = 8 << 10 // bytes of an encoded key

// appendKey encodes a series: feature, subject, then the dimensions by name.
func appendKey(b []byte, feature, subject string, dimensions map[string]string) []byte {
	b = appendText(b, feature)
	return appendDimensions(appendText(b, subject), dimensions)
}

func appendDimensions(b []byte, dimensions map[string]string) []byte {
	if len(dimensions) == 0 {
		return b
	}
	for _, name := range slices.Sorted(maps.Keys(dimensions)) {
		b = appendText(b, name)
		b = appendText(b, dimensions[name])
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeKey is appendKey's inverse, and that of appendBackdated but for the time. The
// strings do not alias key.
func decodeKey(key []byte) (feature, subject string, dimensions map[string]string, err error) {
	whole := key
	next := func() (string, bool) {
		n, used := binary.Uvarint(key)
		if used <= 0 || n > uint64(len(key)-used) {
			return "", false
		}
		s := string(key[used : used+int(n)])
		key = key[used+int(n):]
		return s, true
	}
	feature, ok1 := next()
	subject, ok2 := next()
	if !ok1 || !ok2 || feature == "" {
		return "", "", nil, fmt.Errorf("series key malformed")
	}
	if _, dated := usedIn(whole); dated {
		next() // the name that no dimension has
		next()
	}
	for len(key) > 0 {
		name, ok1 := next()
		value, ok2 := next()
		if !ok1 || !ok2 || name == "" {
			return "", "", nil, fmt.Errorf("series key malformed")
		}
		if dimensions == nil {
			dimensions = make(map[string]string)
		}
		dimensions[name] = value
	}
	return feature, subject, dimensions, nil
}

// recordID is f(segment, slot, series): a clone that fills the same slot of the
// same segment with another series gets another ID. So does a record that is
// queued anew because its biller took it and did not bill it: a "-2" at the end.
func recordID(u uuid, block uint32, key []byte, issue byte) string {
	h := fnv.New64a()
	h.Write(key)
	id := fmt.Sprintf("%x-%x-%016x", u[:], block, h.Sum64())
	if issue > 0 {
		id += "-" + strconv.Itoa(int(issue)+1)
	}
	return id
}

// parseRecordID finds the slot that an ID speaks of; the caller compares the
// whole ID with the one of what it finds there.
func parseRecordID(id string) (u uuid, block uint32, ok bool) {
	parts := strings.Split(id, "-")
	if len(parts) < 3 || len(parts[0]) != 2*len(u) {
		return u, 0, false
	}
	if _, err := hex.Decode(u[:], []byte(parts[0])); err != nil {
		return u, 0, false
	}
	n, err := strconv.ParseUint(parts[1], 16, 32)
	return u, uint32(n), err == nil
}
