package cryptolenstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// firstKey is what every Server of the process signs with at first, for a new RSA key
// takes a while.
var firstKey = sync.OnceValue(newSigner)

func newSigner() *rsa.PrivateKey {
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // a machine without entropy
	}
	return signer
}

// PublicKeyXML is the key that verifies what the server signs now, as the vendor finds
// it in the dashboard. Servers of one process share it until RotateKey.
func (s *Server) PublicKeyXML() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	modulus := base64.StdEncoding.EncodeToString(s.signer.N.Bytes())
	exponent := base64.StdEncoding.EncodeToString(big.NewInt(int64(s.signer.E)).Bytes())
	return fmt.Sprintf("<RSAKeyValue><Modulus>%s</Modulus><Exponent>%s</Exponent></RSAKeyValue>", modulus, exponent)
}

// RotateKey makes the server sign with a new key from now on.
func (s *Server) RotateKey() {
	signer := newSigner()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signer = signer
}

// licenseJSON has its properties in the order in which the API signs them.
type licenseJSON struct {
	ProductId                      int
	ID                             int64
	Key                            string
	Created, Expires               int64
	Period                         int
	F1, F2, F3, F4, F5, F6, F7, F8 bool
	Notes                          *string
	Block                          bool
	GlobalId                       int64
	Customer                       *customerJSON
	ActivatedMachines              []any
	TrialActivation                bool
	MaxNoOfMachines                int
	AllowedMachines                string
	DataObjects                    []objectJSON
	SignDate                       int64
}

type customerJSON struct {
	Id                       int64
	Name, Email, CompanyName string
	Created                  int64
}

type machineJSON struct {
	Mid, IP string
	Time    int64
}

// machineJSON3 is a machine from ModelVersion 3 on.
type machineJSON3 struct {
	machineJSON
	FriendlyName    *string
	FloatingExpires *int64
}

// license answers with the license of the request's key.
func (s *Server) license(r *request) reply {
	k := r.key
	f := k.Features
	l := licenseJSON{
		ProductId: k.ProductID, ID: k.ID, Key: k.Key.Key, Created: k.Created.Unix(), Expires: k.Expires.Unix(), Period: k.Period,
		F1: f[0], F2: f[1], F3: f[2], F4: f[3], F5: f[4], F6: f[5], F7: f[6], F8: f[7],
		Notes: optional(k.Notes), Block: k.Block, GlobalId: k.GlobalID, TrialActivation: k.Trial, MaxNoOfMachines: k.MaxNoOfMachines,
		AllowedMachines: strings.Join(k.AllowedMachines, "\n"), ActivatedMachines: []any{}, DataObjects: []objectJSON{}, SignDate: r.now.Unix(),
	}
	if c := k.Customer; c != nil {
		l.Customer = &customerJSON{c.ID, c.Name, c.Email, c.CompanyName, c.Created.Unix()}
	}
	version, _ := r.int("ModelVersion", 1)
	for _, m := range k.machines {
		l.ActivatedMachines = append(l.ActivatedMachines, m.json(version))
	}
	for _, o := range k.objects[""] {
		l.DataObjects = append(l.DataObjects, objectJSON{o.ID, o.Name, o.String, o.Int})
	}
	if method := r.get("SignMethod"); method != "1" && !strings.EqualFold(method, "StringSign") {
		return reply{object: object{"licenseKey": l, "signature": ""}}
	}
	text := encodeJSON(l)
	o := object{"licenseKey": base64.StdEncoding.EncodeToString(text), "signature": ""}
	if r.bool("Sign") {
		o["signature"] = s.sign(text)
	}
	return reply{object: o}
}

// sign signs the license itself, not its base64.
func (s *Server) sign(text []byte) string {
	digest := sha256.Sum256(text)
	signature, err := rsa.SignPKCS1v15(nil, s.signer, crypto.SHA256, digest[:])
	if err != nil {
		panic(err) // not with a key of this size
	}
	return base64.StdEncoding.EncodeToString(signature)
}

func (m Machine) json(version int) any {
	basic := machineJSON{Mid: m.Mid, IP: m.IP, Time: m.Time.Unix()}
	if version < 3 {
		return basic
	}
	return machineJSON3{basic, optional(m.FriendlyName), unixOrNull(m.Expires)}
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func unixOrNull(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	second := t.Unix()
	return &second
}
