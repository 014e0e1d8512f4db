package cache

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

const (
	magic    = "meter verdicts 1\n"
	saltSize = 32
	purpose  = "github.com/inprocess/meter/cache: verdicts"

	digestPurpose = "github.com/inprocess/meter/cache: digests"
)

var (
	errForeign    = errors.New("is no file of a cache: remove it, or name another File")
	errUnreadable = errors.New("is damaged, or was written under another secret or by another version")
	errOther      = errors.New("was written for another Checker, or for other settings of it")
)

// sealer encrypts and authenticates snapshots. A pointer to it prints as such.
type sealer struct{ secret []byte }

// seal returns magic, salt, nonce, and plain under AES-256-GCM. Each has a key of its
// own, so that there is no limit to how many one secret may seal.
func (s *sealer) seal(plain []byte) ([]byte, error) {
	head := append(make([]byte, 0, len(magic)+saltSize+len(plain)+64), magic...)
	head = head[:len(magic)+saltSize]
	rand.Read(head[len(magic):]) // never fails: it ends the process instead
	aead, err := s.aead(head[len(magic):])
	if err != nil {
		return nil, err
	}
	return aead.Seal(head, nil, plain, bytes.Clone(head)), nil
}

// open returns the snapshot in sealed.
//
// Errors: errForeign; errUnreadable.
func (s *sealer) open(sealed []byte) (*snapshot, error) {
	if !ours(sealed) {
		return nil, errForeign
	}
	const head = len(magic) + saltSize
	if len(sealed) < head {
		return nil, errUnreadable
	}
	aead, err := s.aead(sealed[len(magic):head])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed[head:], sealed[:head])
	if err != nil {
		return nil, errUnreadable // GCM says no more than that
	}
	return decode(plain)
}

func (s *sealer) aead(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, s.secret, salt, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// digests returns the secret of digests, so that all processes with this secret make the
// same.
func (s *sealer) digests() (secret [sha256.Size]byte, err error) {
	key, err := hkdf.Key(sha256.New, s.secret, nil, digestPurpose, len(secret))
	if err != nil {
		return secret, fmt.Errorf("deriving a key: %w", err)
	}
	return [sha256.Size]byte(key), nil
}

// ours says whether a file that begins with head may be replaced. A file system may
// leave zeros after a power cut, also where something was written.
func ours(head []byte) bool {
	return bytes.HasPrefix(head, []byte(magic)) || len(bytes.TrimLeft(head, "\x00")) == 0
}
