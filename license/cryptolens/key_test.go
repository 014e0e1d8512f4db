package cryptolens_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

// open verifies a license and decodes it.
func open(t *testing.T, srv *cryptolenstest.Server, s cryptolens.Signed) (l map[string]any) {
	t.Helper()
	var public struct{ Modulus, Exponent string }
	require.NoError(t, xml.Unmarshal([]byte(srv.PublicKeyXML()), &public))
	number := func(text string) *big.Int {
		b, err := base64.StdEncoding.DecodeString(text)
		require.NoError(t, err)
		return new(big.Int).SetBytes(b)
	}
	text, err := base64.StdEncoding.DecodeString(s.LicenseKey)
	require.NoError(t, err)
	signature, err := base64.StdEncoding.DecodeString(s.Signature)
	require.NoError(t, err)
	digest := sha256.Sum256(text)
	verifier := &rsa.PublicKey{N: number(public.Modulus), E: int(number(public.Exponent).Int64())}
	require.NoError(t, rsa.VerifyPKCS1v15(verifier, crypto.SHA256, digest[:], signature))
	require.NoError(t, json.Unmarshal(text, &l))
	return l
}

func TestGetKey(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	expires := time.Date(2119, 1, 2, 3, 4, 5, 0, time.UTC) // past 32 bits
	srv.ChangeKey(product, keyText, func(k *cryptolenstest.Key) {
		k.Features[3], k.Expires, k.Block = true, expires, true
	})
	s, err := client.GetKey(t.Context(), product, key)
	require.NoError(t, err)
	l := open(t, srv, s)
	require.Equal(t, keyText, l["Key"])
	require.EqualValues(t, product, l["ProductId"])
	require.EqualValues(t, expires.Unix(), l["Expires"])
	require.Equal(t, true, l["F4"])
	require.Equal(t, false, l["F3"])
	require.Equal(t, true, l["Block"], "GetKey does not refuse a blocked key")
	require.True(t, json.Valid(s.Body))
	require.Equal(t, "[signed license] [signed license]", fmt.Sprintf("%+v %#v", s, s))
	require.Contains(t, string(s.Body), s.Signature)

	srv.RotateKey()
	rotated, err := client.GetKey(t.Context(), product, key)
	require.NoError(t, err)
	require.NotEqual(t, s.Signature, rotated.Signature)
	open(t, srv, rotated)
}

// A success without a license is none.
func TestUnsignedLicense(t *testing.T) {
	t.Parallel()
	for _, reply := range []map[string]any{
		{"result": 0},
		{"result": 0, "licenseKey": "e30="},
		{"result": 0, "licenseKey": "", "signature": "e30="},
		{"result": 0, "licenseKey": "e30=", "signature": nil},
		{"result": 0, "licenseKey": map[string]any{"key": keyText, "signature": "e30="}, "signature": "e30="}, // LingSign
	} {
		client := newClient(served(t, answer(200, reply)), token)
		_, err := client.GetKey(t.Context(), product, key)
		require.ErrorIs(t, err, cryptolens.ErrReply, "%v", reply)
		require.NotContains(t, err.Error(), keyText)
	}
}

func TestActivate(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	activate := func(machine string) (map[string]any, error) {
		s, err := client.Activate(t.Context(), product, key, cryptolens.Activation{Machine: machine, FriendlyName: "desk"})
		if err != nil {
			return nil, err
		}
		return open(t, srv, s), nil
	}
	for _, machine := range []string{"a", "b", "a"} {
		require.NoError(t, second(activate(machine)))
	}
	require.ErrorIs(t, second(activate("c")), cryptolens.ErrMachineLimit)
	require.ErrorIs(t, second(activate("c")), cryptolens.ErrLicense)
	require.Len(t, srv.Machines(product, keyText), 2)

	require.NoError(t, client.Deactivate(t.Context(), product, key, "a", false))
	require.ErrorIs(t, client.Deactivate(t.Context(), product, key, "a", false), cryptolens.ErrNotActivated)
	l, err := activate("c")
	require.NoError(t, err)
	require.Len(t, l["ActivatedMachines"], 2)
	require.Equal(t, "desk", l["ActivatedMachines"].([]any)[1].(map[string]any)["FriendlyName"])
}

func TestFloating(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, client := newServer(t)
		seat := func(machine string) error {
			return second(client.Activate(t.Context(), product, key,
				cryptolens.Activation{Machine: machine, Floating: time.Minute, Overdraft: 1}))
		}
		require.NoError(t, seat("a"))
		require.NoError(t, seat("b"))
		require.NoError(t, seat("c"), "overdraft")
		require.ErrorIs(t, seat("d"), cryptolens.ErrMachineLimit)
		require.Equal(t, "floating:overdraft:c", srv.Machines(product, keyText)[2].Mid)
		time.Sleep(40 * time.Second)
		require.NoError(t, seat("a"), "a heartbeat")
		time.Sleep(40 * time.Second)
		require.Len(t, srv.Machines(product, keyText), 1)
		require.NoError(t, seat("d"))
		require.NoError(t, client.Deactivate(t.Context(), product, key, "a", true))
		require.Len(t, srv.Machines(product, keyText), 1)
	})
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	seat := cryptolens.Activation{Machine: "a", Floating: time.Minute}
	run := func(t *testing.T, trouble func(*cryptolenstest.Server), check func(*cryptolenstest.Server, time.Duration, error)) {
		synctest.Test(t, func(t *testing.T) {
			srv, client := newServer(t)
			require.NoError(t, second(client.Activate(t.Context(), product, key, seat)))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			begun := time.Now()
			trouble(srv)
			err := client.Heartbeat(ctx, product, key, seat)
			check(srv, time.Since(begun), err)
		})
	}
	t.Run("an hour", func(t *testing.T) {
		t.Parallel()
		run(t, func(*cryptolenstest.Server) {}, func(srv *cryptolenstest.Server, took time.Duration, err error) {
			require.NoError(t, err)
			require.Equal(t, time.Hour, took)
			require.Len(t, srv.Machines(product, keyText), 1)
			require.InDelta(t, 180, srv.RequestsTo("key/Activate"), 1)
		})
	})
	t.Run("two beats fail", func(t *testing.T) {
		t.Parallel()
		run(t, func(srv *cryptolenstest.Server) {
			srv.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop}, cryptolenstest.Fault{Answer: cryptolenstest.HTML502})
		}, func(srv *cryptolenstest.Server, took time.Duration, err error) {
			require.NoError(t, err)
			require.Equal(t, 2, srv.Fired())
		})
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		run(t, func(srv *cryptolenstest.Server) { srv.SetDown(true) }, func(srv *cryptolenstest.Server, took time.Duration, err error) {
			require.ErrorIs(t, err, cryptolens.ErrNotSent)
			require.Equal(t, time.Minute, took)
			require.Empty(t, srv.Machines(product, keyText), "the API sees it so, too")
		})
	})
	t.Run("blocked", func(t *testing.T) {
		t.Parallel()
		run(t, func(srv *cryptolenstest.Server) {
			srv.ChangeKey(product, keyText, func(k *cryptolenstest.Key) { k.Block = true })
		}, func(srv *cryptolenstest.Server, took time.Duration, err error) {
			require.ErrorIs(t, err, cryptolens.ErrBlocked)
			require.Equal(t, 20*time.Second, took)
		})
	})
}
