package cryptolenstest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// params are the parameters of a request, by their names in lower case.
type params map[string]string

// parse takes what can be read of the query and the form. The API has a default for
// what is missing.
func parse(r *http.Request, body []byte) params {
	p := params{}
	form, _ := url.ParseQuery(string(body))
	for _, values := range []url.Values{r.URL.Query(), form} {
		for name, v := range values {
			p[strings.ToLower(name)] = v[0]
		}
	}
	return p
}

func (p params) get(name string) string { return p[strings.ToLower(name)] }

// int is a number of 32 bits; not ok if it is something else.
func (p params) int(name string, otherwise int) (n int, ok bool) {
	text := p.get(name)
	if text == "" {
		return otherwise, true
	}
	n64, err := strconv.ParseInt(text, 10, 32)
	return int(n64), err == nil
}

func (p params) bool(name string) bool { return strings.EqualFold(p.get(name), "true") }
