// Package static checks licenses against a table in memory: for tests, for vendors
// with a handful of customers, and beside another checker for those it does not know,
// such as the vendor's own staff.
//
//	checker := static.New(static.Config{
//		Keys: map[license.Key]static.Grant{
//			license.NewKey(os.Getenv("ACME_KEY")): {Subject: "cus_acme", Features: []string{"tax-report"}},
//		},
//		Subjects: map[string]static.Grant{"cus_internal": {}},
//	})
package static

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/license"
)

var _ license.Checker = (*Checker)(nil)

// Config configures a [Checker]. [New] copies it. A Config with neither Keys nor
// Subjects is a fault: everybody would be denied.
//
// Concurrency: a plain value.
type Config struct {
	// Keys leads from a license key to what it grants.
	Keys map[license.Key]Grant
	// Subjects leads from a subject that the host has authenticated to what it is
	// granted. It is looked at for queries without a key: a key that is presented
	// must be one of Keys.
	Subjects map[string]Grant
}

// Grant is what a customer may do. The zero value, for a subject, is everything.
//
// Concurrency: a plain value; New copies it.
type Grant struct {
	// Subject is who is billed. Required for a key; "" for a subject: that one.
	Subject string
	// Denied refuses everything, for this reason. "": not.
	Denied license.Reason
	// Features that may be used. nil: all.
	Features []string
	// Machines that it may be used on, if the query names one. nil: all.
	Machines []string
	// Quotas leads from a feature to its limit, which the verdict carries. Used should
	// be 0: it does not grow.
	Quotas map[string]license.Quota
	// Until is when it ends. Zero: never.
	Until time.Time
}

// Checker answers from a table that never changes. It compares keys by identity, not
// by text: how long an answer takes says nothing about how near a key was. Make it
// with [New].
//
// Concurrency: safe.
type Checker struct {
	cfg   Config
	fault error
}

// New returns a checker with a copy of cfg. If cfg is faulty, Validate and every
// Check say how.
func New(cfg Config) *Checker {
	c := &Checker{Config{copied(cfg.Keys), copied(cfg.Subjects)}, nil}
	for subject, g := range c.cfg.Subjects {
		if g.Subject == "" {
			g.Subject = subject
			c.cfg.Subjects[subject] = g
		}
	}
	c.fault = c.cfg.validate()
	return c
}

func copied[K comparable](grants map[K]Grant) map[K]Grant {
	all := maps.Clone(grants)
	for k, g := range all {
		g.Features, g.Machines, g.Quotas = slices.Clone(g.Features), slices.Clone(g.Machines), maps.Clone(g.Quotas)
		all[k] = g
	}
	return all
}

// validate does not name keys, which are secrets: it names their subjects.
func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("static: Config."+format, args...))
	}
	if len(c.Keys)+len(c.Subjects) == 0 {
		fault("Keys and Config.Subjects are empty: everybody would be denied")
	}
	nameless := 0
	for k, g := range c.Keys {
		switch {
		case k.IsZero():
			fault("Keys has an entry without a key, for subject %q", g.Subject)
		case g.Subject == "":
			nameless++
		case license.NewKey(g.Subject) == k:
			fault("Keys has an entry whose Subject is its key, which is a secret: bill by another name")
			continue
		}
		g.validate(fmt.Sprintf("Keys (subject %q)", g.Subject), fault)
	}
	if nameless > 0 {
		fault("Keys has %d without a Subject: name who is billed", nameless)
	}
	for subject, g := range c.Subjects {
		if subject == "" {
			fault("Subjects has an entry without a subject")
		}
		g.validate(fmt.Sprintf("Subjects[%q]", subject), fault)
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}

func (g *Grant) validate(name string, fault func(string, ...any)) {
	for list, names := range map[string][]string{"Features": g.Features, "Machines": g.Machines} {
		if slices.Contains(names, "") {
			fault("%s.%s has an empty name", name, list)
		}
	}
	for feature, q := range g.Quotas {
		switch {
		case feature == "":
			fault("%s.Quotas has an entry without a feature", name)
		case q.Limit < 0 || q.Used < 0:
			fault("%s.Quotas[%q]: limit %d, used %d: must not be negative", name, feature, q.Limit, q.Used)
		case !q.End.IsZero() && !q.Start.Before(q.End):
			fault("%s.Quotas[%q]: starts at %v and ends at %v", name, feature, q.Start, q.End)
		}
	}
}

// Check looks the key up, or the subject if there is no key. It looks at Denied
// first, then at Until, Features and Machines, of which the latter two deny with
// license.NotEntitled.
//
// Blocking: never.
// Errors: those of Validate.
func (c *Checker) Check(_ context.Context, q license.Query) (license.Verdict, error) {
	if c.fault != nil {
		return license.Verdict{}, c.fault
	}
	var g Grant
	known := false
	switch {
	case !q.Key.IsZero():
		g, known = c.cfg.Keys[q.Key]
	case q.Subject != "":
		g, known = c.cfg.Subjects[q.Subject]
	default:
		return license.Verdict{Status: license.Denied, Reason: license.NoKey}, nil
	}
	if !known {
		return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
	}
	return g.verdict(q, time.Now()), nil
}

func (g *Grant) verdict(q license.Query, now time.Time) license.Verdict {
	denied := license.Verdict{Status: license.Denied, Subject: g.Subject}
	switch {
	case g.Denied != "":
		denied.Reason = g.Denied
	case !g.Until.IsZero() && !now.Before(g.Until):
		denied.Reason = license.Expired
	case !grants(g.Features, q.Feature) || !grants(g.Machines, q.Machine):
		denied.Reason = license.NotEntitled
	default:
		v := license.Verdict{Status: license.Allowed, Subject: g.Subject, Until: g.Until}
		if limit, ok := g.Quotas[q.Feature]; ok {
			quota := limit // on the heap only where there is one
			v.Quota = &quota
		}
		return v
	}
	return denied
}

// grants says whether a list, nil for all, has name, "" for none asked for.
func grants(list []string, name string) bool {
	return list == nil || name == "" || slices.Contains(list, name)
}

// Address is "static". What the table holds is not in it: like the database of a license
// server, it may change without being another.
func (c *Checker) Address() string { return "static" }

// Validate says what is wrong with the Config, all of it, without a key.
//
// Errors: one per fault, joined, each with the name of its field.
func (c *Checker) Validate() error { return c.fault }
