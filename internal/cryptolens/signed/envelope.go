package signed

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxSize of a reply or license file, in bytes.
const MaxSize = 1 << 20

const compact = "v20180502-"

// envelope is what was signed, and by what.
type envelope struct{ message, signature []byte }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// decode finds the envelope in any of its shapes. Property names may be in any case.
func decode(data []byte) (envelope, error) {
	if len(data) > MaxSize {
		return envelope{}, malformed("it has more than %d bytes", MaxSize)
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if rest, ok := strings.CutPrefix(string(data), compact); ok {
		licenseKey, signature, ok := strings.Cut(rest, "-")
		if !ok {
			return envelope{}, malformed("it starts with %s but has no signature", compact)
		}
		return decodeParts(licenseKey, signature)
	}
	var reply struct {
		LicenseKey, Key json.RawMessage
		Signature       *string
		Result          *int
	}
	if err := json.Unmarshal(data, &reply); err != nil {
		return envelope{}, malformed("it is neither JSON as Cryptolens replies nor starts with %s", compact)
	}
	if reply.Result != nil && *reply.Result != 0 {
		return envelope{}, malformed("it is a reply that says result %d: an error, not a license", *reply.Result)
	}
	switch first(reply.LicenseKey) {
	case '{':
		return envelope{}, fmt.Errorf("the license is %w", ErrLingSign)
	case '"':
	default:
		if reply.Signature != nil && first(reply.Key) == '"' { // the license itself, bare
			return envelope{}, fmt.Errorf("the license is %w", ErrLingSign)
		}
		return envelope{}, malformed("it has no licenseKey")
	}
	var licenseKey string
	if json.Unmarshal(reply.LicenseKey, &licenseKey) != nil || reply.Signature == nil {
		return envelope{}, malformed("it has no signature")
	}
	return decodeParts(licenseKey, *reply.Signature)
}

func first(raw json.RawMessage) byte {
	if len(raw) == 0 {
		return 0
	}
	return raw[0]
}

func decodeParts(licenseKey, signature string) (envelope, error) {
	message, err := base64.StdEncoding.Strict().DecodeString(licenseKey)
	if err == nil && len(message) == 0 {
		err = errors.New("empty")
	}
	if err != nil {
		return envelope{}, malformed("its licenseKey is no base64")
	}
	mark, err := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil || len(mark) == 0 {
		return envelope{}, malformed("its signature is no base64")
	}
	return envelope{message, mark}, nil
}
