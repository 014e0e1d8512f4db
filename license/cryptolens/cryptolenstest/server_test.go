package cryptolenstest_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

const keyText = "AAAAA-BBBBB-CCCCC-DDDDD"

type reply struct {
	Result     *int
	Message    *string
	LicenseKey json.RawMessage
	Signature  string
}

// ask sends a request through the server's own client.
func ask(t *testing.T, srv *cryptolenstest.Server, method, path string, query, form url.Values) (r reply) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, cryptolenstest.URL+path+"?"+query.Encode(), strings.NewReader(form.Encode()))
	require.NoError(t, err)
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, &r), "%s", body)
	return r
}

// What the API takes beside what our own client sends: any case, doubled and trailing
// slashes, GET.
func TestTolerance(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	srv.AddKey(cryptolenstest.Key{ProductID: 7, Key: keyText})
	usual := url.Values{"token": {"x"}, "ProductId": {"7"}, "Key": {keyText}, "Amount": {"2"}}
	odd := url.Values{"TOKEN": {"x"}, "productid": {"7"}, "KEY": {keyText}, "aMount": {"2"}, "modelversion": {"1"}, "other": {""}}
	for _, path := range []string{
		"/api/subscription/RecordUsage", "/api/Subscription/recordusage/", "//api//subscription//RecordUsage",
	} {
		for _, params := range []url.Values{usual, odd} {
			require.Zero(t, *ask(t, srv, http.MethodPost, path, nil, params).Result)
			require.Zero(t, *ask(t, srv, http.MethodGet, path, params, nil).Result)
		}
	}
	require.EqualValues(t, 24, srv.Total(7, keyText))
	require.Equal(t, 12, srv.RequestsTo("subscription/RecordUsage"))

	delete(usual, "Amount")
	require.Zero(t, *ask(t, srv, http.MethodPost, "/api/subscription/RecordUsage", nil, usual).Result, "a missing amount is 0, and a success")
	require.EqualValues(t, 24, srv.Total(7, keyText))
	for _, amount := range []string{"-1", "2147483648", "x", "1.5"} {
		usual.Set("Amount", amount)
		require.Equal(t, "The input parameters were incorrect.", *ask(t, srv, http.MethodPost, "/api/subscription/RecordUsage", nil, usual).Message)
	}
	require.Panics(t, func() { srv.RequestsTo("subscription/recordusage") })
}

func TestOrderOfSignedProperties(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := cryptolenstest.NewClock(at)
	srv := cryptolenstest.New()
	srv.Now = clock.Now
	srv.AddKey(cryptolenstest.Key{
		ProductID: 7, Key: keyText, ID: 1, GlobalID: 2, Features: [8]bool{0: true}, MaxNoOfMachines: 3,
		Notes: "a & <b>", AllowedMachines: []string{"m1", "m2"},
		Customer: &cryptolenstest.Customer{ID: 9, Name: "N", Email: "e@example.com", CompanyName: "C", Created: at},
	})
	srv.AddDataObject(7, keyText, "", cryptolenstest.DataObject{ID: 5, Name: "credits", Int: -3})
	clock.Advance(time.Hour)
	license := func(params ...string) string {
		form := url.Values{"token": {"x"}, "ProductId": {"7"}, "Key": {keyText}, "Sign": {"true"}, "SignMethod": {"1"}, "MachineCode": {"m1"}}
		for i := 0; i < len(params); i += 2 {
			form.Set(params[i], params[i+1])
		}
		r := ask(t, srv, http.MethodPost, "/api/key/Activate", nil, form)
		var text string
		require.NoError(t, json.Unmarshal(r.LicenseKey, &text))
		decoded, err := base64.StdEncoding.DecodeString(text)
		require.NoError(t, err)
		return string(decoded)
	}
	const head = `{"ProductId":7,"ID":1,"Key":"AAAAA-BBBBB-CCCCC-DDDDD","Created":1772366400,"Expires":1803902400,"Period":365,` +
		`"F1":true,"F2":false,"F3":false,"F4":false,"F5":false,"F6":false,"F7":false,"F8":false,"Notes":"a & <b>","Block":false,"GlobalId":2,` +
		`"Customer":{"Id":9,"Name":"N","Email":"e@example.com","CompanyName":"C","Created":1772366400},`
	const tail = `,"TrialActivation":false,"MaxNoOfMachines":3,"AllowedMachines":"m1\nm2",` +
		`"DataObjects":[{"Id":5,"Name":"credits","StringValue":"","IntValue":-3}],"SignDate":1772370000}`
	const machine = `{"Mid":"m1","IP":"127.0.0.1","Time":1772370000`
	require.Equal(t, head+`"ActivatedMachines":[`+machine+`}]`+tail, license())
	require.Equal(t, head+`"ActivatedMachines":[`+machine+`,"FriendlyName":null,"FloatingExpires":null}]`+tail, license("ModelVersion", "3"))
	floating := license("ModelVersion", "3", "FloatingTimeInterval", "60")
	require.Contains(t, floating, `{"Mid":"floating:m1","IP":"127.0.0.1","Time":1772370000,"FriendlyName":null,"FloatingExpires":1772370060}`)
	require.Len(t, srv.Machines(7, keyText), 2)
	clock.Advance(time.Minute)
	require.Len(t, srv.Machines(7, keyText), 1)

	form := url.Values{"token": {"x"}, "ProductId": {"7"}, "Key": {keyText}, "Sign": {"true"}}
	require.Equal(t, byte('{'), ask(t, srv, http.MethodGet, "/api/key/GetKey", form, nil).LicenseKey[0], "without SignMethod it is no string")
	form.Set("SignMethod", "StringSign")
	form.Del("Sign")
	unsigned := ask(t, srv, http.MethodGet, "/api/key/GetKey", form, nil)
	require.Equal(t, byte('"'), unsigned.LicenseKey[0])
	require.Empty(t, unsigned.Signature)
}

func TestResetOfDataObjects(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	for _, product := range []int{7, 8} {
		srv.AddKey(cryptolenstest.Key{ProductID: product, Key: keyText})
		srv.AddDataObject(product, keyText, "", cryptolenstest.DataObject{Name: "credits", Int: 1})
		srv.AddDataObject(product, keyText, "m", cryptolenstest.DataObject{Name: "credits", Int: 2})
		srv.AddDataObject(product, keyText, "m", cryptolenstest.DataObject{Name: "other", Int: 3})
	}
	srv.ResetDataObjects(7, "credits", 10)
	require.EqualValues(t, 10, srv.DataObjects(7, keyText, "")[0].Int)
	require.EqualValues(t, 10, srv.DataObjects(7, keyText, "m")[0].Int)
	require.EqualValues(t, 3, srv.DataObjects(7, keyText, "m")[1].Int)
	require.EqualValues(t, 1, srv.DataObjects(8, keyText, "")[0].Int)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	srv.AddKey(cryptolenstest.Key{ProductID: 7, Key: keyText})
	require.Panics(t, func() { srv.AddToken("x", "Everything") })
	srv.AddToken("reads", "GetKey")
	form := url.Values{"token": {"reads"}, "ProductId": {"7"}, "Key": {keyText}}
	require.Zero(t, *ask(t, srv, http.MethodGet, "/api/key/GetKey", form, nil).Result)
	require.Equal(t, "Access denied.", *ask(t, srv, http.MethodGet, "/api/key/Activate", form, nil).Message)
	srv.RevokeToken("reads")
	srv.AddToken("other")
	require.Equal(t, "Unable to authenticate.", *ask(t, srv, http.MethodGet, "/api/key/GetKey", form, nil).Message)
	srv.DeleteKey(7, keyText)
	form.Set("token", "other")
	require.Equal(t, "Could not find the key.", *ask(t, srv, http.MethodGet, "/api/key/GetKey", form, nil).Message)
}

// Faults strike the same over a connection as without one.
func TestFaultsOverLoopback(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	srv.AddKey(cryptolenstest.Key{ProductID: 7, Key: keyText})
	web := httptest.NewServer(srv)
	defer web.Close()
	over := map[string]*http.Client{cryptolenstest.URL: srv.Client(), web.URL: web.Client()}
	form := url.Values{"token": {"x"}, "ProductId": {"7"}, "Key": {keyText}, "Amount": {"1"}}
	outcome := func(base string) string {
		over[base].CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, err := over[base].PostForm(base+"/api/subscription/RecordUsage", form)
		if err != nil {
			return "broken"
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return "truncated"
		}
		return resp.Status[:3] + resp.Header.Get("Content-Type") + string(body[:min(len(body), 100)])
	}
	for answer := cryptolenstest.AsUsual; answer <= cryptolenstest.Huge; answer++ {
		if answer == cryptolenstest.Hang {
			continue // until the client leaves: see the client's own tests
		}
		srv.Script(cryptolenstest.Fault{Answer: answer}, cryptolenstest.Fault{Answer: answer})
		require.Equal(t, outcome(web.URL), outcome(cryptolenstest.URL), "%v", answer)
	}
	srv.SetDown(true)
	require.Equal(t, "broken", outcome(web.URL))
	require.Equal(t, "broken", outcome(cryptolenstest.URL))
}

func FuzzServer(f *testing.F) {
	f.Add("/api/subscription/RecordUsage", "token=x&ProductId=7&Key="+keyText+"&Amount=1")
	f.Add("/api/data/IncrementIntValueToKey/", "token=x&ProductId=7&Key="+keyText+"&Name=credits&IntValue=-2147483648&EnableBound=true&Bound=3")
	f.Add("/api/data/SetIntValueToMachineCode", "token=x&ProductId=7&Key="+keyText+"&Id=9223372036854775807")
	f.Add("/api/key/Activate", "token=x&ProductId=7&Key="+keyText+"&FloatingTimeInterval=2147483647&SignMethod=1")
	f.Fuzz(func(t *testing.T, path, form string) {
		srv := cryptolenstest.New()
		srv.AddKey(cryptolenstest.Key{ProductID: 7, Key: keyText})
		srv.AddDataObject(7, keyText, "", cryptolenstest.DataObject{Name: "credits", Int: 1})
		req := httptest.NewRequest(http.MethodPost, "http://x/", strings.NewReader(form))
		req.URL.Path = path
		rec := httptest.NewRecorder()
		srv.ServeHTTP(rec, req)
		if rec.Code == http.StatusOK {
			require.True(t, json.Valid(rec.Body.Bytes()))
		}
		value := srv.DataObjects(7, keyText, "")[0].Int
		require.True(t, value >= -1<<31 && value < 1<<31)
	})
}
