package cryptolenstest

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key is a license key. Only ProductID is required.
//
// Concurrency: a plain value; the Server keeps a copy.
type Key struct {
	ProductID int
	Key       string // "": made up

	ID, GlobalID    int64     // 0: made up
	Created         time.Time // zero: the server's now
	Expires         time.Time // zero: a year after Created; the API itself does not enforce it
	Period          int       // days; 0: 365
	Features        [8]bool   // F1 is Features[0]
	Notes           string
	Block           bool // Activate refuses it, GetKey does not
	Trial           bool
	MaxNoOfMachines int // 0: machines are not stored
	AllowedMachines []string
	Customer        *Customer
	Unbillable      bool // its subscription has no item, so that RecordUsage refuses it
}

// Customer is whom a key belongs to.
//
// Concurrency: a plain value.
type Customer struct {
	ID                       int64
	Name, Email, CompanyName string
	Created                  time.Time
}

// Machine is an activated machine.
//
// Concurrency: a plain value.
type Machine struct {
	Mid          string // code; of a floating machine after "floating:" or "floating:overdraft:"
	FriendlyName string
	IP           string
	Time         time.Time // of the first activation
	Expires      time.Time // of a floating machine; zero: it stays
}

// Usage is one call of RecordUsage that was recorded.
//
// Concurrency: a plain value.
type Usage struct {
	Amount int64
	At     time.Time
}

// key is a Key and what has become of it.
type key struct {
	Key
	machines []Machine
	usage    []Usage
	objects  map[string][]*DataObject // by machine; "": of the key itself
}

// AddKey makes a key, and its product if there is none, and returns it with what was
// made up. It panics if the product has the key already.
func (s *Server) AddKey(k Key) Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.ProductID <= 0 {
		panic("cryptolenstest: Key.ProductID is not above 0")
	}
	if k.Key == "" {
		text := rand.Text()
		k.Key = strings.Join([]string{text[:5], text[5:10], text[10:15], text[15:20]}, "-")
	}
	if s.products[k.ProductID] == nil {
		s.products[k.ProductID] = map[string]*key{}
	}
	if _, taken := s.products[k.ProductID][k.Key]; taken {
		panic("cryptolenstest: the product has that key already")
	}
	if k.ID == 0 {
		k.ID = int64(len(s.products[k.ProductID]) + 1)
	}
	if k.GlobalID == 0 {
		k.GlobalID = s.newID()
	}
	if k.Created.IsZero() {
		k.Created = s.now()
	}
	if k.Expires.IsZero() {
		k.Expires = k.Created.AddDate(1, 0, 0)
	}
	if k.Period == 0 {
		k.Period = 365
	}
	s.products[k.ProductID][k.Key] = &key{Key: k, objects: map[string][]*DataObject{}}
	return k
}

// AddProduct makes a product without keys, unless it is there.
func (s *Server) AddProduct(productID int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.products[productID] == nil {
		s.products[productID] = map[string]*key{}
	}
}

// ChangeKey does to a key what the vendor does in the dashboard: block it, extend it,
// give it another feature. It panics if there is no such key.
func (s *Server) ChangeKey(productID int, text string, change func(*Key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.must(productID, text)
	change(&k.Key)
	k.ProductID, k.Key.Key = productID, text
}

// DeleteKey takes a key away, with all that belongs to it.
func (s *Server) DeleteKey(productID int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.products[productID], text)
}

// Machines are those that a key has at the server's time. It panics if there is no
// such key.
func (s *Server) Machines(productID int, text string) []Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.must(productID, text)
	k.expire(s.now())
	return slices.Clone(k.machines)
}

// Total is the amount recorded for a key. It panics if there is no such key.
func (s *Server) Total(productID int, text string) (total int64) {
	for _, u := range s.Usage(productID, text) {
		total += u.Amount
	}
	return total
}

// Usage are the calls that were recorded for a key, in the order in which they were.
// It panics if there is no such key.
func (s *Server) Usage(productID int, text string) []Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.must(productID, text).usage)
}

// must panics if there is no such key, for that is a mistake in a test.
func (s *Server) must(productID int, text string) *key {
	k := s.products[productID][text]
	if k == nil {
		panic(fmt.Sprintf("cryptolenstest: product %d has no such key", productID))
	}
	return k
}

func (s *Server) recordUsage(r *request) reply {
	amount, ok := r.int("Amount", 0)
	switch {
	case !ok || amount < 0:
		return *refuse("The input parameters were incorrect.")
	case s.NoProcessor:
		return *refuse("No Stripe payment processor was set up.")
	case r.key.Unbillable:
		return *refuse("The subscription item id could not be found.")
	}
	r.key.usage = append(r.key.usage, Usage{int64(amount), r.now})
	return reply{}
}
