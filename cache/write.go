package cache

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/inprocess/meter/internal/disk"
)

const (
	keyMagic = "meter verdicts key 1\n"
	keySize  = 32
)

// write replaces the snapshot. f.writing is held.
func (f *file) write() error {
	lock, err := f.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := f.meetOthers(); err != nil {
		return err
	}
	plain, err := f.encode()
	if err != nil {
		return err
	}
	sealed, err := f.seal.seal(plain)
	if err != nil {
		return err
	}
	f.last, err = replace(f.path, sealed)
	return err
}

// meetOthers looks at what is to be replaced, if it is not what we left there: in a
// rolling deploy, another process may have written what it learned. What can't be read
// or is another Checker's is put aside, for whoever finds the secret.
func (f *file) meetOthers() error {
	info, err := os.Lstat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case f.last != nil && os.SameFile(info, f.last) && info.ModTime().Equal(f.last.ModTime()) && info.Size() == f.last.Size():
		return nil
	}
	s, err := f.read()
	switch {
	case err == nil:
		f.adopt(s)
		return nil
	case errors.Is(err, errUnreadable), errors.Is(err, errOther):
		aside := f.path + ".unreadable"
		if err := os.Rename(f.path, aside); err != nil {
			return err
		}
		f.log.Warn("cache: File put aside", slog.String("as", aside), slog.Any("error", err))
		return nil
	}
	return err
}

// replace writes path anew or not at all, whatever happens meanwhile.
func replace(path string, content []byte) (os.FileInfo, error) {
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that died; its mode may be any
		return nil, err
	}
	out, err := disk.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	_, err = out.Write(content)
	if err == nil {
		err = disk.Sync(out)
	}
	info, statErr := out.Stat()
	if err = errors.Join(err, statErr, out.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(temp))
	}
	if err := disk.SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return info, nil
}

// secretIn returns the secret in the file at path, made if it is missing.
func secretIn(path string) ([]byte, error) {
	in, err := disk.OpenFile(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, keySize)
		rand.Read(secret) // never fails: it ends the process instead
		_, err := replace(path, fmt.Appendf(nil, "%s%x\n", keyMagic, secret))
		return secret, err
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, 1<<10))
	if err != nil {
		return nil, err
	}
	digits, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(keyMagic))
	secret, err := hex.DecodeString(string(digits))
	if !ok || err != nil || len(secret) != keySize {
		return nil, fmt.Errorf("%s is no key of a cache: put back the one that was there, or remove it (verdicts on disk are lost then), or name another File", path)
	}
	return secret, nil
}
