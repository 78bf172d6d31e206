package mockprovider

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is something that goes wrong with a probability.
type Fault struct {
	Kind string
	// Share of the requests, 0 to 1.
	Share float64
}

// ok is the fault that is none.
const ok = "ok"

// faults are what can go wrong, with what it is for people. An outage is one that every request meets before it is read.
var faults = []struct {
	kind, does string
	outage     bool
}{
	{"429", "too many requests, come back in a second", true},
	{"500", "an internal error", true},
	{"503", "overloaded", true},
	{"quota", "429 that waiting does not mend: the account's quota is used up", true},
	{"hang", "no answer, ever", true},
	{"drip", "the answer comes byte by byte", false},
	{"cut", "the connection ends without an answer", true},
	{"truncate", "the connection ends in the middle of the answer", false},
	{"html", "200 with a web page", true},
	{"length", "vectors that are one number short", false},
	{"nan", "a vector that holds NaN", false},
	{"zero", "a vector of zeros", false},
	{"count", "one vector too few", false},
	{"shuffle", "vectors in another order, with their indexes", false},
	{"noindex", "vectors without indexes", false},
	{"model", "the name of another model", false},
}

// Kinds lists the faults, each with what it is.
func Kinds() (kinds, does []string) {
	for _, f := range faults {
		kinds, does = append(kinds, f.kind), append(does, f.does)
	}
	return kinds, does
}

// Outages lists the faults that every request can meet for a while.
func Outages() (kinds []string) {
	for _, f := range faults {
		if f.outage {
			kinds = append(kinds, f.kind)
		}
	}
	return kinds
}

func checkKind(kind string) error {
	kinds, _ := Kinds()
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("there is no fault %q; there are %s", kind, strings.Join(kinds, ", "))
	}
	return nil
}

// ParseFaults reads faults as they are written in a flag: 429=0.05,hang=0.01.
func ParseFaults(text string) ([]Fault, error) {
	var out []Fault
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		kind, share, _ := strings.Cut(pair, "=")
		if err := checkKind(kind); err != nil {
			return nil, err
		}
		p, err := strconv.ParseFloat(share, 64)
		if err != nil || !(p >= 0 && p <= 1) {
			return nil, fmt.Errorf("%s is no fault with its share of the requests; write it like %s=0.05", pair, kind)
		}
		out = append(out, Fault{kind, p})
	}
	return out, checkShares(out)
}

func checkShares(all []Fault) error {
	total := 0.0
	for _, f := range all {
		total += f.Share
	}
	if total > 1+1e-9 {
		return fmt.Errorf("the shares of the faults come to %.3g of the requests, which is more than all", total)
	}
	return nil
}

// ParseScript reads a script as it is written in a flag: ok,ok,503*20,ok.
func ParseScript(text string) ([]string, error) {
	var out []string
	for step := range strings.SplitSeq(text, ",") {
		if step = strings.TrimSpace(step); step == "" {
			continue
		}
		kind, times, repeated := strings.Cut(step, "*")
		n := 1
		if repeated {
			var err error
			if n, err = strconv.Atoi(times); err != nil || n < 1 || n > 1_000_000 {
				return nil, fmt.Errorf("%s is no step of a script; write it like 503*20", step)
			}
		}
		if kind != ok {
			if err := checkKind(kind); err != nil {
				return nil, err
			}
		}
		out = append(out, slices.Repeat([]string{kind}, n)...)
	}
	return out, nil
}
