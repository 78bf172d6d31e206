package evals

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Baseline is what a run is compared with: an earlier one.
type Baseline struct {
	// Name is for people.
	Name string
	// Kind and Set are empty where the file does not tell.
	Kind Kind
	Set  Set
	// Values are the figures by name; durations are in seconds.
	Values map[string]float64
	// Better is what is known of their directions.
	Better map[string]Direction
}

// ReadBaseline reads a kept [Result], or what the command line printed with --json.
func ReadBaseline(content []byte, name string) (*Baseline, error) {
	var head struct {
		Format  int             `json:"format"`
		Figures json.RawMessage `json:"figures"`
	}
	if err := json.Unmarshal(content, &head); err != nil {
		return nil, fmt.Errorf("baseline %s: %w", name, err)
	}
	if head.Figures != nil {
		r, err := decodeResult(content)
		if err != nil {
			return nil, fmt.Errorf("baseline %s: %w", name, err)
		}
		return r.Baseline(), nil
	}
	var printed map[string]any
	if err := json.Unmarshal(content, &printed); err != nil {
		return nil, fmt.Errorf("baseline %s: %w", name, err)
	}
	var known struct {
		ID     string               `json:"id"`
		Kind   Kind                 `json:"kind"`
		Set    Set                  `json:"set"`
		Better map[string]Direction `json:"better"`
	}
	// What the eval did not print itself, such as a file written by hand, may have other things under these names.
	if json.Unmarshal(content, &known) != nil {
		known.Better = nil
	}
	b := &Baseline{Name: name, Kind: known.Kind, Set: known.Set, Better: known.Better, Values: make(map[string]float64)}
	if known.ID != "" {
		b.Name = known.ID
	}
	flatten("", printed, b.Values)
	if len(b.Values) == 0 {
		return nil, fmt.Errorf("baseline %s: there are no figures in it", name)
	}
	return b, nil
}

// flatten collects the numbers and durations of an object under dotted names.
func flatten(prefix string, object map[string]any, into map[string]float64) {
	for name, value := range object {
		switch v := value.(type) {
		case float64:
			into[prefix+name] = v
		case string:
			if d, err := time.ParseDuration(v); err == nil {
				into[prefix+name] = d.Seconds()
			}
		case map[string]any:
			flatten(prefix+name+".", v, into)
		}
	}
}

// Baseline is the result as one to compare with.
func (r *Result) Baseline() *Baseline {
	b := &Baseline{Name: r.ID, Kind: r.Kind, Set: r.Set, Values: make(map[string]float64), Better: make(map[string]Direction)}
	for _, f := range r.Figures {
		b.Values[f.Name] = f.Value
		if f.Better != "" {
			b.Better[f.Name] = f.Better
		}
	}
	return b
}

// ErrNotComparable is wrapped where a baseline is of something else.
var ErrNotComparable = errors.New("the baseline can't be compared with")

// Change is how a figure differs from the baseline.
type Change struct {
	Figure string    `json:"figure"`
	Unit   Unit      `json:"unit,omitempty"`
	Better Direction `json:"better,omitempty"`
	// Before is the baseline's value.
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	// Tolerance is how much worse After might have been.
	Tolerance float64 `json:"tolerance"`
	// Gone tells that the run lacks the figure: After means nothing then, and it counts as worse.
	Gone  bool `json:"gone,omitempty"`
	Worse bool `json:"worse"`
}

// String is the change for people, such as "ndcg@10 0.6451 → 0.6120 (-0.0331, tolerance 0.0050)".
func (c Change) String() string {
	if c.Gone {
		return fmt.Sprintf("%s %s → not measured", c.Figure, c.Unit.Format(c.Before))
	}
	sign := ""
	if c.After >= c.Before {
		sign = "+"
	}
	return fmt.Sprintf("%s %s → %s (%s%s, tolerance %s)", c.Figure, c.Unit.Format(c.Before), c.Unit.Format(c.After), sign, c.Unit.Format(c.After-c.Before), c.Unit.Format(c.Tolerance))
}

// Against compares a result's figures with a baseline, in the result's order; after them come those with a direction that
// the result lacks. Errors wrap [ErrNotComparable]: another kind, another set, or no figure in common.
func (r *Result) Against(b *Baseline, tolerance Tolerance) ([]Change, error) {
	switch {
	case b.Kind != "" && b.Kind != r.Kind:
		return nil, fmt.Errorf("%w: %s is of eval %s, this is %s", ErrNotComparable, b.Name, b.Kind, r.Kind)
	case b.Set.Digest != "" && r.Set.Digest != "" && b.Set.Digest != r.Set.Digest:
		return nil, fmt.Errorf("%w: %s asked the set %s, and this run %s with other questions or answers", ErrNotComparable, b.Name, b.Set.Name, r.Set.Name)
	}
	var changes []Change
	for _, f := range r.Figures {
		before, ok := b.Values[f.Name]
		if !ok {
			continue
		}
		c := Change{Figure: f.Name, Unit: f.Unit, Better: f.Better, Before: before, After: f.Value, Tolerance: tolerance.of(f.Name, before)}
		worse := 0.
		switch f.Better {
		case Higher:
			worse = before - f.Value
		case Lower:
			worse = f.Value - before
		}
		// The last digits of a sum are no change.
		c.Worse = worse > c.Tolerance+1e-12*math.Abs(before)
		changes = append(changes, c)
	}
	if len(changes) == 0 {
		return nil, fmt.Errorf("%w: %s has none of this eval's figures", ErrNotComparable, b.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Better)) {
		if _, ok := r.Figure(name); !ok && b.Better[name] != "" {
			changes = append(changes, Change{Figure: name, Better: b.Better[name], Before: b.Values[name], Gone: true, Worse: true})
		}
	}
	return changes, nil
}

// Slack is how much worse a figure may be: the larger of the two.
type Slack struct {
	Absolute float64
	// Relative is a share of the baseline's value.
	Relative float64
}

// Tolerance is how much worse figures may be without counting as worse.
type Tolerance struct {
	// Slack is for all figures that are not named.
	Slack
	Figures map[string]Slack
}

func (t Tolerance) of(figure string, before float64) float64 {
	s, ok := t.Figures[figure]
	if !ok {
		s = t.Slack
	}
	return max(s.Absolute, s.Relative*math.Abs(before))
}

// With reads tolerances from text on top of t: "0.01" or "2%" for all figures, "mrr=0.02" or "deletes.p99=10%" for one,
// several with commas between them. "100ms" is for a figure that is a duration. A value for all figures replaces t's
// own for single figures too.
func (t Tolerance) With(text string) (Tolerance, error) {
	out := Tolerance{Slack: t.Slack, Figures: make(map[string]Slack)}
	named := make(map[string]Slack)
	general := false
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			name, value = "", part
		}
		s, err := parseSlack(strings.TrimSpace(value))
		if err != nil {
			return t, fmt.Errorf("tolerance %q: %w", part, err)
		}
		if !ok {
			out.Slack, general = s, true
			continue
		}
		named[strings.TrimSpace(name)] = s
	}
	if !general {
		for name, s := range t.Figures {
			out.Figures[name] = s
		}
	}
	for name, s := range named {
		out.Figures[name] = s
	}
	return out, nil
}

func parseSlack(text string) (Slack, error) {
	number, relative := strings.CutSuffix(text, "%")
	v, err := parseValue(number)
	if err != nil || v < 0 {
		return Slack{}, errors.New("write it like 0.01, 2% or 100ms")
	}
	if relative {
		return Slack{Relative: v / 100}, nil
	}
	return Slack{Absolute: v}, nil
}

// parseValue reads a number, or a duration as seconds.
func parseValue(text string) (float64, error) {
	if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
		return v, nil
	}
	d, err := time.ParseDuration(text)
	return d.Seconds(), err
}

// Gate is a bound that a figure has to keep.
type Gate struct {
	Figure string `json:"figure"`
	// Op is one of >= > <= <.
	Op    string  `json:"op"`
	Bound float64 `json:"bound"`
	// Value is what was measured, where Passed is known.
	Value  float64 `json:"value"`
	Passed bool    `json:"passed"`
	// Why says more of a gate that did not pass; it may be empty.
	Why string `json:"why,omitempty"`
}

var gateSyntax = regexp.MustCompile(`^\s*([^\s<>=]+)\s*(>=|<=|>|<)\s*(\S+)\s*$`)

// ParseGate reads a bound such as "ndcg@10>=0.6" or "deletes.p99<2s".
func ParseGate(text string) (Gate, error) {
	m := gateSyntax.FindStringSubmatch(text)
	if m == nil {
		return Gate{}, fmt.Errorf("gate %q: write it like ndcg@10>=0.6", text)
	}
	bound, err := parseValue(m[3])
	if err != nil {
		return Gate{}, fmt.Errorf("gate %q: %q is neither a number nor a duration", text, m[3])
	}
	return Gate{Figure: m[1], Op: m[2], Bound: bound}, nil
}

// Check tells whether a result keeps the bound. A figure that the result lacks keeps none.
func (g Gate) Check(r *Result) Gate {
	f, ok := r.Figure(g.Figure)
	if !ok {
		g.Why = "there is no such figure"
		return g
	}
	g.Value = f.Value
	switch g.Op {
	case ">=":
		g.Passed = f.Value >= g.Bound
	case ">":
		g.Passed = f.Value > g.Bound
	case "<=":
		g.Passed = f.Value <= g.Bound
	case "<":
		g.Passed = f.Value < g.Bound
	}
	if !g.Passed && g.Why == "" {
		g.Why = "it is " + f.String()
	}
	return g
}

// String is the gate as ParseGate reads it.
func (g Gate) String() string {
	return g.Figure + g.Op + strconv.FormatFloat(g.Bound, 'g', -1, 64)
}
