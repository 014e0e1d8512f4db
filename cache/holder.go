package cache

import "github.com/inprocess/meter/license"

// holder is whom a final denial is about, whatever was asked.
type holder struct {
	key     license.Key
	subject string
}

func holderOf(q *license.Query) holder { return holder{q.Key, q.Subject} }

// kin finds the entries of one holder, in lists: with every made-up key comes a final
// denial, which must not look through everybody's entries.
type kin map[holder]*entry

func (k kin) add(e *entry) {
	who := holderOf(&e.query)
	if e.younger = k[who]; e.younger != nil {
		e.younger.elder = e
	}
	k[who] = e
}

func (k kin) remove(e *entry) {
	if e.younger != nil {
		e.younger.elder = e.elder
	}
	switch {
	case e.elder != nil:
		e.elder.younger = e.younger
	case e.younger != nil:
		k[holderOf(&e.query)] = e.younger
	default:
		delete(k, holderOf(&e.query))
	}
	e.elder, e.younger = nil, nil
}

// flights are those under way, by holder.
type flights map[holder]map[license.Query]*flight

func (s flights) find(q license.Query) *flight { return s[holderOf(&q)][q] }

func (s flights) add(q license.Query, f *flight) {
	who := holderOf(&q)
	if s[who] == nil {
		s[who] = map[license.Query]*flight{}
	}
	s[who][q] = f
}

// remove says whether f was listed: what it brings may be kept.
func (s flights) remove(q license.Query, f *flight) bool {
	who := holderOf(&q)
	if s[who][q] != f {
		return false
	}
	if delete(s[who], q); len(s[who]) == 0 {
		delete(s, who)
	}
	return true
}
