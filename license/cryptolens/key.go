package cryptolens

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	wire "github.com/inprocess/meter/internal/cryptolens"
	"github.com/inprocess/meter/license"
)

// Signed is a license as the API sent it, with nothing verified yet. It holds the key's
// text, so fmt and log/slog print "[signed license]".
//
// Concurrency: a plain value.
type Signed struct {
	LicenseKey string // the license itself, in base64; not empty
	Signature  string // of the vendor's account over it, in base64; not empty
	Body       []byte // the whole reply, which is what a license file (.skm) holds
}

// Format prints "[signed license]" whatever the verb.
func (Signed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[signed license]") }

// LogValue returns "[signed license]".
func (Signed) LogValue() slog.Value { return slog.StringValue("[signed license]") }

// GetKey reads the license of key, without changing anything there. It is answered
// for a blocked or expired key, too: the license says so.
//
// Errors: those named here. [ErrReply] also for a success without a signed license.
func (c *Client) GetKey(ctx context.Context, productID int, key license.Key) (Signed, error) {
	return c.query("GetKey", productID, key).signed(ctx, "key/GetKey")
}

// Activation says on which machine a key is to be used.
//
// Concurrency: a plain value.
type Activation struct {
	Machine      string // code of the machine, the same at every start; required
	FriendlyName string // shown to the vendor

	// Floating lets the machine go by itself after this time, unless it is activated
	// again before: whole seconds. 0: it stays until Deactivate.
	Floating time.Duration
	// Overdraft is how many floating machines may be active above the key's limit.
	Overdraft int
}

// Activate registers a machine with key, where that has a machine free, and reads the
// license. A machine that is registered already is no other one; a floating one begins
// its time anew, so calling it again is its heartbeat.
//
// Errors: those named here. [ErrReply] also for a success without a signed license.
func (c *Client) Activate(ctx context.Context, productID int, key license.Key, a Activation) (Signed, error) {
	q := c.query("Activate", productID, key)
	q.activation(a)
	return q.signed(ctx, "key/Activate")
}

func (q *query) activation(a Activation) {
	q.machine(a.Machine)
	if a.FriendlyName != "" {
		q.form.Set("FriendlyName", a.FriendlyName)
	}
	switch seconds := a.Floating / time.Second; {
	case a.Floating == 0 && a.Overdraft == 0:
	case a.Floating < time.Second || a.Floating%time.Second != 0 || seconds > maxInt:
		q.refuse("floating time %v: use whole seconds, from 1 to %d", a.Floating, maxInt)
	default:
		q.form.Set("FloatingTimeInterval", strconv.FormatInt(int64(seconds), 10))
	}
	switch {
	case a.Overdraft < 0 || a.Overdraft > maxInt:
		q.refuse("overdraft %d: it must be from 0 to %d", a.Overdraft, maxInt)
	case a.Overdraft > 0:
		q.form.Set("MaxOverdraft", strconv.Itoa(a.Overdraft))
	}
}

func (q *query) machine(code string) {
	if code == "" {
		q.refuse("there is no machine code: two machines without one would count as the same")
	}
	q.form.Set("MachineCode", code)
}

// Deactivate takes a machine from key. floating says that it was activated so.
//
// Errors: those named here; [ErrNotActivated] if the machine is not there.
func (c *Client) Deactivate(ctx context.Context, productID int, key license.Key, machine string, floating bool) error {
	q := c.query("Deactivate", productID, key)
	q.machine(machine)
	if floating {
		q.form.Set("Floating", "true")
	}
	_, err := q.post(ctx, "key/Deactivate")
	return err
}

// signed posts a call that is answered by a license.
func (q *query) signed(ctx context.Context, path string) (Signed, error) {
	q.form.Set("Sign", "true")
	q.form.Set("SignMethod", "1") // the license as one string, exactly as it was signed
	q.form.Set("ModelVersion", "3")
	reply, err := q.post(ctx, path)
	if err != nil {
		return Signed{}, err
	}
	s, err := signedOf(reply)
	if err != nil {
		return Signed{}, &Error{Method: q.method, Message: err.Error(), Err: ErrReply}
	}
	return s, nil
}

func signedOf(reply wire.Reply) (Signed, error) {
	s := Signed{Body: reply.Body}
	for name, field := range map[string]*string{"licensekey": &s.LicenseKey, "signature": &s.Signature} {
		if err := reply.Field(name, field); err != nil {
			return Signed{}, err
		}
	}
	if s.LicenseKey == "" || s.Signature == "" {
		return Signed{}, errUnsigned
	}
	return s, nil
}
