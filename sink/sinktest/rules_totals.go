package sinktest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/inprocess/meter/sink"
)

const defaultBatch = 100 // that of Limits.MaxBatch

var totalsRule = rule{
	name: "totals",
	why:  "when Deliver returns nil, the biller has every record, exactly: meter forgets them then",
	check: func(tr *trial) {
		r := tr.record(tr.kind, tr.subject(), 3)
		tr.must("one record", r)
		tr.wantTotal(r, 3, "one record")
		other := tr.record(tr.kind, tr.subject(), 5)
		tr.must("one record of another subject", other)
		tr.wantTotal(other, 5, "one record of another subject")
		tr.wantTotal(r, 3, "one record of another subject")
	},
}

var batchRule = rule{
	name: "batch",
	why:  "Deliver must take as many records as Limits.MaxBatch says (0: 100), and bill each of them",
	check: func(tr *trial) {
		n := tr.limits.MaxBatch
		if n <= 0 {
			n = defaultBatch
		}
		// Asking for a total may be slow: where records add up, few subjects do.
		subjects := n
		if tr.kind == sink.Sum {
			subjects = min(n, defaultBatch)
		}
		records, want := make([]sink.Record, n), make([]int64, subjects)
		for i := range records {
			if i < subjects {
				records[i] = tr.record(tr.kind, tr.subject(), int64(i+1))
			} else {
				records[i] = window(tr.record(tr.kind, records[i%subjects].Subject, int64(i+1)), i/subjects)
			}
			want[i%subjects] += records[i].Quantity
		}
		tr.must(fmt.Sprintf("a batch of %d", n), records...)
		for i, total := range want {
			tr.wantTotal(records[i], total, fmt.Sprintf("a batch of %d, in which it is number %d,", n, i+1))
		}
	},
}

var windowsRule = rule{
	name: "windows",
	why: "records of one series in different windows are different usage: Sum adds all of them up, " +
		"also when an older one comes later",
	check: func(tr *trial) {
		tr.needsSum()
		subject := tr.subject()
		record := func(quantity int64, n int) sink.Record {
			return window(tr.record(sink.Sum, subject, quantity), n)
		}
		first := record(1, 1)
		tr.must("two windows in a batch", first, record(2, 2))
		tr.wantTotal(first, 3, "two windows of one series in a batch")
		tr.must("a newer window", record(4, 3))
		tr.wantTotal(first, 7, "a newer window of the series")
		tr.must("an older window", record(8, 0))
		tr.wantTotal(first, 15, "an older window of the series")
		if tr.limits.MinWindow > 0 {
			return // meter makes no second record of a series that begins at the same time
		}
		// Same quantity and window as one before: only the ID tells them apart.
		tr.must("a record like an earlier one, under another ID", record(8, 0))
		tr.wantTotal(first, 23, "a record like an earlier one, under another ID")
	},
}

var dimensionsRule = rule{
	name: "dimensions",
	why: "series that differ in their dimensions alone are different usage in the same window: " +
		"none may replace another, and dimensions must arrive as they are",
	check: func(tr *trial) {
		tr.needsSum()
		series := []map[string]string{
			nil, {"region": "eu"}, {"region": "us"}, {"region": "eu", "tier": "gold"},
			{"a": "1,b=2"}, {"a": "1", "b": "2"}, {"zone": `"é"`},
		}
		subject := tr.subject()
		records := make([]sink.Record, len(series))
		var want int64
		for i, dimensions := range series {
			records[i] = tr.record(sink.Sum, subject, 1<<i)
			records[i].Dimensions = dimensions
			want += records[i].Quantity
		}
		tr.must("series that differ in dimensions", records[:4]...)
		tr.must("series that differ in dimensions", records[4:]...)
		tr.wantTotal(records[0], want, "series that differ in dimensions")
		if tr.Series == nil {
			return
		}
		for _, r := range records {
			if got := tr.Series(tr.t, r.Feature, subject, r.Dimensions); got != r.Quantity {
				tr.failf("the biller has %d for dimensions %q, want %d", got, r.Dimensions, r.Quantity)
			}
		}
	},
}

var usageRule = rule{
	name: "usage",
	why:  "Usage must tell what the biller has: meter reconciles with it",
	check: func(tr *trial) {
		reader, ok := tr.sink.(sink.Reader)
		if !ok {
			tr.skip("the sink is no sink.Reader")
		}
		r := tr.record(tr.kind, tr.subject(), 6)
		usage := func() int64 {
			ctx, cancel := context.WithTimeout(context.Background(), callTime)
			defer cancel()
			// Whole minutes: billers aggregate, and round to their own windows.
			start := r.Start.Truncate(time.Minute)
			got, err := reader.Usage(ctx, r.Feature, r.Subject, start, start.Add(2*time.Minute))
			if err != nil {
				tr.fatalf("Usage: %w", err)
			}
			return got
		}
		if got := usage(); got != 0 {
			tr.failf("Usage is %d before anything was delivered, want 0", got)
		}
		tr.must("one record", r)
		if got := usage(); got != r.Quantity {
			tr.failf("Usage is %d after a record of %d", got, r.Quantity)
		}
	},
}

var bigRule = rule{
	name: "big quantity",
	why:  "a quantity is an int64 of up to 1<<53-1, or Limits.MaxQuantity: no unit of it may be lost to a smaller type",
	check: func(tr *trial) {
		quantity := int64(1<<53 - 1)
		if most := tr.limits.MaxQuantity; most > 0 {
			quantity = min(quantity, most)
		}
		r := tr.record(tr.kind, tr.subject(), quantity)
		tr.must("a big quantity", r)
		tr.wantTotal(r, quantity, "a big quantity")
	},
}

var levelsRule = rule{
	name: "levels",
	why: "a level (Max, Last) counts as it is, also 0: seats may fall to none. " +
		"A sink that can't bill a kind must leave it out of Kinds (sink.Combiner), so that meter refuses the feature at once",
	check: func(tr *trial) {
		for _, kind := range tr.kinds {
			if kind == sink.Sum {
				continue
			}
			r := tr.record(kind, tr.subject(), 12)
			tr.must(kind.String()+" of 12", r)
			tr.wantTotal(r, 12, kind.String()+" of 12")
			zero := tr.record(kind, tr.subject(), 0)
			tr.must(kind.String()+" of 0", zero)
			tr.wantTotal(zero, 0, kind.String()+" of 0")
		}
	},
}

var subjectsRule = rule{
	name: "subjects",
	why: "a subject is any text of up to 256 bytes, compared byte by byte: what one customer used must never land on another " +
		"(collations that ignore case or trailing spaces, cut-off columns, normalized Unicode). " +
		"A biller that can't hold such a subject answers ErrRejected",
	check: func(tr *trial) {
		long := strings.Repeat("x", 255-len(tr.token))
		var records []sink.Record
		for i, name := range []string{
			"a", "A", "a ", " a", "a\n", "a\t", `a"`, "a'", `a\`, "a%", "a_", "a,b", "a/b", "a;--", "{a}",
			"é", "e\u0301", "ß", "ss", "日本", "😀", long + "1", long + "2",
		} {
			records = append(records, tr.record(tr.kind, tr.token+name, int64(i+1)))
		}
		for i, r := range records {
			switch a := tr.deliver(r)[0]; a {
			case notApplied, doubt:
				tr.failf("subject %q was answered %v, want nil or ErrRejected", r.Subject, a)
			case rejected:
				records[i].Quantity = 0 // refused, so nothing may stand under it
			case delivered:
			}
		}
		for _, r := range records {
			tr.wantTotal(r, r.Quantity, "records of many odd subjects")
		}
	},
}

var idsRule = rule{
	name: "ids",
	why: "an ID has up to 64 bytes of [0-9a-z-] and all of them tell: " +
		"a biller that cuts them off takes the second record for the first and never bills it",
	check: func(tr *trial) {
		long := tr.id()
		long += strings.Repeat("-", 63-len(long))
		for _, last := range "0az" {
			r := tr.record(tr.kind, tr.subject(), 4)
			r.ID = long + string(last)
			tr.must("an ID of 64 bytes", r)
			tr.wantTotal(r, 4, "a record whose ID of 64 bytes differs from others in the last one")
		}
	},
}
