// Package offline checks licenses from files that Cryptolens has signed (.skm),
// without a network: on customers' premises, in factories, on ships.
//
//	checker := offline.New(offline.Config{
//		Files:      os.DirFS("/etc/acme/licenses"), // or an embed.FS
//		MaxAge:     90 * 24 * time.Hour,
//		ProductID:  3646,
//		PublicKeys: []string{"<RSAKeyValue>…</RSAKeyValue>"},
//		State:      "/var/lib/acme/license-state.json",
//	})
//
// A file holds the reply of GetKey or Activate as it came, asked for with
// SignMethod=1, or the compact form v20180502-<licenseKey>-<signature>. A caller is
// allowed by presenting the key of a license that is there. Files are read again every
// Config.Reload, so that new ones can be put beside or over old ones; of several for
// one key the newest counts. A file that is half written does not end what it said
// before; a file that is removed does.
//
// # What it holds against
//
// Files can't be changed, nor used for another product or key: Config.PublicKeys and
// Config.ProductID see to that. A license ends at its own Expires, and Config.MaxAge
// after it was signed, whichever is first: nothing else can take it back from a
// customer without a network.
//
// Whoever sets the clock back is refused ([ErrClock]) as soon as it shows a time more
// than an hour before one that it showed already, or at which one of the files was
// signed. An older file in the place of a newer one is refused ([ErrReplayed]). Both
// are remembered across restarts in Config.State, and without it until the process
// ends.
//
// Not promised: anything against who can delete or write Config.State, restore the
// disk of the whole machine, or change the program.
//
// # Not verified
//
// Whether a license that was signed with fields masked by the token's feature lock has
// null for them, as is taken for granted here ([ErrMasked]).
package offline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inprocess/meter/internal/cryptolens/signed"
	"github.com/inprocess/meter/license"
)

var _ license.Checker = (*Checker)(nil)

// Errors of Check, which mean unknown, and of [Checker.Health].
var (
	ErrMalformed = signed.ErrMalformed // the file holds no license
	ErrLingSign  = signed.ErrLingSign  // made with SignMethod=0, which does not cover everything
	ErrISODates  = signed.ErrISODates  // from before 2017-05
	ErrSignature = signed.ErrSignature // signed by none of Config.PublicKeys, or changed since
	ErrProduct   = signed.ErrProduct   // for another product
	ErrTooOld    = signed.ErrTooOld    // signed longer than Config.MaxAge ago
	ErrReplayed  = signed.ErrReplayed  // older than one of the same key that was there before
	ErrClock     = signed.ErrClock     // the clock was set back
	ErrMasked    = signed.ErrMasked    // a field that is needed is not in the license
	ErrTemplate  = signed.ErrTemplate  // its data object cryptolens_features can't be read
)

// License is what a file says: what Config.Subject is given. Its Key is a secret.
//
// Concurrency: read-only.
type License = signed.License

// Checker answers from license files. Make it with [New].
//
// Concurrency: safe; checks take turns.
type Checker struct {
	cfg   Config
	fault error
	keys  signed.Keys
	guard *signed.Guard
	terms signed.Terms

	mu    sync.Mutex
	clock clock
	files files
}

// New returns a checker with a copy of cfg. It reads nothing yet. If cfg is faulty,
// Validate and every Check say how.
func New(cfg Config) *Checker {
	c := &Checker{cfg: cfg.withDefaults()}
	c.fault = c.cfg.validate(&c.keys)
	c.guard = signed.NewGuard(max(c.cfg.MaxAge, 0))
	c.terms = c.cfg.terms()
	c.clock = clock{path: c.cfg.State}
	return c
}

// Check says what the newest license of q.Key allows. It denies with NoKey without a
// key, NotFound if no file has it, Blocked if the license is, Expired after its end,
// and NotEntitled if the feature is off, or if q.Machine is given and is none of the
// machines that the license was activated for.
//
// Blocking: on the disk, at most once every Reload, and to write State, at most once
// a minute.
// Errors: unknown, never denied: those of Validate; ErrClock; ErrTooOld, ErrReplayed
// for the license of this key; ErrMasked, ErrTemplate; Subject names nobody. For a key
// that no license has, also the faults of files of which nobody knows whose they are.
func (c *Checker) Check(_ context.Context, q license.Query) (license.Verdict, error) {
	if c.fault != nil {
		return license.Verdict{}, c.fault
	}
	if q.Key.IsZero() {
		return license.Verdict{Status: license.Denied, Reason: license.NoKey}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.look()
	if err != nil {
		return license.Verdict{}, fmt.Errorf("offline: %w", err)
	}
	v, err := c.verdict(q, now)
	if err != nil {
		return license.Verdict{}, fmt.Errorf("offline: %w", err)
	}
	return v, nil
}

func (c *Checker) verdict(q license.Query, now time.Time) (license.Verdict, error) {
	found, ok := c.files.byKey[q.Key]
	if !ok {
		if why := c.files.unread(); why != nil {
			return license.Verdict{}, fmt.Errorf("no license of this key, and not every file could be read: %w", why)
		}
		return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
	}
	if found.err != nil {
		return license.Verdict{}, found.err
	}
	if err := c.guard.StillGood(found.license, now); err != nil {
		return license.Verdict{}, err
	}
	v, err := c.terms.Verdict(found.license, q, now)
	if end := c.guard.End(found.license); v.Status == license.Allowed && !end.IsZero() && (v.Until.IsZero() || end.Before(v.Until)) {
		v.Until = end
	}
	return v, err
}

// look reads what is due to be read, and returns the time. c.mu is held.
func (c *Checker) look() (time.Time, error) {
	if err := c.clock.load(); err != nil {
		return time.Time{}, err
	}
	wall := time.Now()
	now, err := c.clock.advance(wall)
	if err == nil && c.files.due(wall, c.cfg.Reload) {
		c.read(wall)
		now, err = c.clock.advance(wall) // a file may show that it is later
	}
	c.clock.save(wall)
	return now, err
}

// Validate says what is wrong with the Config, all of it, and whether Files can be
// listed and State read. A license that can't be used is no reason not to start: see
// Health.
//
// Blocking: on the disk.
// Errors: one per fault, joined, each with the name of its field.
func (c *Checker) Validate() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	faults := []error{c.fault}
	if err := c.clock.load(); err != nil {
		faults = append(faults, fmt.Errorf("offline: Config.State: %w", err))
	}
	if c.cfg.Files != nil {
		if _, err := c.list(); err != nil {
			faults = append(faults, fmt.Errorf("offline: Config.Files: %w", err))
		}
	}
	return errors.Join(faults...)
}

// Health says what is wrong now, for the operator: files that can't be used, each by
// its name and reason, and State if it can't be written. Meter.Health passes it on.
//
// Blocking: as Check.
// Errors: those of Validate; one per fault, joined; without a key.
func (c *Checker) Health() error {
	if c.fault != nil {
		return c.fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.look()
	faults := []error{err, c.clock.fault}
	faults = append(faults, c.files.faults...)
	for _, found := range c.files.byKey {
		if found.err == nil && err == nil {
			found.err = c.guard.StillGood(found.license, now)
		}
		if found.err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", found.name, found.err))
		}
	}
	return prefixed(faults)
}

// Address is "offline:" and the product, whose keys it checks. "" if the Config is
// faulty.
func (c *Checker) Address() string {
	if c.fault != nil {
		return "" // who knows what stands where
	}
	return fmt.Sprintf("offline:%d", c.cfg.ProductID)
}

// Close writes State. The checker stays usable.
//
// Blocking: on the disk.
// Errors: of writing.
func (c *Checker) Close() error {
	if c.fault != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.clock.loaded {
		return nil
	}
	return prefixed([]error{c.clock.write(time.Now())})
}

func prefixed(faults []error) error {
	faults = slices.DeleteFunc(faults, func(err error) bool { return err == nil })
	for i, err := range faults {
		faults[i] = fmt.Errorf("offline: %w", err)
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}
