package meter

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/inprocess/meter/internal/ledger"
)

// Most bytes of a name: what the ledger stores.
const (
	maxFeature        = ledger.MaxFeatureName
	maxRoute          = ledger.MaxRouteName
	maxSubject        = ledger.MaxSubject
	maxMachine        = 256
	maxDimensions     = ledger.MaxDimensions
	maxDimensionName  = ledger.MaxDimensionName
	maxDimensionValue = ledger.MaxDimensionValue
)

// badLabel says what is wrong with a name that developers choose, "" if nothing.
func badLabel(s string, most int) string {
	switch {
	case s == "":
		return "empty"
	case len(s) > most:
		return fmt.Sprintf("%s has %d bytes, at most %d", shown(s), len(s), most)
	case !utf8.ValidString(s):
		return fmt.Sprintf("%s is not UTF-8", shown(s))
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("%s has a character that does not print: %q", shown(s), r)
		}
	}
	return ""
}

// badValue says what is wrong with a text that comes from data, "" if nothing.
func badValue(s string, most int) string {
	if len(s) > most {
		return fmt.Sprintf("%s has %d bytes, at most %d", shown(s), len(s), most)
	}
	if hasControl(s) {
		if !utf8.ValidString(s) {
			return fmt.Sprintf("%s is not UTF-8", shown(s))
		}
		return fmt.Sprintf("%s has a control character", shown(s))
	}
	return ""
}

// hasControl reports control characters and broken UTF-8. It looks at eight bytes
// at a time while they are of the usual kind: every call has a key and a subject.
func hasControl(s string) bool {
	for len(s) >= 8 && plainASCII(s) {
		s = s[8:]
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			return hasControlRune(s[i:])
		}
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}

// plainASCII says that the first eight bytes are ASCII without control characters.
func plainASCII(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	_ = s[7]
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	below := x - ' '*ones         // borrows where a byte is below a space
	del := (x ^ 0x7f*ones) - ones // borrows where a byte is 0x7f
	return (x|below|del)&tops == 0
}

func hasControlRune(s string) bool {
	for i, r := range s {
		if unicode.IsControl(r) {
			return true
		}
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return true
			}
		}
	}
	return false
}

// shown quotes s for an error text, cut where it would flood a log.
func shown(s string) string {
	const most = 40
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", s[:most])
}
