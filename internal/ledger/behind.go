package ledger

import "sync"

// behind are tallies that looked at their series while a window was being sealed. What
// a series had counted there can't be read from when it counts in the next one until it
// is part of the series' total: then they look again.
type behind struct {
	mu  sync.Mutex
	all map[*Tally]struct{}
}

func (b *behind) add(t *Tally) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = make(map[*Tally]struct{})
	}
	b.all[t] = struct{}{}
}

// catchUp has them look again. The caller has sealed what was retired.
func (b *behind) catchUp() {
	b.mu.Lock()
	all := b.all
	b.all = nil
	b.mu.Unlock()
	for t := range all {
		t.lookAgain()
	}
}

// missed is called after something was counted past a tally.
func (s *Series) missed() {
	t := s.tally()
	if t == nil {
		return
	}
	l := s.feature.ledger
	l.mu.Lock()
	sealing := len(l.retired) > 0
	l.mu.Unlock()
	if sealing { // before it looks: what was sealed by then is seen
		l.behind.add(t)
	}
	t.lookAgain()
}

// lookAgain counts what was counted past the tally.
func (t *Tally) lookAgain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.unseen(); n > 0 {
		began := t.feature.ledger.began.Load()
		t.count(when{began, began}, n)
	}
}
