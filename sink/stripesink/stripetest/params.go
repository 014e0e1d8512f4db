package stripetest

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// params reads the form of a request. The first fault that it meets stays in bad.
type params struct {
	form url.Values
	bad  *response
}

func (p *params) refuse(res response) {
	if p.bad == nil {
		p.bad = &res
	}
}

func (p *params) invalid(param, code, format string, args ...any) {
	p.refuse(invalid(param, code, format, args...))
}

// only refuses parameters other than these (by their first name) and expand.
func (p *params) only(names ...string) {
	for _, param := range slices.Sorted(maps.Keys(p.form)) {
		root, _, _ := strings.Cut(param, "[")
		if root != "expand" && !slices.Contains(names, root) {
			p.invalid(param, "parameter_unknown", "Received unknown parameter: %s", param)
		}
	}
}

func (p *params) get(name string) string { return p.form.Get(name) }

func (p *params) required(name string) string {
	text := p.form.Get(name)
	if text == "" {
		p.invalid(name, "parameter_missing", "Missing required param: %s.", name)
	}
	return text
}

// oneOf is a parameter of few values, the first of which is the default.
func (p *params) oneOf(name string, values ...string) string {
	text := p.form.Get(name)
	if text == "" {
		return values[0]
	}
	if !slices.Contains(values, text) {
		p.invalid(name, "", "Invalid %s: must be one of %s", name, strings.Join(slices.DeleteFunc(slices.Clone(values),
			func(v string) bool { return v == "" }), ", "))
	}
	return text
}

func (p *params) int(name string, otherwise int64) int64 {
	text := p.form.Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		p.invalid(name, "parameter_invalid_integer", "Invalid integer: %s", text)
	}
	return n
}

// amount is a decimal number of minor units, under name for whole ones and
// name_decimal for others; "" if neither is there.
func (p *params) amount(name string) string {
	whole, decimal := p.form.Get(name), p.form.Get(name+"_decimal")
	switch {
	case whole != "" && decimal != "":
		p.invalid(name, "", "You may only specify one of these parameters: %s, %s_decimal.", name, name)
	case whole != "":
		n := p.int(name, 0)
		if n < 0 || n > maxAmount {
			p.invalid(name, "parameter_invalid_integer", "This value must be between 0 and %d.", maxAmount)
		}
		return strconv.FormatInt(n, 10)
	case decimal != "":
		if !decimalShape.MatchString(decimal) {
			p.invalid(name+"_decimal", "", "Invalid decimal: %s", decimal)
		}
		return trimZeros(decimal)
	}
	return ""
}

// maxAmount is the greatest amount in minor units.
const maxAmount = 999_999_999_999

// decimalShape is that of amounts; Stripe takes 12 decimal places.
var decimalShape = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,12})?$`)

// trimZeros is the canonical form of a decimal number.
func trimZeros(decimal string) string {
	if strings.Contains(decimal, ".") {
		decimal = strings.TrimSuffix(strings.TrimRight(decimal, "0"), ".")
	}
	if trimmed := strings.TrimLeft(decimal, "0"); trimmed != "" && trimmed[0] != '.' {
		return trimmed
	}
	return "0" + strings.TrimLeft(decimal, "0")
}

// dict is a map: name[key]=value. An empty value takes the key away.
func (p *params) dict(name string) map[string]string {
	dict := map[string]string{}
	for param, values := range p.form {
		key, ok := strings.CutPrefix(param, name+"[")
		if ok && values[0] != "" {
			dict[strings.TrimSuffix(key, "]")] = values[0]
		}
	}
	return dict
}

// list is name[]=value or name[0]=value, in the order of the request.
func (p *params) list(name string) []string {
	values := slices.Clone(p.form[name+"[]"])
	for i := 0; i < 100 && p.any(name+"["); i++ {
		values = append(values, p.form[name+"["+strconv.Itoa(i)+"]"]...)
	}
	return values
}

// each calls one for name[0], name[1] and so on, as long as there are such.
func (p *params) each(name string, one func(prefix string)) {
	for i := range 100 {
		prefix := name + "[" + strconv.Itoa(i) + "]"
		if !p.any(prefix) {
			return
		}
		one(prefix)
	}
}

func (p *params) any(prefix string) bool {
	for param := range p.form {
		if strings.HasPrefix(param, prefix) {
			return true
		}
	}
	return false
}
