package ledger

import (
	"strings"
	"unsafe"
)

// A series' name is the subject, or the encoded key if it has dimensions. A short
// one lies right behind the series, where looking it up costs no cache miss of its
// own and no memory for a pointer.
type (
	series16 struct {
		Series
		name [16]byte
	}
	series32 struct {
		Series
		name [32]byte
	}
	series64 struct {
		Series
		name [64]byte
	}
	seriesLong struct {
		Series
		name *byte
	}
)

// allocateSeries makes an empty series with a copy of name behind it.
func allocateSeries(name string) *Series {
	switch n := len(name); {
	case n <= 16:
		s := new(series16)
		copy(s.name[:], name)
		return &s.Series
	case n <= 32:
		s := new(series32)
		copy(s.name[:], name)
		return &s.Series
	case n <= 64:
		s := new(series64)
		copy(s.name[:], name)
		return &s.Series
	default:
		return &(&seriesLong{name: unsafe.StringData(strings.Clone(name))}).Series
	}
}

func (s *Series) name() string {
	if s.nameLen > 64 {
		return unsafe.String((*seriesLong)(unsafe.Pointer(s)).name, s.nameLen)
	}
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(s), unsafe.Sizeof(*s))), s.nameLen)
}
