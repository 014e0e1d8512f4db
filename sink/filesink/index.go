package filesink

import (
	"crypto/sha256"
	"maps"
)

// id is what the sink remembers of an ID: half a SHA-256, for two IDs that
// looked alike would mean a record never billed.
type id [16]byte

func idOf(text []byte) id {
	sum := sha256.Sum256(text)
	return id(sum[:])
}

// index knows which IDs stand in which file.
type index struct {
	files []string // name of each file; "" while it is being written
	ids   map[id]uint32
}

func newIndex() index { return index{ids: map[id]uint32{}} }

// begin makes name the file that IDs are added to.
func (x *index) begin(name string) { x.files = append(x.files, name) }

func (x *index) add(i id) { x.ids[i] = uint32(len(x.files) - 1) }

func (x *index) has(i id) bool {
	_, ok := x.ids[i]
	return ok
}

// renamed gives the file being written its name.
func (x *index) renamed(name string) { x.files[len(x.files)-1] = name }

// forget drops the IDs of the named files that are gone. A file without a name
// is never forgotten: nobody knows where it went.
func (x *index) forget(gone func(name string) bool) {
	drop := map[uint32]bool{}
	for i, name := range x.files {
		if name != "" && gone(name) {
			drop[uint32(i)] = true
			x.files[i] = ""
		}
	}
	if len(drop) > 0 {
		maps.DeleteFunc(x.ids, func(_ id, file uint32) bool { return drop[file] })
	}
}
