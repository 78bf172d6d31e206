package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bytes is a size in bytes, written "8MiB", "500kB" or as a plain number.
type Bytes int64

var units = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// String spells the size in the largest binary unit that divides it.
func (b Bytes) String() string {
	for _, u := range units[:4] {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// ParseBytes reads a size: a whole or decimal number and a unit (B, kB, MB, GB, TB of 1000; KiB, MiB, GiB, TiB of 1024), letter case and spaces forgiven.
func ParseBytes(text string) (Bytes, error) {
	wrong := fmt.Errorf("%q is no size: write it like 512KiB, 8MiB or 1GiB", text)
	number, size := strings.TrimSpace(text), int64(1)
	for _, u := range units {
		if n := len(number) - len(u.name); n > 0 && strings.EqualFold(number[n:], u.name) {
			number, size = strings.TrimSpace(number[:n]), u.size
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/size {
			return 0, wrong
		}
		return Bytes(n * size), nil
	}
	if strings.Trim(number, "0123456789.") != "" {
		return 0, wrong // no exponents, no Inf
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f*float64(size) >= math.MaxInt64 {
		return 0, wrong
	}
	return Bytes(f * float64(size)), nil
}

type kind int

const (
	kindNone kind = iota
	kindString
	kindInt
	kindFloat
	kindBool
	kindDuration
	kindBytes
	kindList
	kindMap
)

func (k kind) String() string {
	return [...]string{"", "text", "whole number", "number", "true or false", "duration", "size", "list", "mapping"}[k]
}

func kindOf(t reflect.Type) kind {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return kindDuration
	case reflect.TypeFor[Bytes]():
		return kindBytes
	case reflect.TypeFor[[]string]():
		return kindList
	case reflect.TypeFor[map[string]string]():
		return kindMap
	}
	switch t.Kind() {
	case reflect.String:
		return kindString
	case reflect.Int:
		return kindInt
	case reflect.Float64:
		return kindFloat
	case reflect.Bool:
		return kindBool
	}
	return kindNone
}

// format spells a value so that parse reads it back.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return strings.Join(x, ",")
	case map[string]string:
		pairs := make([]string, 0, len(x))
		for _, k := range slices.Sorted(maps.Keys(x)) {
			pairs = append(pairs, k+"="+x[k])
		}
		return strings.Join(pairs, ",")
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	case time.Duration:
		return formatDuration(x)
	default:
		return fmt.Sprint(x)
	}
}

// formatDuration leaves out the zero minutes and seconds that Duration.String writes: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// parse reads one value and holds it against the setting's own limits.
func parse(d *Setting, text string) (reflect.Value, error) {
	v, err := parseKind(d.kind, text)
	if err != nil {
		return v, err
	}
	if len(d.OneOf) > 0 && d.kind == kindString {
		return oneOf(d, v.String())
	}
	return v, bounds(d, v, text)
}

func oneOf(d *Setting, text string) (reflect.Value, error) {
	for _, allowed := range append(d.OneOf, d.Default) {
		if strings.EqualFold(allowed, text) {
			return reflect.ValueOf(allowed), nil
		}
	}
	return reflect.Value{}, fmt.Errorf("must be one of %s, not %q", strings.Join(d.OneOf, ", "), text)
}

func bounds(d *Setting, v reflect.Value, text string) error {
	outside := func(bound string, sign int) bool {
		if bound == "" {
			return false
		}
		b, err := parseKind(d.kind, bound)
		if err != nil {
			panic(fmt.Sprintf("config: bound %q of %s: %v", bound, d.Name, err))
		}
		if d.kind == kindFloat {
			return (v.Float()-b.Float())*float64(sign) > 0
		}
		return (v.Int() > b.Int()) == (sign > 0) && v.Int() != b.Int()
	}
	if !outside(d.Min, -1) && !outside(d.Max, 1) {
		return nil
	}
	return fmt.Errorf("must be %s, not %s", d.Bounds(), text)
}

// Bounds spells the setting's limits; empty if there are none.
func (s *Setting) Bounds() string {
	switch {
	case s.Min != "" && s.Max != "":
		return "from " + s.Min + " to " + s.Max
	case s.Min != "":
		return s.Min + " or more"
	case s.Max != "":
		return s.Max + " or less"
	}
	return ""
}

func parseKind(k kind, text string) (reflect.Value, error) {
	switch k {
	case kindInt:
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return reflect.Value{}, fmt.Errorf("%q is no whole number", text)
		}
		return reflect.ValueOf(n), nil
	case kindFloat:
		f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return reflect.Value{}, fmt.Errorf("%q is no number", text)
		}
		return reflect.ValueOf(f), nil
	case kindBool:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "true":
			return reflect.ValueOf(true), nil
		case "false":
			return reflect.ValueOf(false), nil
		}
		return reflect.Value{}, fmt.Errorf("must be true or false, not %q", text)
	case kindDuration:
		d, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil {
			return reflect.Value{}, fmt.Errorf("%q is no duration: write it with a unit, like 250ms, 2s or 1m30s", text)
		}
		return reflect.ValueOf(d), nil
	case kindBytes:
		b, err := ParseBytes(text)
		return reflect.ValueOf(b), err
	case kindList:
		list := []string{}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		return reflect.ValueOf(list), nil
	case kindMap:
		m, err := parseMap(text)
		return reflect.ValueOf(m), err
	}
	return reflect.ValueOf(text), nil
}

// parseMap reads a=1,b=2, or {a: "1,2"} where a value holds a comma.
func parseMap(text string) (map[string]string, error) {
	m := map[string]string{}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := yaml.Unmarshal([]byte(text), &m); err != nil {
			return nil, errors.New("is no mapping: write it like {team: $.team, year: $.year}")
		}
		return m, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		if !ok || strings.TrimSpace(key) == "" {
			return nil, fmt.Errorf("%q is no name=value: write it like team=$.team,year=$.year", part)
		}
		m[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return m, nil
}
