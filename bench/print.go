package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// print writes a line of what meter took, and below, how many times that each other
// contender took.
func (res result) print(w io.Writer) {
	reference, ok := res.reference()
	if !ok {
		return
	}
	fmt.Fprintf(w, "\n%s: %s\n\n", res.name, res.what)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, c := range res.columns {
		fmt.Fprintf(t, "%s\t", c)
	}
	fmt.Fprintln(t)
	for _, r := range res.rows {
		if r.name == res.base {
			continue
		}
		fmt.Fprintf(t, "%s\t", r.name)
		for _, c := range res.columns {
			switch {
			case len(r.values[c]) == 0:
				fmt.Fprint(t, "\t")
			case r.name == reference.name:
				fmt.Fprintf(t, "%s\t", short(median(r.values[c])))
			default:
				fmt.Fprintf(t, "%s\t", times(ratio(r, reference, c)))
			}
		}
		fmt.Fprintln(t)
	}
	must(t.Flush())
}

// short writes a number with three digits.
func short(v float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e4, "k"}} {
		if v >= u.of {
			if u.name == "k" {
				u.of = 1e3
			}
			return digits(v/u.of) + u.name
		}
	}
	return digits(v)
}

func digits(v float64) string {
	switch {
	case v == 0 || v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

func times(v float64) string {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return "-"
	}
	return digits(v) + "x"
}
