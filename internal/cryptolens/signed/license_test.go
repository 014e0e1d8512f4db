package signed

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func TestOpenReadsEveryField(t *testing.T) {
	t.Parallel()
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	want := License{
		ProductID: 3646, ID: 4, GlobalID: 70123, Key: license.NewKey(testKey),
		Created: at(1500000000), Expires: at(1893456000), SignDate: at(1502000000), Period: 30,
		F: [8]bool{0: true, 7: true}, Notes: "note",
		Customer: &Customer{7, "Ada", "ada@example.com", "Engines", at(1499000000)},
		ActivatedMachines: []Machine{
			{Mid: "m1", IP: "192.0.2.1:4711", Time: at(1501000018)},
			{Mid: "floating:m2", Time: at(1501000019), FloatingExpires: at(1767225600)},
			{Mid: "floating:overdraft:m3", Time: at(1501000020)},
		},
		MaxNoOfMachines: 10, AllowedMachines: []string{"m1", "m2"},
		DataObjects: []DataObject{{5000000000, "credits", "", -3}},
		known:       hasF1<<8 - 1 | hasExpires | hasBlock | hasMachines | hasMaxNoOfMachines | hasDataObjects,
	}
	require.Equal(t, &want, open(t, nil))
}

func TestOpenTakesNulls(t *testing.T) {
	t.Parallel()
	l := open(t, edit{
		"Notes": nil, "Customer": nil, "AllowedMachines": nil, "Expires": nil, "Block": nil, "MaxNoOfMachines": -1,
		"ActivatedMachines": nil, "DataObjects": nil, "F1": nil, "GlobalId": gone, "Created": 0, "Reseller": nil, "Signature": nil,
	})
	require.Equal(t, License{
		ProductID: 3646, ID: 4, Key: license.NewKey(testKey), SignDate: time.Unix(1502000000, 0).UTC(), Period: 30,
		F: [8]bool{7: true}, MaxNoOfMachines: -1, known: (hasF1<<8-1)&^hasF1 | hasMaxNoOfMachines,
	}, *l)
}

// Past 2038, and up to the last year that RFC 3339 can write.
func TestOpenTakesLateDates(t *testing.T) {
	t.Parallel()
	require.Equal(t, 2119, open(t, edit{"Expires": 4715712000}).Expires.Year())
	require.Equal(t, 9999, open(t, edit{"Expires": 253402300799}).Expires.Year())
}

func TestShapesOfAnAnswer(t *testing.T) {
	t.Parallel()
	licenseKey, signature := parts(t, vendor(), message(t, whole()))
	cut := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	for _, text := range []string{
		cut(`{"licenseKey":%q,"signature":%q,"result":0,"message":""}`, licenseKey, signature),
		cut("\xef\xbb\xbf {\"LicenseKey\":%q,\r\n\"Signature\":%q,\"Result\":0,\"Message\":null}\r\n", licenseKey, signature),
		cut(`{"signature":%q,"LICENSEKEY":%q,"metadata":{"signature":"x"}}`, signature, licenseKey),
		cut("v20180502-%s-%s", licenseKey, signature),
		cut("v20180502-%s-%s\n", licenseKey, signature),
	} {
		l, err := keysOf(t, vendor()).Open([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, open(t, nil), l)
	}
	l, err := keysOf(t, vendor()).OpenParts(licenseKey, signature)
	require.NoError(t, err)
	require.Equal(t, open(t, nil), l)
}

func TestWhatIsNoLicenseIsNamed(t *testing.T) {
	t.Parallel()
	licenseKey, signature := parts(t, vendor(), message(t, whole()))
	bare, _ := json.Marshal(edit{"signature": signature}.of(whole()))
	for text, want := range map[string]error{
		"":                        ErrMalformed,
		"null":                    ErrMalformed,
		"[]":                      ErrMalformed,
		"{}":                      ErrMalformed,
		"v20180502-":              ErrMalformed,
		"v20180502-" + licenseKey: ErrMalformed,
		"v20190101-" + licenseKey + "-" + signature:                                      ErrMalformed,
		"v20180502-" + licenseKey + "-" + signature + "-x":                               ErrMalformed,
		"v20180502--" + signature:                                                        ErrMalformed,
		`{"licenseKey":"` + licenseKey + `"}`:                                            ErrMalformed,
		`{"signature":"` + signature + `"}`:                                              ErrMalformed,
		`{"licenseKey":7,"signature":"` + signature + `"}`:                               ErrMalformed,
		`{"licenseKey":"` + licenseKey + `","signature":""}`:                             ErrMalformed,
		`{"licenseKey":"` + licenseKey + `","signature":"` + signature + `"}x`:           ErrMalformed,
		`{"licenseKey":"` + licenseKey[1:] + `","signature":"` + signature + `"}`:        ErrMalformed,
		`{"licenseKey":"` + licenseKey + `","signature":"` + signature + `","result":1}`: ErrMalformed,
		`{"result":1,"message":"Could not find the key."}`:                               ErrMalformed,
		`{"licenseKey":{"key":"k","signature":"x"},"result":0}`:                          ErrLingSign,
		string(bare): ErrLingSign,
		`{"licenseKey":"e30=","signature":"` + signature + `"}`: ErrSignature,
		`{"licenseKey":"e31=","signature":"` + signature + `"}`: ErrMalformed, // no encoder writes that
		strings.Repeat(" ", MaxSize+1):                          ErrMalformed,
	} {
		_, err := keysOf(t, vendor()).Open([]byte(text))
		require.ErrorIs(t, err, want, "%.80s", text)
		require.NotContains(t, err.Error(), "CANARY")
	}
}

// Even what is signed must be sound.
func TestASignedAnswerMayBeUnusable(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, vendor())
	for _, test := range []struct {
		edit edit
		want error
	}{
		{edit{"Key": gone}, ErrMalformed},
		{edit{"Key": ""}, ErrMalformed},
		{edit{"ProductId": nil}, ErrMalformed},
		{edit{"ProductId": -1}, ErrMalformed},
		{edit{"SignDate": nil}, ErrMalformed},
		{edit{"SignDate": -62135596800}, ErrMalformed},
		{edit{"Expires": 253402300800}, ErrMalformed},
		{edit{"Expires": 1.5}, ErrMalformed},
		{edit{"Key": 7}, ErrMalformed},
		{edit{"F1": testKey}, ErrMalformed},
		{edit{"Block": 1}, ErrMalformed},
		{edit{"Created": "2014-01-02T00:00:00"}, ErrISODates},
		{edit{"SignDate": testKey}, ErrISODates},
	} {
		_, err := keys.Open(reply(t, vendor(), test.edit.of(whole())))
		require.ErrorIs(t, err, test.want, test.edit)
		require.NotContains(t, err.Error(), "CANARY")
	}
	licenseKey, signature := parts(t, vendor(), []byte("[]"))
	_, err := keys.OpenParts(licenseKey, signature)
	require.ErrorIs(t, err, ErrMalformed)
}

// Every single bit of what was signed, and of the signature, matters.
func TestTamperingIsNoticed(t *testing.T) {
	t.Parallel()
	m := message(t, whole())
	_, signature := parts(t, vendor(), m)
	mark, err := base64.StdEncoding.DecodeString(signature)
	require.NoError(t, err)
	keys := keysOf(t, vendor())
	for at := range m {
		changed := slices.Clone(m)
		changed[at] ^= 1 << (at % 8)
		_, err := keys.open(envelope{changed, mark})
		require.ErrorIs(t, err, ErrSignature, at)
	}
	for at := range mark {
		changed := slices.Clone(mark)
		changed[at] ^= 1 << (at % 8)
		_, err := keys.open(envelope{m, changed})
		require.ErrorIs(t, err, ErrSignature, at)
	}
	for _, changed := range [][]byte{mark[1:], mark[:len(mark)-1], append([]byte{0}, mark...), append(slices.Clone(mark), 0)} {
		_, err := keys.open(envelope{m, changed})
		require.ErrorIs(t, err, ErrSignature)
	}
	// The signature is over the bytes, not over their base64.
	_, overText := parts(t, vendor(), []byte(base64.StdEncoding.EncodeToString(m)))
	_, err = keys.OpenParts(base64.StdEncoding.EncodeToString(m), overText)
	require.ErrorIs(t, err, ErrSignature)
}

func TestBind(t *testing.T) {
	t.Parallel()
	l := open(t, nil)
	require.NoError(t, l.Bind(3646, license.NewKey(testKey)))
	require.ErrorIs(t, l.Bind(3647, license.NewKey(testKey)), ErrProduct)
	for _, key := range []string{"", testKey[1:], strings.ToLower(testKey), testKey + "\x00"} {
		err := l.Bind(3646, license.NewKey(key))
		require.ErrorIs(t, err, ErrKey)
		require.NotContains(t, err.Error(), "CANARY")
	}
}

func TestALicensePrintsWithoutItsKey(t *testing.T) {
	t.Parallel()
	l := open(t, nil)
	asJSON, err := json.Marshal(l)
	require.NoError(t, err)
	for _, text := range []string{fmt.Sprint(l), fmt.Sprintf("%+v", *l), fmt.Sprintf("%#v", l), string(asJSON)} {
		require.NotContains(t, text, "CANARY")
		require.Contains(t, text, "[key]")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(reply(f, small(), whole()))
	f.Add([]byte("v20180502-e30=-AQAB"))
	f.Add([]byte(`{"licenseKey":{"signature":""},"signature":null}`))
	keys := keysOf(f, small())
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := keys.Open(data)
		if err == nil {
			e, err := decode(data)
			require.NoError(t, err)
			require.True(t, keys.verify(e.message, e.signature))
			return
		}
		require.Nil(t, l)
		named := []error{ErrMalformed, ErrLingSign, ErrISODates, ErrSignature}
		require.True(t, slices.ContainsFunc(named, func(name error) bool { return errors.Is(err, name) }), err)
	})
}

func FuzzParse(f *testing.F) {
	f.Add(message(f, whole()))
	f.Add([]byte(`{"Key":"k","ProductId":1,"SignDate":1}`))
	f.Add([]byte(`{"Created":"2014-01-02T00:00:00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parse(data)
		if err != nil {
			require.True(t, errors.Is(err, ErrMalformed) || errors.Is(err, ErrISODates), err)
			return
		}
		require.False(t, l.Key.IsZero())
		require.Positive(t, l.ProductID)
		require.False(t, l.SignDate.IsZero())
		_, err = Terms{}.Verdict(l, license.Query{Feature: "f", Machine: "m"}, l.SignDate)
		if err != nil {
			require.True(t, errors.Is(err, ErrMasked) || errors.Is(err, ErrTemplate), err)
		}
	})
}
