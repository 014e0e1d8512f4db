package cryptolenssink

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strconv"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/sink"
)

// Counters counts usage on data objects of the license key, which the vendor can show,
// charge by, or reset. Create it with [NewCounters].
//
//	feature, kind Sum     a counter that is incremented
//	feature, kind Last    a level that is set
//
// # What keeps a record from being counted twice
//
// A level is set to what it is, so that setting it again changes nothing.
//
// A counter is incremented by the record's quantity, with a bound of what it then has:
// as long as nobody else counts on it, the API can do that once, however often it is
// asked. Which record is being counted, from which number to which, is first noted in
// the data object's own text, with the last 200 records that were counted. So an
// attempt without an answer is settled by reading, also after a restart and however
// late: the number is the one after, or it is the one before and the increment is asked
// for again. A record takes four calls, and one more for the first of its key.
//
// What is noted will be counted, be it with the next record of the data object. So a
// record is in doubt from when it may have been noted, until it is counted or the note
// was taken back.
//
// # What waits for a person
//
// A record in doubt is counted nowhere but where it was noted. If its data object doesn't
// know it, it is rejected into quarantine,
//
//	the key of the subject has changed           the old key's data object may have it
//	the process was started again meanwhile      the same, for nobody knows which key it was
//	more than 200 records were counted since     it may have been among them
//
// so that a process that is killed leaves up to 20 such records: those that it had taken
// and not noted yet. One that it had noted is settled by itself.
//
// Whoever decides should know that a record that stands in the text of the old key's data
// object, as the one being counted, is counted there with the next record that comes to
// that key, even if it is voided or sent again to another key. To prevent that, remove
// the data object or change its number.
//
// # Who else may write
//
// The vendor may set the number of a counter, and have the API reset it at intervals
// (cryptolens_dobjreset): a record is then counted upon what it finds. Only a record in
// doubt at that moment can't be told any more, and is rejected into quarantine, where a
// person decides. If the API sets the counter back to the very number from before that
// record, it is counted a second time: once before the reset, and once after.
//
// Nobody may write the data object's text, and no second process may count on it. Several
// processes count on data objects of their own, if meter.Config.Instance numbers them:
// instance 1 of "reports" is "reports-1". A call without an answer that writes the text
// may arrive late, over what was written meanwhile. A process waits for a minute after
// one, but the next process doesn't know of it: after an outage, start it a minute later.
//
// A counter has 32 bits. One that is full takes no more, and its records stay pending
// until it is reset.
//
// A counter has no time: usage counts when it arrives. Usage that is reported for a
// calendar month that is over ([sink.Record].Backdated) is therefore rejected.
//
// Dimensions are not sent. A level can't have any.
//
// Concurrency: safe.
type Counters struct {
	cfg    CountersConfig
	faults error
	client *cryptolens.Client
	keys   keys
	turns  turns
	recent recent
}

var (
	_ sink.Sink      = (*Counters)(nil)
	_ sink.Limiter   = (*Counters)(nil)
	_ sink.Validator = (*Counters)(nil)
	_ sink.Preparer  = (*Counters)(nil)
	_ sink.Combiner  = (*Counters)(nil)
	_ sink.Addressed = (*Counters)(nil)
)

// NewCounters returns a sink for cfg, which it copies. It does no input or output and
// never fails: [Counters.Validate] tells what is wrong with cfg, and meter.Open asks.
func NewCounters(cfg CountersConfig) *Counters {
	cfg.Objects = maps.Clone(cfg.Objects)
	return &Counters{cfg: cfg, faults: cfg.validate(), client: newClient(cfg.Token, cfg.BaseURL, cfg.AllowHTTP, cfg.HTTPClient), keys: newKeys(cfg.Key), turns: newTurns()}
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with the token in it.
func (c *Counters) Validate() error { return c.faults }

// Limits are the API's, as far as they are known: numbers have 32 bits. It documents no
// limit of requests, so Rate is a guess. DedupeWindow has no end, for a data object
// remembers what was counted on it, and what it can't tell is rejected.
func (c *Counters) Limits() sink.Limits {
	l := limits(c.cfg.Rate)
	l.DedupeWindow = sink.Forever
	return l
}

// Kinds are [sink.Sum] and [sink.Last]. A data object knows no highest level.
func (c *Counters) Kinds() []sink.Kind { return []sink.Kind{sink.Sum, sink.Last} }

// Prepare refuses features without a data object. It uses no network: data objects are
// made when the first record of a key comes.
//
// Errors: a [*sink.BatchError] that names the features at fault; the faults of the
// configuration.
func (c *Counters) Prepare(_ context.Context, features []sink.Feature) error {
	return prepare(c.faults, features, c.checkFeature)
}

func (c *Counters) checkFeature(name string) error {
	if _, ok := c.cfg.Objects[name]; ok {
		return nil
	}
	return fmt.Errorf("%w: cryptolenssink: feature %q has no data object: its counts are kept; name one in CountersConfig.Objects, or keep its records off this route by Route.Match",
		sink.ErrPostponed, name)
}

// Address is "cryptolens:", the product, and "/data", such as "cryptolens:3646/data".
func (c *Counters) Address() string {
	return "cryptolens:" + strconv.Itoa(c.cfg.ProductID) + "/data"
}

// Close drops idle connections, unless CountersConfig.HTTPClient was given. The sink
// stays usable.
//
// Errors: none.
func (c *Counters) Close() error { return c.client.Close() }

// Format prints the sink's address, whatever the verb.
func (c *Counters) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.Address()) }

// LogValue is the sink's address.
func (c *Counters) LogValue() slog.Value { return slog.StringValue(c.Address()) }
