package cryptolenssink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/sink"
)

// settleTime is how long a data object is left alone after a call without an answer
// that wrote its text or made it: such a call may take effect late, over what is written
// meanwhile. That it doesn't after this time is not verified.
const settleTime = time.Minute

// Deliver counts the records one after another, each on the data object of its key and
// feature. It stops at the first trouble that is not the record's own and when ctx ends;
// the records behind it are not counted and say so.
//
// Blocking: until all are answered, at most 10 s for a key, 20 s a call, and as long for
// calls for the same key that are under way, or until ctx ends.
//
// Errors: nil, or a [*sink.BatchError], or one error if it holds for all. A record is
// [sink.ErrRejected] if its data object can't count it, or can't tell any more whether it
// was counted; [sink.ErrPostponed] if it waits for a key, or for its data object;
// [sink.ErrNotApplied] if it surely was not counted for another reason; anything else is
// doubt. No error holds token or key.
func (c *Counters) Deliver(ctx context.Context, records []sink.Record) error {
	if c.faults != nil {
		return errFaulty(c.faults)
	}
	return each(ctx, records, c.deliver)
}

// deliver counts one record. halt says that the records behind it should wait.
func (c *Counters) deliver(ctx context.Context, r sink.Record) (err error, halt bool) {
	if err := c.check(r); err != nil {
		return err, false
	}
	key, err := c.keys.of(ctx, r)
	if err != nil {
		return err, false
	}
	end, err := c.turns.take(ctx, key)
	if err != nil {
		return errUnsent(err), true
	}
	defer end()
	at := place{key, c.object(r)}
	if left := c.recent.rests(at); left > 0 {
		return sink.RetryAfter(postpone(r, "data object %q is left alone after a call without an answer", at.object), left), false
	}
	return c.deliverTo(ctx, r, at)
}

func (c *Counters) check(r sink.Record) error {
	switch {
	case r.Kind != sink.Sum && r.Kind != sink.Last:
		return reject(r, "a data object can't bill kind %v of feature %q", r.Kind, r.Feature)
	case r.Kind == sink.Last && len(r.Dimensions) > 0:
		return reject(r, "feature %q is a level with dimensions: the series would overwrite each other", r.Feature)
	case r.Instance < 0:
		return reject(r, "instance %d", r.Instance)
	}
	if err := checkQuantity(r); err != nil {
		return err
	}
	return c.checkFeature(r.Feature)
}

// object is the name of the record's data object.
func (c *Counters) object(r sink.Record) string {
	name := c.cfg.Objects[r.Feature]
	if r.Instance > 0 {
		name = fmt.Sprintf("%s-%d", name, r.Instance)
	}
	return name
}

func (c *Counters) deliverTo(ctx context.Context, r sink.Record, at place) (err error, halt bool) {
	o, err := c.open(ctx, at)
	if err != nil {
		return unbegun(r, err)
	}
	if r.Kind == sink.Last {
		return classify(r, c.client.SetInt(ctx, c.owner(at), at.ref(), r.Quantity))
	}
	err, halt = c.count(ctx, r, at, o)
	c.recent.note(r, at, err)
	return err, halt
}

// count increments by the record, unless it was counted before.
func (c *Counters) count(ctx context.Context, r sink.Record, at place, o cryptolens.DataObject) (err error, halt bool) {
	j, err := parseJournal(o.String)
	if err != nil {
		return postpone(r, "data object %q: %w", at.object, err), false
	}
	if i := j.intent; i != nil {
		// Its increment may have been ended on the way, and arrive at any time: only once
		// it is there it can do no harm.
		if o.Int == i.base {
			if err := c.increment(ctx, at, o.ID, *i); err != nil {
				if i.entry.id != entryOf(r).id {
					return unbegun(r, fmt.Errorf("a record before it is not counted yet: %w", err))
				}
				return noted(r, err)
			}
			o.Int = i.target
		}
		j.close(o.Int != i.target)
		if i.entry.id == entryOf(r).id && o.Int == i.target {
			c.tidy(ctx, at, o, j)
			return nil, false
		}
	}
	switch e, found := j.find(r); {
	case found && !e.lost:
		return nil, false
	case found && r.Doubt:
		c.tidy(ctx, at, o, j) // or the intent would be taken up again if the number came back
		return reject(r, "data object %q was set to something else while the record was in doubt: compare its number with what was used", at.object), false
	case !found && r.Doubt && !c.recent.knows(r, at):
		return reject(r, "data object %q doesn't know it, and another key's may: where it was sent to is forgotten since the process was started, or the key of subject %q has changed", at.object, r.Subject), false
	case !found && r.Doubt && r.End.Unix() <= j.floor:
		return reject(r, "data object %q doesn't remember records of that time: compare its number with what was used", at.object), false
	case o.Int > math.MaxInt32-r.Quantity:
		return postpone(r, "data object %q is full at %d: reset it", at.object, o.Int), false
	}
	if err := checkTime(r); err != nil {
		return err, false
	}
	before := j.String()
	j.begin(r, o.Int)
	if err := c.write(ctx, at, o, j.String()); err != nil {
		return classify(r, err) // the intent may be there, so doubt is the record's own
	}
	if err := c.increment(ctx, at, o.ID, *j.intent); err != nil {
		if !errors.Is(err, cryptolens.ErrInDoubt) && c.write(ctx, at, o, before) == nil {
			return classify(r, err)
		}
		return noted(r, err)
	}
	o.Int = j.intent.target
	j.close(false)
	c.tidy(ctx, at, o, j)
	return nil, false
}

// noted is the outcome of a record whose intent stays on its data object: whatever became
// of the increment, the next record there carries it out, wherever this one is sent by then.
func noted(r sink.Record, err error) (outcome error, halt bool) {
	outcome, halt = classify(r, err)
	return sink.RetryAfter(doubt(r, fmt.Errorf("it is noted to be counted: %w", err)), sink.RetryDelay(outcome)), halt
}

// tidy notes that the intent was fulfilled. What was counted is counted, so it is no
// fault of the record if that fails; but if the API then sets the number back to the one
// before, the intent reads as if nothing had been counted yet.
func (c *Counters) tidy(ctx context.Context, at place, o cryptolens.DataObject, j journal) {
	_ = c.write(ctx, at, o, j.String())
}

// errRefused is an increment that the API has refused in words that are not known, and
// that is not there.
var errRefused = fmt.Errorf("%w: the data object had another number than before, or is bound", cryptolens.ErrNotApplied)

// increment does what was noted, at most once however often it is asked.
func (c *Counters) increment(ctx context.Context, at place, id int64, i intent) error {
	err := c.client.IncrementUpTo(ctx, c.owner(at), at.ref(), i.target-i.base, i.target)
	if !errors.Is(err, cryptolens.ErrInDoubt) {
		return err
	}
	o, reading := c.find(ctx, at)
	switch {
	case reading != nil:
		return err
	case o.ID == id && o.Int == i.target:
		return nil
	case errors.Is(err, cryptolens.ErrUnknown):
		return fmt.Errorf("%w: %s", errRefused, err.Error())
	}
	return err
}

// write sets the text of a data object, which must then be there.
func (c *Counters) write(ctx context.Context, at place, o cryptolens.DataObject, text string) error {
	err := c.client.SetString(ctx, c.owner(at), at.ref(), text)
	if !errors.Is(err, cryptolens.ErrInDoubt) {
		return err
	}
	if now, reading := c.find(ctx, at); reading == nil && now.String == text && now.ID == o.ID && now.Int == o.Int {
		return nil
	}
	c.recent.rest(at)
	return err
}

// open finds the data object of a place, or makes it.
func (c *Counters) open(ctx context.Context, at place) (cryptolens.DataObject, error) {
	o, err := c.find(ctx, at)
	if !errors.Is(err, errAbsent) {
		return o, err
	}
	o = cryptolens.DataObject{Name: at.object}
	if o.ID, err = c.client.AddDataObject(ctx, c.owner(at), o); errors.Is(err, cryptolens.ErrInDoubt) {
		c.recent.rest(at)
	}
	return o, err
}

var (
	errAbsent  = errors.New("there is no such data object")
	errSeveral = fmt.Errorf("%w: several data objects have its name: remove all but one", cryptolens.ErrNotApplied)
)

// find reads the data object of a place.
func (c *Counters) find(ctx context.Context, at place) (o cryptolens.DataObject, err error) {
	list, err := c.client.DataObjects(ctx, c.owner(at), at.object)
	if err != nil {
		return o, err
	}
	n := 0
	for _, each := range list { // the API finds parts of names, too
		if each.Name == at.object {
			o = each
			n++
		}
	}
	switch n {
	case 0:
		return o, errAbsent
	case 1:
		return o, nil
	}
	return o, errSeveral
}

func (c *Counters) owner(at place) cryptolens.Owner {
	return cryptolens.Owner{ProductID: c.cfg.ProductID, Key: at.key}
}

// unbegun is the outcome of a record that was not noted in this attempt: whatever else is
// in doubt, it is not.
func unbegun(r sink.Record, err error) (outcome error, halt bool) {
	if errors.Is(err, cryptolens.ErrInDoubt) {
		return notApplied(r, err), true
	}
	return classify(r, err)
}
