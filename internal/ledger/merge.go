package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// mergeBytes bounds the memory that one merge takes.
const mergeBytes = 128 << 20

// mergeAfter is how long after its end an hour is left alone, in seconds: a short
// outage needs no merging.
const mergeAfter = 300

// merge joins what a long outage left unsent, per route, into one wider segment
// an hour. Only Sums that were never attempted take part, and an hour of UTC is
// never left. The new segment names its inputs; it is durable before they are
// marked as moved, and they are marked durably before its first attempt.
func (l *Ledger) merge() {
	l.tidying.Lock()
	defer l.tidying.Unlock()
	for route := range l.routes {
		for _, inputs := range l.mergeable(route) {
			if l.stopping() || l.reading > 0 {
				return
			}
			if err := l.mergeHour(route, inputs); err != nil {
				l.health.set("merge", fmt.Errorf("meter: can't merge unsent segments: %w", err))
				return
			}
		}
	}
	if len(l.unmarked) == 0 {
		l.health.clear("merge")
	}
}

// slice is what a merged segment stays within: an hour of UTC, as one process
// counted it, and of it what stands on one bill.
type slice struct {
	hour     int64
	instance uint8
	bill     int // counts up at the ends of bills within the process's windows
}

// mergeable groups a route's unsent segments by hour.
func (l *Ledger) mergeable(route int) [][]*sealed {
	hours := make(map[slice][]*sealed)
	now := l.tick()
	var bills [256]int // by instance
	for _, sd := range l.sealedNow() {
		if sd.head.afterEnd {
			bills[sd.head.instance]++
		}
		bill := bills[sd.head.instance]
		if sd.head.atEnd {
			bills[sd.head.instance]++
		}
		hour := sd.head.start / 3600
		if sd.head.merged || sd.head.end > (hour+1)*3600 || now < (hour+1)*3600+mergeAfter {
			continue
		}
		sd.mu.Lock()
		if sd.unsent[route] > 0 && !sd.paused && !sd.anyUndecided(route) {
			s := slice{hour, sd.head.instance, bill}
			hours[s] = append(hours[s], sd)
		}
		sd.mu.Unlock()
	}
	var groups [][]*sealed
	inOrder := func(a, b slice) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.instance, b.instance), cmp.Compare(a.bill, b.bill))
	}
	for _, s := range slices.SortedFunc(maps.Keys(hours), inOrder) {
		for _, group := range portions(hours[s]) {
			if len(group) > 1 {
				groups = append(groups, group)
			}
		}
	}
	return groups
}

// portions splits segments so that each part fits into memory, and its list of
// inputs into a head.
func portions(all []*sealed) (parts [][]*sealed) {
	first, bytes := 0, int64(0)
	for i, sd := range all {
		n := int64(sd.head.blocks) * blockSize
		if i-first == maxInputs || i-first > 1 && bytes+n > mergeBytes {
			parts, first, bytes = append(parts, all[first:i]), i, 0
		}
		bytes += n
	}
	return append(parts, all[first:])
}

// mergeHour merges one group. No record of the route is taken or decided about
// meanwhile. The caller holds tidying.
func (l *Ledger) mergeHour(route int, inputs []*sealed) error {
	ln := &l.lanes[route]
	ln.mu.Lock()
	defer ln.mu.Unlock()

	h := head{uuid: newUUID(), merged: true, instance: inputs[0].head.instance, start: inputs[0].head.start, routes: []owed{{l.routes[route].Name, destinationOf(l.routes[route].Address)}}}
	limit := l.maxQuantity
	for _, sd := range inputs {
		sd.pin(1) // what is summed up now is what is marked below
		defer sd.pin(-1)
		if err := sd.catchUp(); err != nil {
			return err
		}
	}
	// The merged record begins where the first input does. A series of which that
	// input has a record with a history of its own would begin there twice.
	taken, err := inputs[0].takenKeys(route)
	if err != nil {
		return err
	}
	sums := make(map[string]int64)
	var keys []string
	h.afterEnd, h.atEnd = inputs[0].head.afterEnd, inputs[len(inputs)-1].head.atEnd
	for _, sd := range inputs {
		h.inputs = append(h.inputs, sd.head.uuid)
		h.end, h.dated = max(h.end, sd.head.end), h.dated || sd.head.dated
		ok := true
		err := sd.eachFresh(route, func(block uint32) {
			key, q := string(sd.img.key(block)), sd.img.quantity(block)
			if taken[key] {
				return
			}
			if _, known := sums[key]; !known {
				keys = append(keys, key)
			}
			if sums[key] > limit-q {
				ok = false
				return
			}
			sums[key] += q
		})
		if err != nil {
			return err
		}
		if !ok {
			return nil // one record could not carry it: leave the hour as it is
		}
	}
	if len(keys) == 0 {
		return nil
	}
	var blocks []byte
	for _, key := range keys {
		at := len(blocks)
		blocks = append(blocks, make([]byte, int(blocksFor(len(key)))*blockSize)...)
		putSlot(blocks[at:], h.uuid, uint32(at/blockSize), newShape(len(key), 0, 0), 0, []byte(key))
		sealSlot(blocks[at:], h.uuid, uint64(sums[key])|wordSet)
		o := outcomes{states: [MaxRoutes]state{pending}}
		o.put(blocks[at:], h.uuid)
	}
	h.blocks, h.slots = uint32(len(blocks)/blockSize), uint32(len(keys))
	path := ""
	if l.store != nil {
		h.inputsSum = checksum(h.uuid, h.encodeInputs())
		var err error
		if path, err = l.store.writeSegment(&h, blocks); err != nil {
			return err
		}
	}
	merged := newSealed(l, h, path)
	merged.paused = true // until the inputs are marked, durably
	img, _ := newImage(blocks, h.uuid, true)
	merged.setImage(img)

	l.mu.Lock()
	l.insert(merged)
	marked := make(map[*sealed][]uint32)
	for _, sd := range inputs {
		sd.mu.Lock()
		marked[sd] = sd.moveFresh(sd.entry[route], sums)
		sd.mu.Unlock()
	}
	l.unmarked[merged] = inputs
	l.mu.Unlock()
	return l.settleMerge(merged, marked)
}

// settleMerge makes the marks of a merge durable and frees the merged segment. If
// a mark can't be written that waits for settleMerges.
func (l *Ledger) settleMerge(merged *sealed, marked map[*sealed][]uint32) error {
	var failed error
	for sd, blocks := range marked {
		sd.mu.Lock()
		failed = errors.Join(failed, sd.persist(blocks, true))
		sd.closeFile() // an hour has more windows than a process may have files open
		sd.mu.Unlock()
	}
	if failed != nil {
		return fmt.Errorf("meter: merged counts wait: %w", failed)
	}
	l.unpause(merged)
	return nil
}

// settleMerges tries again what settleMerge could not finish.
func (l *Ledger) settleMerges() {
	l.tidying.Lock()
	defer l.tidying.Unlock()
	for merged, inputs := range l.unmarked {
		var failed error
		for _, sd := range inputs {
			if l.holds(sd.head.uuid) { // else it was folded: nothing of it can be sent
				sd.mu.Lock()
				failed = errors.Join(failed, sd.flush())
				sd.closeFile()
				sd.mu.Unlock()
			}
		}
		if failed == nil {
			l.unpause(merged)
		}
	}
}

// unpause lets a merged segment be sent. The caller holds tidying.
func (l *Ledger) unpause(merged *sealed) {
	delete(l.unmarked, merged)
	merged.mu.Lock()
	merged.paused = false
	merged.unload()
	merged.mu.Unlock()
	l.wake(merged)
}

// eachFresh calls visit, with mu held, for every record of route that was never
// attempted.
func (sd *sealed) eachFresh(route int, visit func(block uint32)) error {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	img, err := sd.load()
	if err != nil {
		return err
	}
	entry := sd.entry[route]
	for _, block := range img.slots {
		if sd.fresh(block, sd.outcomes(block), entry) {
			visit(block)
		}
	}
	return nil
}

// finishMerges marks the inputs of merged segments whose process died before it
// could. Nothing of such a segment was ever attempted.
func (l *Ledger) finishMerges(list []*sealed) error {
	byUUID := make(map[uuid]*sealed)
	for _, sd := range list {
		byUUID[sd.head.uuid] = sd
	}
	for _, merged := range list {
		marked := make(map[*sealed][]uint32)
		var sums map[string]int64
		for _, u := range merged.head.inputs {
			sd := byUUID[u]
			if sd == nil {
				continue
			}
			if sums == nil {
				var err error
				if sums, err = merged.sums(); err != nil {
					return fmt.Errorf("meter: can't finish a merge: %w", err)
				}
			}
			sd.mu.Lock()
			_, err := sd.load()
			for i, o := range sd.head.routes {
				if err == nil && o == merged.head.routes[0] {
					marked[sd] = sd.moveFresh(i, sums)
				}
			}
			sd.mu.Unlock()
			if err != nil {
				return fmt.Errorf("meter: can't finish a merge: %w", err)
			}
		}
		if err := l.settleMerge(merged, marked); err != nil {
			return err
		}
	}
	return nil
}

// takenKeys are the series of which this segment has a record on the route that is
// not as it was when it was sealed: attempted, held, or part of a merge already.
func (sd *sealed) takenKeys(route int) (map[string]bool, error) {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	img, err := sd.load()
	if err != nil {
		return nil, err
	}
	keys, entry := make(map[string]bool), sd.entry[route]
	for _, block := range img.slots {
		if o := sd.outcomes(block); o.states[entry] != unowed && !sd.fresh(block, o, entry) {
			keys[string(img.key(block))] = true
		}
	}
	return keys, nil
}

// sums are the quantities of a merged segment's records, by series.
func (sd *sealed) sums() (map[string]int64, error) {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	img, err := sd.load()
	if err != nil {
		return nil, err
	}
	sums := make(map[string]int64)
	for _, block := range img.slots {
		sums[string(img.key(block))] = img.quantity(block)
	}
	return sums, nil
}

// moveFresh marks the never attempted records of a table entry as moved whose
// series a merged segment has in sums. The caller holds mu, has the image loaded,
// and persists.
func (sd *sealed) moveFresh(entry int, sums map[string]int64) (blocks []uint32) {
	for _, block := range sd.img.slots {
		if _, merged := sums[string(sd.img.key(block))]; merged && sd.fresh(block, sd.outcomes(block), entry) {
			sd.set(block, func(o *outcomes) { o.states[entry] = moved })
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// anyUndecided reports whether the route was not asked about some record yet:
// those could not be told from the merged ones later. The caller holds mu.
func (sd *sealed) anyUndecided(route int) bool {
	for _, t := range sd.tallies {
		if t[sd.entry[route]][undecided] != 0 {
			return true
		}
	}
	return false
}

// catchUp brings outcomes to disk that could not be written. An attempt of which the
// disk does not know would be taken for a part of the merge by finishMerges.
func (sd *sealed) catchUp() error {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if !sd.ahead {
		return nil
	}
	return sd.flush()
}

// pin keeps the image in memory while n is above 0.
func (sd *sealed) pin(n int) {
	sd.mu.Lock()
	sd.pins += n
	sd.mu.Unlock()
}
