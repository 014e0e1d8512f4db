package stripesink

import (
	"time"

	"github.com/inprocess/meter/sink"
)

// registers give each record of a subscription item a second of its own. Stripe keeps
// one quantity for each second and `set` overwrites it, so a record can be sent there
// any number of times and counts once, and two records that shared one would count as
// the later alone.
//
// Of every cycle of seconds each instance owns one, and the last one, spare, is left
// for what is added up instead of set.
type registers struct{ instances int64 }

func (g registers) cycle() int64 { return g.instances + 1 }

// apart is how far the windows of one series must begin apart. A cycle would do for
// seconds that differ; one more keeps them inside of a window that runs for as long,
// where the next one begins with another bill.
func (g registers) apart() time.Duration { return time.Duration(g.cycle()+1) * time.Second }

// second is where a record stands: a function of nothing but the record, so that it is
// the same on every attempt, in every process.
//
// It is in (Start, Start+cycle], so after the begin of this window and before that of
// the next: never at a second at which a window was made to begin because a billing
// period does, for there Stripe refuses usage.
//
// A level is what held last, and its windows never overlap. So it stands at the end of
// its window if that is later, which is still before the next one begins. The windows
// of sums do overlap once those of an outage were merged; only their begins differ.
func (g registers) second(r sink.Record) int64 {
	latest := r.Start.Unix() + g.cycle()
	if r.Kind != sink.Sum {
		latest = max(latest, r.End.Unix()-1)
	}
	return g.before(latest, int64(r.Instance))
}

// spare is the last second up to at where no record is set.
func (g registers) spare(at int64) int64 { return g.before(at, g.instances) }

// before is the last second up to at which owner owns.
func (g registers) before(at, owner int64) int64 {
	cycle := g.cycle()
	return at - ((at-owner)%cycle+cycle)%cycle
}
